// One statement is sent to one or several datanodes and its results are read, row by row. In a
// backend, on its only thread.
#include <libpq-fe.h>

#include <new>

#include "core/time.h"
#include "engine/poller.h"

#include "pg/base/text.h"
#include "pg/remote/long_wait.h"
#include "pg/remote/notices.h"
#include "pg/remote/run.h"
#include "pg/session/waits.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

void Lose(RemoteRun* run, const PGresult* result) {
  run->error = MakeConnectionLost(run->lease, result);
  LeaseBreak(run->lease);
  run->state = RunState::kLost;
}

// The connection cannot be brought in sync again by reading on.
void Break(RemoteRun* run, RemoteError* error) {
  run->error = error;
  LeaseBreak(run->lease);
  run->state = RunState::kFailed;
}

void End(RemoteRun* run) {
  run->lease->remote.busy = false;
  run->state = run->error == nullptr ? RunState::kDone : RunState::kFailed;
}

void EnterStatement(RemoteRun* run) {
  run->state = run->prefix > 0 ? RunState::kPrefix : RunState::kStatement;
  if (run->state == RunState::kStatement) {
    // Not possible once the first result is there, which then is an error or has no rows.
    (void)PQsetSingleRowMode(run->lease->conn);
  }
}

// The results of one command are read.
void TakeBoundary(RemoteRun* run) {
  const PGconn* conn = run->lease->conn;
  if (PQstatus(conn) != CONNECTION_OK ||
      (run->pipeline && PQtransactionStatus(conn) != PQTRANS_ACTIVE)) {
    Lose(run, nullptr);  // or the batch's end would be awaited for ever
    return;
  }
  switch (run->state) {
    case RunState::kPrefix:
      --run->prefix;
      EnterStatement(run);
      break;
    case RunState::kStatement:
    case RunState::kEnd:
      run->state = RunState::kEnd;
      if (!run->pipeline) {
        End(run);
      }
      break;
    default:
      break;
  }
}

// A batch is read.
void TakeSync(RemoteRun* run) {
  if (run->state == RunState::kStale) {
    if (--run->lease->remote.unread_batches == 0) {
      EnterStatement(run);
    }
  } else {
    End(run);
  }
}

void TakeError(RemoteRun* run, const PGresult* result) {
  if (EndsConnection(run->lease->conn, result)) {
    Lose(run, result);
  } else if (run->state == RunState::kStale) {
    // The remote transaction is not what it should be.
    Break(run, CopyRemoteError(run->lease->conn, result));
  } else {
    run->error = CopyRemoteError(run->lease->conn, result);
    if (run->state == RunState::kPrefix && run->error->query == nullptr) {
      run->error->position = 0;  // in another text than the statement's
    }
    run->state = RunState::kEnd;
  }
}

void TakeResult(RemoteRun* run) {
  PGresult*& result = run->lease->remote.result;
  PQclear(result);
  result = PQgetResult(run->lease->conn);
  if (result == nullptr) {
    TakeBoundary(run);
    return;
  }
  LeaseNoteSize(run->lease, PQresultMemorySize(result));
  switch (PQresultStatus(result)) {
    case PGRES_PIPELINE_SYNC:
      TakeSync(run);
      break;
    case PGRES_PIPELINE_ABORTED:
      break;
    case PGRES_SINGLE_TUPLE:
    case PGRES_TUPLES_OK:
    case PGRES_COMMAND_OK:
    case PGRES_EMPTY_QUERY:
      if (run->state == RunState::kStatement) {
        strlcpy(run->tag, PQcmdStatus(result), sizeof(run->tag));
        (void)MakeValid(run->tag);
        run->held = true;
      }
      break;
    case PGRES_COPY_IN:
    case PGRES_COPY_OUT:
    case PGRES_COPY_BOTH:
      Break(run, MakeRemoteError(ERRCODE_FEATURE_NOT_SUPPORTED, "COPY is not supported here",
                                 nullptr, "Use the C interface, polarx_pooler.h."));
      break;
    default:
      TakeError(run, result);
      break;
  }
}

// Sends and takes in what is possible without waiting. Returns false if there was nothing to take.
bool Exchange(RemoteRun* run) {
  PGconn* conn = run->lease->conn;
  if (run->unsent) {
    const int unsent = PQflush(conn);
    if (unsent < 0) {
      Lose(run, nullptr);
      return true;
    }
    run->unsent = unsent > 0;
  }
  if (PQconsumeInput(conn) != 1) {
    Lose(run, nullptr);
    return true;
  }
  return !PQisBusy(conn);
}

