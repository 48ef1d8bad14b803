// The pooler worker's calls into the engine: functions that neither throw nor ereport, over the one
// Pooler of the process; on its main thread.
#pragma once

#include "engine/log_queue.h"
#include "engine/pooler.h"

#include "pg/base/catalog.h"
#include "pg/shared/lease_count.h"

#include "pg/prelude.h"

namespace polarx {

// Returns why a call below has failed: those that return bool return false then, unless they say
// otherwise.
const char* EngineError();

// Starts the pooler; the engine owns `listener` from then on.
bool EngineStart(const char* database, uint64 generation, int fd_limit, int listener,
                 NodeCell* cells);
// Ends the pooler, if it runs. Returns false if a thread is stuck: the process must leave by _exit.
bool EngineStop();

int EngineFd();
int EngineFdsUsed();
// Waits for EngineFd for a moment without sleeping, if that is likely to pay; before a wait for it.
void EngineLookOut();
// Returns the milliseconds until the engine wants to be called, at most `most`.
long EngineTimeout(long most);
bool EngineReceive();
bool EngineServe();
bool EngineApplySettings();
bool EngineSetCatalog(const RawCatalog* catalog);
// Returns what sessions have asked for since the start, valid until the next call; null: it failed.
const RawQuestion* EngineAsked(int* count);

// The EngineNext functions return false where there is no more.
bool EngineNextAttach(AttachQuestion* question);
// `role`: the login role of the process that attaches; null: it is turned away, as `refusal` says.
// `cells`: those of its leases.
bool EngineAnswerAttach(SessionId session, const char* role, const char* refusal,
                        LeaseCell* cells);
bool EngineNextMapping(RawQuestion* question);
// `answer` is CatalogReadOne's.
bool EngineAnswerMapping(const RawCatalog* answer);
// Returns whether settings and catalog are to be read again before EngineServe.
bool EngineTakeReload();
bool EngineNextLog(LogRecord* record);
bool EngineSetSurvivors(const LeaseCount* counts, int length);

struct RawLongLease {
  char node[NAMEDATALEN];
  char remote_user[NAMEDATALEN];
  int session_pid;
  int remote_pid;
  double seconds;
};
bool EngineNextLongLease(RawLongLease* lease);

}  // namespace polarx
