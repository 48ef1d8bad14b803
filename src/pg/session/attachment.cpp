// A backend finds the pooler worker of its database, has it started where none runs, and attaches
// to it; on its only thread.
#include <algorithm>
#include <chrono>
#include <utility>
#include <variant>

#include "core/protocol.h"
#include "core/time.h"
#include "engine/pooler_client.h"

#include "pg/session/attachment.h"
#include "pg/session/leases.h"
#include "pg/base/backends.h"
#include "pg/base/guc.h"
#include "pg/base/wrappers.h"
#include "pg/shared/lease_cells.h"
#include "pg/shared/registry.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

Attachment* attachment = nullptr;
uint64 attachments = 0;  // so far

const char* DatabaseName() {
  const char* name = get_database_name(MyDatabaseId);
  return name != nullptr ? name : "";
}

[[noreturn]] void ThrowNotRunning(const char* detail, const char* hint) {
  ereport(ERROR, (errcode(ERRCODE_CANNOT_CONNECT_NOW),
                  errmsg("pooler worker of database \"%s\" is not running", DatabaseName()),
                  detail != nullptr ? errdetail_internal("%s", detail) : 0,
                  hint != nullptr ? errhint("%s", hint) : 0));
  pg_unreachable();
}

[[noreturn]] void ThrowNotReady(const WorkerEntry* entry) {
  if (entry->state == WorkerState::kStopped) {
    ThrowNotRunning("It was stopped by an administrator.", "Run pooler.start() to start it.");
  }
  if (entry->blocked_by != 0) {
    ThrowNotRunning(psprintf("Process %d runs a command that needs the database for itself.",
                             static_cast<int>(entry->blocked_by)),
                    nullptr);
  }
  if (entry->reason[0] != '\0') {
    ThrowNotRunning(psprintf("Its last start failed: %s", entry->reason),
                    strstr(entry->reason, "max_worker_processes") != nullptr
                        ? "Consider increasing max_worker_processes."
                        : nullptr);
  }
  ThrowNotRunning(
      psprintf("It did not become ready within %d s.", parameters.pooler_connect_timeout),
      "Consider increasing pooler.pooler_connect_timeout.");
}

// Waits until a worker is ready, and returns its entry.
void WaitForWorker(TimePoint deadline, WorkerEntry* entry) {
  if (RegistryLookup(MyDatabaseId, entry)) {
    if (entry->state == WorkerState::kReady) {
      return;
    }
    if (entry->state == WorkerState::kStopped) {
      ThrowNotReady(entry);
    }
  }
  if (!OidIsValid(get_extension_oid(kExtensionName, true))) {
    ThrowNotRunning("The extension is not installed in this database.",
                    "Run CREATE EXTENSION polarx_pooler.");
  }
  RegistryRequestStart(MyDatabaseId, false);
  if (!RegistryWaitReady(MyDatabaseId, MillisecondsUntil(deadline), entry)) {
    ThrowNotReady(entry);
  }
}

// Connects and queues the attach. On success `attachment` stands, unconfirmed.
bool OpenChannel(const char* path, const WorkerEntry* entry, ErrorText* error) noexcept {
  try {
    Result<std::optional<PoolerClient>> channel = PoolerClient::Connect(path, entry->pid);
    if (!channel.ok()) {
      KeepError(channel.status(), error);
      return false;
    }
    attachment = new Attachment;
    attachment->channel = std::move(*channel.value());
    attachment->number = ++attachments;
    attachment->generation = entry->generation;
    Oid database;
    Oid role;
    attachment->lease_cells = LeaseCellsOf(MyPlace());
    attachment->node_cells = NodeCellsOf(FindBackend(entry->pid, &database, &role));
    ReserveExternalFD();
    attachment->channel.Queue(
        protocol::Attach{.version = protocol::kVersion, .generation = entry->generation});
    return true;
  } catch (...) {
    KeepOutOfMemory(error);
    ClientHangUp();
    return false;
  }
}