// Nobody asks for them, and a session that keeps its connection would keep them all.
void DropNotifications(PolarxLease* lease) {
  while (PGnotify* notification = PQnotifies(lease->conn)) {
    LeaseNoteSize(lease, strlen(notification->extra));
    PQfreemem(notification);
  }
}

// Goes on until the run has ended, holds a row that is not to be taken yet, or should wait: for the
// socket, or, in a stream of rows that never pauses, for interrupts and other runs.
void Advance(RemoteRun* run, bool on_turn, RowSink* sink) {
  bool exchanged = false;
  while (!RemoteEnded(run)) {
    if (run->held && !on_turn) {
      return;
    }
    if (run->held) {
      run->held = false;
      if (sink != nullptr) {
        sink->take(sink, run->lease, run->lease->remote.result);
      }
    }
    const bool busy = PQisBusy(run->lease->conn) != 0;
    if (!busy) {
      TakeResult(run);
    } else if (!exchanged) {
      exchanged = true;
      if (Exchange(run)) {
        NoticesReport(run->lease);
        continue;
      }
    }
    NoticesReport(run->lease);
    if (busy) {
      return;
    }
  }
  PQclear(run->lease->remote.result);
  run->lease->remote.result = nullptr;
  DropNotifications(run->lease);
}

// In milliseconds, -1: without a limit.
long WaitTime(TimePoint deadline) { return deadline == kNever ? -1 : MillisecondsUntil(deadline); }

int WaitedEvents(const RemoteRun* run) {
  return WL_SOCKET_READABLE | (run->unsent ? WL_SOCKET_WRITEABLE : 0);
}

void RaiseIfFailed(const RemoteRun* run) {
  if (run->error != nullptr) {
    RaiseRemoteError(run->error, run->lease, run->sql);
  }
}

bool FinishOne(RemoteRun* run, RowSink* sink, TimePoint deadline) {
  for (;;) {
    Advance(run, true, sink);
    if (RemoteEnded(run)) {
      return true;
    }
    if (!AwaitRuns(run, 1, PQsocket(run->lease->conn), WaitedEvents(run), deadline)) {
      return false;
    }
  }
}

// Runs that are read together.
struct Group {
  RemoteRun* runs;
  int count;
  int ended;
  int turn;  // the run whose rows may be taken
  RowSink* sink;
  bool raise;
  Poller* poller;  // one shot per registration: a run that holds a row is not armed
};

void DeletePoller(void* group) {
  delete static_cast<Group*>(group)->poller;
  static_cast<Group*>(group)->poller = nullptr;
}

std::uint32_t WantedEvents(const RemoteRun* run) {
  return EPOLLONESHOT | EPOLLIN | (run->unsent ? EPOLLOUT : 0u);
}

void MakePoller(Group* group) {
  // An error jumps away from here; the memory context's end then frees the descriptor.
  auto* callback = static_cast<MemoryContextCallback*>(palloc0(sizeof(MemoryContextCallback)));
  callback->func = DeletePoller;
  callback->arg = group;
  MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
  group->poller = new (std::nothrow) Poller;
  bool ready = group->poller != nullptr && group->poller->fd() >= 0;
  for (int i = 0; ready && i < group->count; ++i) {
    const RemoteRun* run = &group->runs[i];
    ready = RemoteEnded(run) || group->poller->Add(PQsocket(run->lease->conn), WantedEvents(run),
                                                   static_cast<uint64>(i));
  }
  if (!ready) {
    ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_RESOURCES),
                    errmsg("could not watch the connections to %d datanodes: %m", group->count)));
  }
}

// Goes on with run `i`, and with those whose turn comes by that.
void Step(Group* group, int i) {
  for (;;) {
    RemoteRun* run = &group->runs[i];
    Advance(run, group->sink == nullptr || i == group->turn, group->sink);
    if (!RemoteEnded(run)) {
      if (!run->held) {
        (void)group->poller->Change(PQsocket(run->lease->conn), WantedEvents(run),
                                    static_cast<uint64>(i));
      }
      return;
    }
    ++group->ended;
    if (group->raise) {
      RaiseIfFailed(run);
    }
    if (i != group->turn) {
      return;
    }
    while (group->turn < group->count && RemoteEnded(&group->runs[group->turn])) {
      ++group->turn;
    }
    if (group->turn == group->count || !group->runs[group->turn].held) {
      return;
    }
    i = group->turn;
  }
}

