// One statement is sent to one or several datanodes and its results are read, row by row. In a
// backend, on its only thread.
#include <libpq-fe.h>

#include <chrono>
#include <new>

#include "core/time.h"
#include "engine/poller.h"

#include "pg/remote/remote_statement.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

// From there on a row is large.
constexpr size_t kBulk = 1024 * 1024;

bool Ended(const RemoteRun* run) { return run->state >= RunState::kDone; }

void Lose(RemoteRun* run, const PGresult* result) {
  run->error = MakeConnectionLost(run->lease, result);
  run->lease->broken = true;
  run->state = RunState::kLost;
}

// The connection cannot be brought in sync again by reading on.
void Break(RemoteRun* run, RemoteError* error) {
  run->error = error;
  run->lease->broken = true;
  run->state = RunState::kFailed;
}

void End(RemoteRun* run) {
  run->lease->busy = false;
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
    if (--run->lease->unread_batches == 0) {
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
    Break(run, CopyRemoteError(result));  // the remote transaction is not what it should be
  } else {
    run->error = CopyRemoteError(result);
    run->state = RunState::kEnd;
  }
}

void TakeResult(RemoteRun* run) {
  PGresult*& result = run->lease->result;
  PQclear(result);
  result = PQgetResult(run->lease->conn);
  if (result == nullptr) {
    TakeBoundary(run);
    return;
  }
  run->lease->bulky = run->lease->bulky || PQresultMemorySize(result) > kBulk;
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

// Sends and takes in what is possible without waiting. False: there was nothing to take in.
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

// Goes on until the run has ended, holds a row that is not to be taken yet, or should wait: for the
// socket, or, in a stream of rows that never pauses, for interrupts and other runs.
void Advance(RemoteRun* run, bool on_turn, RowSink* sink) {
  bool exchanged = false;
  while (!Ended(run)) {
    if (run->held && !on_turn) {
      return;
    }
    if (run->held) {
      run->held = false;
      if (sink != nullptr) {
        sink->take(sink, run->lease, run->lease->result);
      }
    }
    if (!PQisBusy(run->lease->conn)) {
      TakeResult(run);
    } else if (exchanged || !Exchange(run)) {
      return;
    } else {
      exchanged = true;
    }
  }
  PQclear(run->lease->result);
  run->lease->result = nullptr;
}

void RaiseIfFailed(const RemoteRun* run) {
  if (run->error != nullptr) {
    RaiseRemoteError(run->error, run->lease, run->sql);
  }
}

void FinishOne(RemoteRun* run, RowSink* sink) {
  for (;;) {
    Advance(run, true, sink);
    if (Ended(run)) {
      return;
    }
    (void)ClientWaitSocket(PQsocket(run->lease->conn),
                           WL_SOCKET_READABLE | (run->unsent ? WL_SOCKET_WRITEABLE : 0), -1, true);
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
    ready = Ended(run) ||
            group->poller->Add(PQsocket(run->lease->conn), WantedEvents(run),
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
    if (!Ended(run)) {
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
    while (group->turn < group->count && Ended(&group->runs[group->turn])) {
      ++group->turn;
    }
    if (group->turn == group->count || !group->runs[group->turn].held) {
      return;
    }
    i = group->turn;
  }
}

void FinishMany(Group* group) {
  MakePoller(group);
  for (int i = 0; i < group->count; ++i) {
    Step(group, i);
  }
  while (group->ended < group->count) {
    (void)ClientWaitSocket(group->poller->fd(), WL_SOCKET_READABLE, -1, true);
    for (const epoll_event& event : group->poller->Wait(TimePoint{})) {
      const int i = static_cast<int>(event.data.u64);
      // One that ended without waiting is still armed, and its end must not count twice.
      if (!Ended(&group->runs[i])) {
        Step(group, i);
      }
    }
  }
  DeletePoller(group);
}

}  // namespace

bool RemoteQueue(PolarxLease* lease, const char* command) {
  if (!lease->broken && PQsendQueryParams(lease->conn, command, 0, nullptr, nullptr, nullptr,
                                          nullptr, 0) != 1) {
    lease->broken = true;
  }
  return !lease->broken;
}

void RemoteStart(RemoteRun* run, PolarxLease* lease, int prefix, const StatementText* text) {
  PGconn* conn = lease->conn;
  *run = {};
  run->lease = lease;
  run->sql = text->sql;
  run->prefix = prefix;
  run->pipeline = PQpipelineStatus(conn) != PQ_PIPELINE_OFF;
  if (lease->broken || PQsendQueryParams(conn, text->sql, text->count, nullptr, text->values,
                                         nullptr, nullptr, 0) != 1 ||
      (run->pipeline && PQpipelineSync(conn) != 1)) {
    Lose(run, nullptr);
    return;
  }
  lease->busy = true;
  if (lease->unread_batches > 0) {
    run->state = RunState::kStale;
  } else {
    EnterStatement(run);
  }
  lease->plain = lease->plain && text->plain;
  const int unsent = PQflush(conn);
  run->unsent = unsent > 0;
  if (unsent < 0) {
    Lose(run, nullptr);
  }
}

void RemoteFinish(RemoteRun* runs, int count, RowSink* sink, bool raise) {
  if (count == 1) {
    FinishOne(runs, sink);
    if (raise) {
      RaiseIfFailed(runs);
    }
  } else if (count > 1) {
    auto* group = static_cast<Group*>(palloc0(sizeof(Group)));
    group->runs = runs;
    group->count = count;
    group->sink = sink;
    group->raise = raise;
    FinishMany(group);
  }
}

void RemoteSettle(RemoteRun* runs, int count, int limit_ms) {
  for (int i = 0; i < count; ++i) {
    if (!Ended(&runs[i])) {
      ClientCancel(runs[i].lease);
    }
  }
  const TimePoint deadline = Now() + std::chrono::milliseconds(limit_ms);
  for (int i = 0; i < count; ++i) {
    RemoteRun* run = &runs[i];
    for (;;) {
      Advance(run, true, nullptr);
      const int left = MillisecondsUntil(deadline);
      if (Ended(run) || left == 0) {
        break;
      }
      (void)ClientWaitSocket(PQsocket(run->lease->conn),
                             WL_SOCKET_READABLE | (run->unsent ? WL_SOCKET_WRITEABLE : 0), left,
                             false);
    }
  }
}

}  // namespace polarx
