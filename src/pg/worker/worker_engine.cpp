// The border between the pooler worker's main loop and the engine; on the main thread of the pooler
// worker. Exceptions end here, and nothing here may ereport.
#include <algorithm>
#include <chrono>
#include <exception>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/time.h"
#include "engine/environment.h"

#include "pg/base/guc.h"
#include "pg/worker/worker_engine.h"

#include "pg/prelude.h"

namespace polarx {
namespace {

// On the heap, since the server ends a process without unwinding its stack.
Pooler* pooler = nullptr;
std::vector<RawQuestion>* asked = nullptr;
char error_text[256] = "";

// Runs `body`; false if it threw.
template <typename Body>
bool Guarded(Body body) noexcept {
  try {
    body();
    return true;
  } catch (const std::exception& error) {
    strlcpy(error_text, error.what(), sizeof(error_text));
  } catch (...) {
    strlcpy(error_text, "unknown exception", sizeof(error_text));
  }
  return false;
}

}  // namespace

const char* EngineError() { return error_text; }

bool EngineStart(const char* database, uint64 generation, int fd_limit, int listener,
                 NodeCell* cells) {
  bool started = false;
  const bool finished = Guarded([&] {
    RemoveLibpqEnvironment();
    PoolerConfig config;
    config.database = database;
    config.generation = generation;
    config.worker_threads = parameters.pooler_scale_factor;
    config.fd_limit = fd_limit;
    config.listener.Reset(listener);
    if (cells != nullptr) {
      config.node_cells = std::span(cells, kCellsOfAWorker);
    }
    Result<std::unique_ptr<Pooler>> result = Pooler::Start(std::move(config), CurrentSettings());
    started = result.ok();
    if (started) {
      pooler = result.value().release();
    } else {
      strlcpy(error_text, result.status().message().c_str(), sizeof(error_text));
    }
  });
  return finished && started;
}

bool EngineStop() {
  if (pooler == nullptr) {
    return true;
  }
  // What a stuck thread may still look at stays until the process ends.
  Pooler* const ended = std::exchange(pooler, nullptr);
  bool joined = false;
  const bool finished = Guarded([&] {
    joined = ended->Stop();
    if (joined) {
      delete ended;
    }
  });
  return finished && joined;
}

int EngineFd() { return pooler->fd(); }
void EngineLookOut() { pooler->LookOut(); }
int EngineFdsUsed() { return pooler->fds_used(); }

long EngineTimeout(long most) {
  return MillisecondsUntil(pooler->NextDeadline(), static_cast<int>(most));
}

bool EngineReceive() {
  return Guarded([] { pooler->Receive(Now()); });
}

bool EngineServe() {
  return Guarded([] { pooler->Serve(Now()); });
}

bool EngineApplySettings() {
  return Guarded([] { pooler->Apply(CurrentSettings(), Now()); });
}

bool EngineSetCatalog(const RawCatalog* catalog) {
  return Guarded([&] { pooler->SetCatalog(BuildNodes(*catalog), BuildMappings(*catalog), Now()); });
}

const RawQuestion* EngineAsked(int* count) {
  const bool finished = Guarded([&] {
    if (asked == nullptr) {
      asked = new std::vector<RawQuestion>();
    }
    asked->clear();
    asked->reserve(1);  // so that data() is never null
    for (const MappingQuestion& question : pooler->KnownMappings(Now())) {
      asked->push_back({question.node, question.role});
    }
    *count = static_cast<int>(asked->size());
  });
  return finished ? asked->data() : nullptr;
}

bool EngineNextAttach(AttachQuestion* question) { return pooler->NextAttach(question); }

bool EngineAnswerAttach(SessionId session, const char* role, const char* refusal,
                        LeaseCell* cells) {
  return Guarded([&] {
    if (role != nullptr) {
      pooler->AnswerAttach(session, Status::Ok(), role, cells);
    } else {
      pooler->AnswerAttach(session, Status(sqlstate::kInsufficientPrivilege, refusal), "");
    }
  });
}

bool EngineNextMapping(RawQuestion* question) {
  MappingQuestion next;
  if (!pooler->NextMapping(&next)) {
    return false;
  }
  *question = {next.node, next.role};
  return true;
}

bool EngineAnswerMapping(const RawCatalog* answer) {
  return Guarded([&] {
    std::vector<NodeDefinition> nodes = BuildNodes(*answer);
    std::vector<MappingDefinition> mappings = BuildMappings(*answer);
    pooler->AnswerMapping(nodes.empty() ? nullptr : &nodes.front(), std::move(mappings.front()),
                          Now());
  });
}

bool EngineTakeReload() { return pooler->TakeReload(); }

const int* EngineNextLocalWaits(int* count) {
  static std::vector<int>* processes = nullptr;
  bool asked = false;
  const bool finished = Guarded([&] {
    if (processes == nullptr) {
      processes = new std::vector<int>();
    }
    asked = pooler->NextLocalWaits(processes);
    *count = static_cast<int>(processes->size());
  });
  return finished && asked ? processes->data() : nullptr;
}

bool EngineAnswerLocalWaits(const RawLocalWait* waits, int count) {
  return Guarded([&] {
    std::vector<WaitEdge> edges;
    edges.reserve(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) {
      edges.push_back({.waiter = waits[i].waiter, .holder = waits[i].holder, .node = {}});
    }
    pooler->AnswerLocalWaits(edges);
  });
}

bool EngineNextLog(LogRecord* record) { return pooler->NextLog(record); }

bool EngineSetSurvivors(const LeaseCount* counts, int length) {
  return Guarded([&] {
    std::map<NodeId, int> survivors;
    for (int i = 0; i < length; ++i) {
      survivors[counts[i].node] += counts[i].count;
    }
    pooler->SetSurvivors(survivors);
  });
}

bool EngineNextLongLease(RawLongLease* lease) {
  bool there = false;
  const bool finished = Guarded([&] {
    LongLease next;
    there = pooler->NextLongLease(&next);
    strlcpy(lease->node, next.node.c_str(), NAMEDATALEN);
    strlcpy(lease->remote_user, next.remote_user.c_str(), NAMEDATALEN);
    lease->session_pid = next.session_pid;
    lease->remote_pid = next.remote_pid;
    lease->seconds = next.seconds;
  });
  return finished && there;
}

}  // namespace polarx