bool FinishMany(Group* group, TimePoint deadline) {
  bool in_time = true;
  MakePoller(group);
  for (int i = 0; i < group->count; ++i) {
    Step(group, i);
  }
  while (in_time && group->ended < group->count) {
    in_time =
        AwaitRuns(group->runs, group->count, group->poller->fd(), WL_SOCKET_READABLE, deadline);
    for (const epoll_event& event : group->poller->Wait(TimePoint{})) {
      const int i = static_cast<int>(event.data.u64);
      // One that ended without waiting is still armed, and its end must not count twice.
      if (!RemoteEnded(&group->runs[i])) {
        Step(group, i);
      }
    }
  }
  DeletePoller(group);
  return group->ended == group->count;
}

// With its parameters, in the buffer that it is sent from.
size_t SizeOf(const StatementText* text) {
  size_t size = strlen(text->sql);
  for (int i = 0; i < text->count; ++i) {
    size += text->values[i] != nullptr ? strlen(text->values[i]) : 0;
  }
  return size;
}

bool Send(PGconn* conn, const StatementText* text) {
  return PQsendQueryParams(conn, text->sql, text->count, nullptr, text->values, nullptr, nullptr,
                           0) == 1;
}

}  // namespace

bool LeaseTakeUp(PolarxLease* lease, bool pipeline) noexcept {
  PQsetNoticeReceiver(lease->conn, NoticesKeep, lease);
  if (PQsetnonblocking(lease->conn, 1) != 0 ||
      (pipeline && PQenterPipelineMode(lease->conn) != 1)) {
    LeaseBreak(lease);
  }
  return !lease->connection.broken;
}

void LeasePost(PolarxLease* lease, const char* const* commands, int count) noexcept {
  PGconn* conn = lease->conn;
  bool sent = LeaseTakeUp(lease, true);
  for (int i = 0; sent && i < count; ++i) {
    sent = RemoteQueue(lease, commands[i]);
  }
  if (sent && PQpipelineSync(conn) == 1 && PQflush(conn) == 0) {
    ++lease->remote.unread_batches;
  } else {
    LeaseBreak(lease);
  }
}

bool RemoteQueue(PolarxLease* lease, const StatementText* text) {
  LeaseNoteSize(lease, SizeOf(text));
  if (!lease->connection.broken && !Send(lease->conn, text)) {
    LeaseBreak(lease);
  }
  return !lease->connection.broken;
}

bool RemoteQueue(PolarxLease* lease, const char* command) {
  const StatementText text = {command, 0, nullptr, true};
  return RemoteQueue(lease, &text);
}

void RemoteStart(RemoteRun* run, PolarxLease* lease, int prefix, const StatementText* text) {
  PGconn* conn = lease->conn;
  *run = {};
  run->lease = lease;
  run->sql = text->sql;
  run->prefix = prefix;
  run->pipeline = PQpipelineStatus(conn) != PQ_PIPELINE_OFF;
  if (!RemoteQueue(lease, text) || (run->pipeline && PQpipelineSync(conn) != 1)) {
    Lose(run, nullptr);
    return;
  }
  lease->remote.busy = true;
  if (lease->remote.unread_batches > 0) {
    run->state = RunState::kStale;
  } else {
    EnterStatement(run);
  }
  LeaseNoteStatement(lease, text->plain);
  const int unsent = PQflush(conn);
  run->unsent = unsent > 0;
  if (unsent < 0) {
    Lose(run, nullptr);
  }
}

bool RemoteFinish(RemoteRun* runs, int count, RowSink* sink, bool raise, TimePoint deadline) {
  NoticesDrop();
  if (count == 1) {
    const bool in_time = FinishOne(runs, sink, deadline);
    if (raise) {
      RaiseIfFailed(runs);
    }
    return in_time;
  }
  if (count == 0) {
    return true;
  }
  auto* group = static_cast<Group*>(palloc0(sizeof(Group)));
  group->runs = runs;
  group->count = count;
  group->sink = sink;
  group->raise = raise;
  return FinishMany(group, deadline);
}

bool RemoteAdvance(RemoteRun* run) {
  Advance(run, true, nullptr);
  return RemoteEnded(run);
}

bool RemoteWait(const RemoteRun* run, TimePoint deadline) {
  return ClientWaitSocket(PQsocket(run->lease->conn), WaitedEvents(run), WaitTime(deadline), false);
}

}  // namespace polarx
