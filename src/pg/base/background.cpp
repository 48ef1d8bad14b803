// The launcher and the pooler workers as background processes of the server: signals, settings and
// own transactions; on their main threads.
#include <csignal>

#include "pg/base/background.h"

#include "pg/prelude.h"

namespace polarx {
namespace {

struct OwnSetting {
  const char* name;
  const char* value;
};

// Some exist in later versions only.
constexpr OwnSetting kOwnSettings[] = {
    {"default_transaction_isolation", "read committed"},
    {"default_transaction_read_only", "off"},
    {"default_transaction_deferrable", "off"},
    {"statement_timeout", "0"},
    {"transaction_timeout", "0"},
    {"idle_in_transaction_session_timeout", "0"},
    {"idle_session_timeout", "0"},
    {"exit_on_error", "off"},
};

volatile sig_atomic_t reading = false;
int lock_limit = 0;

void Override(const char* name, const char* value) {
  SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
}

void SetLockLimit(int limit_ms) {
  if (limit_ms == lock_limit) {
    return;
  }
  lock_limit = limit_ms;
  char text[16];
  snprintf(text, sizeof(text), "%d", limit_ms);
  Override("lock_timeout", text);
}

// The server sends SIGINT to its own process when lock_timeout is over. Outside of a wait for a
// lock there is nothing to cancel.
extern "C" void CancelReading(int signal_number) {
  if (reading) {
    StatementCancelHandler(signal_number);
  }
}

bool IsTransient(int code) {
  return code == ERRCODE_LOCK_NOT_AVAILABLE || code == ERRCODE_QUERY_CANCELED ||
         code == ERRCODE_T_R_DEADLOCK_DETECTED || code == ERRCODE_T_R_SERIALIZATION_FAILURE;
}

// In a PG_CATCH. True: the transaction is aborted, and the reason kept.
bool Recover(MemoryContext context, char* reason, size_t size) {
  MemoryContextSwitchTo(context);
  ErrorData* error = CopyErrorData();
  const bool transient = IsTransient(error->sqlerrcode);
  if (transient) {
    FlushErrorState();
    AbortCurrentTransaction();
    MemoryContextSwitchTo(context);
    BackgroundReason(error, reason, size);
  }
  FreeErrorData(error);
  return transient;
}

}  // namespace

void BackgroundPrepare() {
  pqsignal(SIGHUP, SignalHandlerForConfigReload);
  pqsignal(SIGINT, CancelReading);
  pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
  for (const OwnSetting& setting : kOwnSettings) {
    if (GetConfigOption(setting.name, true, false) != nullptr) {
      Override(setting.name, setting.value);
    }
  }
  SetLockLimit(kLockLimitMs);
}

void BackgroundConnect(Oid database) {
  reading = true;
  if (OidIsValid(database)) {
    BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
  } else {
    BackgroundWorkerInitializeConnection(nullptr, nullptr, 0);
  }
  reading = false;
  QueryCancelPending = false;
  pgstat_report_appname(MyBgworkerEntry->bgw_type);
}

bool BackgroundIsInTheWay() { return ProcDiePending || MyProc->recoveryConflictPending; }

void BackgroundReason(const ErrorData* error, char* reason, size_t size) {
  if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE) {
    snprintf(reason, size, "another process holds a lock on a system catalog");
  } else {
    strlcpy(reason, error->message, size);
  }
}

bool BackgroundRead(int lock_limit_ms, void (*body)(void* argument), void* argument, char* reason,
                    size_t size) {
  const MemoryContext context = CurrentMemoryContext;
  volatile bool done = false;
  SetLockLimit(lock_limit_ms);
  reading = true;
  PG_TRY();
  {
    StartTransactionCommand();
    PushActiveSnapshot(GetTransactionSnapshot());
    body(argument);
    PopActiveSnapshot();
    CommitTransactionCommand();
    MemoryContextSwitchTo(context);
    done = true;
  }
  PG_CATCH();
  {
    if (!Recover(context, reason, size)) {
      PG_RE_THROW();
    }
  }
  PG_END_TRY();
  reading = false;
  QueryCancelPending = false;
  return done;
}

}  // namespace polarx