void OpenWaitSet() {
  WaitEventSet* set = MakeWaitEventSet(3);
  attachment->wait_set = set;
  AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, nullptr);
  AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, nullptr, nullptr);
  AddWaitEventToSet(set, WL_SOCKET_READABLE, attachment->channel.fd(), nullptr, nullptr);
}

// Before another look at the registry, which may not know yet that the worker has ended, or while
// its backlog is full.
void WaitToTryAgain(TimePoint deadline, const ErrorText* error) {
  if (Now() >= deadline) {
    ThrowError(error);
  }
  (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 20,
                  WaitEventOf(Wait::kWorkerChange));
  ResetLatch(MyLatch);
  CHECK_FOR_INTERRUPTS();
}

}  // namespace

Attachment* ClientAttachment() noexcept { return attachment; }

Attachment* ClientBeginAttach(TimePoint deadline) {
  RegistryRequire();
  if (attachment != nullptr && attachment->confirmed) {
    attachment->pending = 0;
    return attachment;
  }
  ClientHangUp();
  ClientPrepareExit();
  for (;;) {
    WorkerEntry entry;
    ErrorText error;
    char path[MAXPGPATH];
    WaitForWorker(deadline, &entry);
    RegistrySocketPath(MyDatabaseId, path, sizeof(path));
    if (OpenChannel(path, &entry, &error)) {
      OpenWaitSet();
      return attachment;
    }
    WaitToTryAgain(deadline, &error);
  }
}

bool ClientFinishAttach(TimePoint deadline) {
  ErrorText error;
  switch (attachment != nullptr ? ClientAwait(0, deadline, &error) : AwaitResult::kGone) {
    case AwaitResult::kReply:
      attachment->confirmed = true;
      return true;
    case AwaitResult::kFailed:
      ClientHangUp();
      if (strcmp(error.sqlstate, sqlstate::kCannotConnectNow) != 0) {
        ThrowError(&error);
      }
      break;
    case AwaitResult::kGone:
      KeepPlainError(sqlstate::kCannotConnectNow, "pooler closed the connection", &error);
      break;
    case AwaitResult::kTimeout:
      ClientHangUp();
      KeepPlainError(sqlstate::kCannotConnectNow,
                     "pooler did not answer within pooler.pooler_connect_timeout", &error);
      break;
  }
  WaitToTryAgain(deadline, &error);
  return false;
}

void ClientAttach() {
  if (attachment != nullptr && attachment->confirmed) {
    ClientHeedRecalls();
  }
  const TimePoint deadline = ClientAttachDeadline();
  while (!ClientBeginAttach(deadline)->confirmed && !ClientFinishAttach(deadline)) {
  }
}

TimePoint ClientAttachDeadline() {
  return Now() + std::chrono::seconds(parameters.pooler_connect_timeout);
}

void ClientHangUp() noexcept {
  Attachment* old = std::exchange(attachment, nullptr);
  if (old == nullptr) {
    return;
  }
  if (old->wait_set != nullptr) {
    FreeWaitEventSet(old->wait_set);
  }
  delete old;
  ReleaseExternalFD();
}

void ClientFreeCells(Attachment* attachment) noexcept {
  if (attachment->lease_cells == nullptr || std::exchange(attachment->cells_freed, true)) {
    return;
  }
  bool in_use[kCellsOfASession] = {};
  for (const PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    if (lease->parking.cell != nullptr) {
      in_use[lease->parking.cell - attachment->lease_cells] = true;
    }
  }
  if (const auto* granted = std::get_if<protocol::Granted>(&attachment->reply.reply)) {
    for (const protocol::GrantedLease& lease : granted->leases) {
      if (lease.cell < kCellsOfASession) {
        in_use[lease.cell] = true;
      }
    }
  }
  for (uint32 i = 0; i < kCellsOfASession; ++i) {
    if (!in_use[i]) {
      attachment->lease_cells[i].word.store(0);
    }
  }
}

}  // namespace polarx
