// The pooler worker's calls into the engine: functions that neither throw nor ereport, over the one
// Pooler of the process; on its main thread.
#pragma once

#include "engine/log_queue.h"
#include "engine/pooler.h"

#include "pg/base/catalog.h"
#include "pg/shared/lease_count.h"

#include "pg/prelude.h"

namespace polarx {

// Functions that return bool say false if they failed; then this tells why.
const char* EngineError();

// Starts the pooler; takes over `listener`.
bool EngineStart(const char* database, uint64 generation, int fd_limit, int listener,
                 NodeCell* cells);
// Ends it, if it runs. False: a thread is stuck and the process must leave by _exit.
bool EngineStop();

int EngineFd();
int EngineFdsUsed();
// Before a wait for EngineFd: may wait for it a moment without sleeping.
void EngineLookOut();
// Milliseconds until the engine wants to be called, at most `most`.
long EngineTimeout(long most);
bool EngineReceive();
bool EngineServe();
bool EngineApplySettings();
bool EngineSetCatalog(const RawCatalog* catalog);
// What sessions have asked for since the start; valid until the next call. Nullptr: failed.
const RawQuestion* EngineAsked(int* count);

bool EngineNextAttach(AttachQuestion* question);  // false: there is no more
// `role`: login role of the process, `cells`: its cells; nullptr: it is turned away, as `refusal`
// says.
bool EngineAnswerAttach(SessionId session, const char* role, const char* refusal,
                        LeaseCell* cells);
bool EngineNextMapping(RawQuestion* question);  // false: there is no more
// `answer`: of CatalogReadOne.
bool EngineAnswerMapping(const RawCatalog* answer);
bool EngineTakeReload();  // settings and catalog are to be read again before EngineServe
// The processes about which the server is to be asked; null: none. Valid until the next call.
const int* EngineNextLocalWaits(int* count);
struct RawLocalWait {
  int waiter;
  int holder;
};
bool EngineAnswerLocalWaits(const RawLocalWait* waits, int count);
bool EngineNextLog(LogRecord* record);  // false: there is no more
bool EngineSetSurvivors(const LeaseCount* counts, int length);

struct RawLongLease {
  char node[NAMEDATALEN];
  char remote_user[NAMEDATALEN];
  int session_pid;
  int remote_pid;
  double seconds;
};
bool EngineNextLongLease(RawLongLease* lease);  // false: there is no more

}  // namespace polarx
