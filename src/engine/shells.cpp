// The PGconns that a session keeps while nothing is lent to it; in a backend, on its only thread.
#include "engine/shells.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <string>
#include <utility>

#include "engine/adopt.h"
#include "engine/server_messages.h"

namespace polarx {
namespace {

// Each takes about 40 kB.
constexpr std::size_t kMostKept = 64;
// To lead one through an empty query costs a tenth of the hand-out, to make one several hand-outs:
// after so many of the former another one is made, up to so many for a pool and in all.
constexpr int kRenewalsForAnother = 64;
constexpr std::ptrdiff_t kMostOfAPool = 8;
constexpr std::size_t kMostOfAll = 32;
// What libpq has room for, at least, whenever it reads.
constexpr std::size_t kLeastRead = 8192;

// Of a PGconn that nobody has touched.
struct Defaults {
  PQnoticeReceiver receiver = nullptr;
  PQnoticeProcessor processor = nullptr;
  std::size_t result_size = 0;
};
Defaults defaults;

// Of MakeSpares, and not used yet; with nothing to be destroyed when a process ends.
constexpr int kMostSpares = 16;
PGconn* spares[kMostSpares];
int spare_count = 0;

std::size_t ResultSize(PGconn* conn) {
  PGresult* result = PQmakeEmptyPGresult(conn, PGRES_COMMAND_OK);
  const std::size_t size = PQresultMemorySize(result);
  PQclear(result);
  return size;
}

void NoteDefaults(PGconn* conn) {
  defaults.receiver = PQsetNoticeReceiver(conn, nullptr, nullptr);
  defaults.processor = PQsetNoticeProcessor(conn, nullptr, nullptr);
  defaults.result_size = ResultSize(conn);
}

// Nobody can take back an event procedure, nor ask for it; but each result has a copy of it.
bool HasEventProcedures(PGconn* conn) { return ResultSize(conn) != defaults.result_size; }

void IgnoreNotice(void* /*unused*/, const PGresult* /*notice*/) {}

void TakeBackSettings(PGconn* conn) {
  (void)PQsetNoticeReceiver(conn, defaults.receiver, nullptr);
  (void)PQsetNoticeProcessor(conn, defaults.processor, nullptr);
  (void)PQsetErrorVerbosity(conn, PQERRORS_DEFAULT);
  (void)PQsetErrorContextVisibility(conn, PQSHOW_CONTEXT_ERRORS);
  PQuntrace(conn);
  while (PGnotify* notify = PQnotifies(conn)) {
    PQfreemem(notify);
  }
}

// Is every parameter that libpq knows of among `values`? It forgets none.
bool NoneToForget(const PGconn* conn, const protocol::Parameters& values) {
  for (const char* name : kReportedParameters) {
    if (PQparameterStatus(conn, name) != nullptr &&
        std::none_of(values.begin(), values.end(),
                     [name](const auto& value) { return value.first == name; })) {
      return false;
    }
  }
  return true;
}

// What a server answers to an empty query, with the data of another one in it.
std::string EmptyAnswer(const PGconn* conn, std::int32_t backend_pid,
                        const protocol::Parameters& parameters) {
  std::string out;
  AppendKeyData(backend_pid, &out);
  for (const auto& [name, value] : parameters) {
    const char* known = PQparameterStatus(conn, name.c_str());
    if (known == nullptr || value != known) {
      AppendParameter(name, value, &out);
    }
  }
  AppendMessage('I', "", &out);
  AppendReady(&out);
  return out;
}

// The answer has come whole, so that libpq need not wait; where it would, it is out of step.
bool ReadEmptyAnswer(PGconn* conn, std::size_t size) {
  for (std::size_t read = 0; read <= size; read += kLeastRead) {
    if (PQconsumeInput(conn) != 1) {
      return false;
    }
  }
  if (PQisBusy(conn) != 0) {
    return false;
  }
  PGresult* result = PQgetResult(conn);
  const bool empty = PQresultStatus(result) == PGRES_EMPTY_QUERY;
  PQclear(result);
  return empty && PQisBusy(conn) == 0 && PQgetResult(conn) == nullptr &&
         PQtransactionStatus(conn) == PQTRANS_IDLE;
}

}  // namespace

Shell::~Shell() { PQfinish(conn); }

Shells::~Shells() { Clear(); }

void Shells::MakeSpares(int count, Duration limit) noexcept {
  try {
    while (count-- > 0 && spare_count < kMostSpares) {
      const Result<PGconn*> made = StartConnection(0, {}, limit);
      if (!made.ok()) {
        return;
      }
      NoteDefaults(made.value());
      spares[spare_count++] = made.value();
    }
  } catch (...) {
    // Children make their own.
  }
}

Result<Shell*> Shells::Adopt(UniqueFd fd, Lent lent, Duration limit) {
  while (std::unique_ptr<Shell> shell = TakeOne(lent)) {
    const bool same = shell->as_new && shell->lent.slot == lent.slot &&
                      shell->lent.parameters->id == lent.parameters->id;
    if ((same || Renew(shell.get(), lent)) && ::fcntl(fd.get(), F_SETFL, O_NONBLOCK) == 0 &&
        PutUnder(shell->conn, fd.get())) {
      shell->lent = std::move(lent);
      return shell.release();
    }
    End(std::move(shell));
  }
  auto shell = std::make_unique<Shell>();
  const Result<PGconn*> made =
      AdoptConnection(std::move(fd), lent.backend_pid, lent.parameters->values, limit);
  if (!made.ok()) {
    return made.status();
  }
  shell->conn = made.value();
  shell->lent = std::move(lent);
  NoteDefaults(shell->conn);
  return shell.release();
}

std::unique_ptr<Shell> Shells::TakeOne(const Lent& lent) {
  std::unique_ptr<Shell> kept = TakeKept(lent);
  return kept != nullptr ? std::move(kept) : TakeSpare();
}

// Nobody has used it; what it needs of its slot, Renew tells it.
std::unique_ptr<Shell> Shells::TakeSpare() {
  if (spare_count == 0 || !Open()) {
    return nullptr;
  }
  auto shell = std::make_unique<Shell>();
  shell->conn = spares[--spare_count];
  return PutUnder(shell->conn, inside_.get()) ? std::move(shell) : nullptr;
}

// Best the one that served the same slot. Those of an earlier attachment are of no use any more.
std::unique_ptr<Shell> Shells::TakeKept(const Lent& lent) {
  for (std::unique_ptr<Shell>& shell : kept_) {
    if (shell->lent.attachment != lent.attachment) {
      End(std::move(shell));
    }
  }
  std::erase(kept_, nullptr);
  auto found = kept_.rend();
  for (auto shell = kept_.rbegin(); shell != kept_.rend(); ++shell) {
    if ((*shell)->lent.slot == lent.slot) {
      found = shell;
      break;
    }
    if (found == kept_.rend() && (*shell)->lent.pool == lent.pool) {
      found = shell;
    }
  }
  if (found == kept_.rend()) {
    return nullptr;
  }
  if ((*found)->lent.slot != lent.slot && MayMakeAnother(lent.pool)) {
    return nullptr;
  }
  std::unique_ptr<Shell> result = std::move(*found);
  kept_.erase(std::next(found).base());
  return result;
}

// For a slot that would be served by a kept one of its pool.
bool Shells::MayMakeAnother(std::uint64_t pool) {
  if (++renewals_ <= kRenewalsForAnother || kept_.size() >= kMostOfAll ||
      std::count_if(kept_.begin(), kept_.end(), [pool](const std::unique_ptr<Shell>& shell) {
        return shell->lent.pool == pool;
      }) >= kMostOfAPool) {
    return false;
  }
  renewals_ = 0;
  return true;
}

// Part of a message that the last borrower's datanode had sent may stand in libpq's buffer: then
// libpq takes the key data for the rest of it, and the process id stays what it was.
bool Shells::Renew(Shell* shell, const Lent& lent) {
  const protocol::Parameters& parameters = lent.parameters->values;
  if (!NoneToForget(shell->conn, parameters)) {
    return false;
  }
  (void)PQsetNoticeReceiver(shell->conn, IgnoreNotice, nullptr);  // nobody asked to hear its rest
  const bool same_pid = PQbackendPID(shell->conn) == lent.backend_pid;
  if (same_pid && !RunEmpty(shell->conn, ~lent.backend_pid, parameters)) {
    return false;
  }
  const bool renewed = RunEmpty(shell->conn, lent.backend_pid, parameters) &&
                       ChangedParameters(shell->conn, parameters).empty();
  (void)PQsetNoticeReceiver(shell->conn, defaults.receiver, nullptr);
  return renewed;
}

// True: libpq has read the answer to the end, the process id in it included.
bool Shells::RunEmpty(PGconn* conn, std::int32_t backend_pid,
                      const protocol::Parameters& parameters) {
  const std::string answer = EmptyAnswer(conn, backend_pid, parameters);
  const bool sent = PQsendQuery(conn, "") == 1 &&
                    ::send(outside_.get(), answer.data(), answer.size(),
                           MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(answer.size());
  const bool read =
      sent && ReadEmptyAnswer(conn, answer.size()) && PQbackendPID(conn) == backend_pid;
  // After one failed write libpq merely pretends to send.
  const bool asked = Drain(outside_) > 0;
  if (!read) {
    (void)Drain(inside_);  // all that are kept read from it
  }
  return read && asked;
}

void Shells::Detach(Shell* given, bool keep) noexcept {
  std::unique_ptr<Shell> shell(given);
  PGconn* conn = shell->conn;
  if (!keep || !MakeFit(shell.get()) || !Open() || !PutUnder(conn, inside_.get())) {
    DetachConnection(conn);
    return;
  }
  try {
    kept_.reserve(kMostKept);
  } catch (...) {
    End(std::move(shell));
    return;
  }
  if (kept_.size() == kMostKept) {
    End(std::move(kept_.front()));
    kept_.erase(kept_.begin());
  }
  kept_.push_back(std::move(shell));
}

protocol::Parameters Shells::Changed(Shell* shell) {
  protocol::Parameters changed = ChangedParameters(shell->conn, shell->lent.parameters->values);
  shell->unchanged = changed.empty();
  return changed;
}

bool Shells::MakeFit(Shell* shell) noexcept {
  PGconn* conn = shell->conn;
  const bool unchanged = std::exchange(shell->unchanged, false);
  if (PQstatus(conn) != CONNECTION_OK || PQpipelineStatus(conn) != PQ_PIPELINE_OFF ||
      PQsetnonblocking(conn, 0) != 0 || PQflush(conn) != 0 || PQisBusy(conn) != 0 ||
      HasEventProcedures(conn)) {
    return false;
  }
  const PGTransactionStatusType state = PQtransactionStatus(conn);
  if (state == PQTRANS_ACTIVE || state == PQTRANS_UNKNOWN) {
    return false;
  }
  TakeBackSettings(conn);
  shell->as_new = state == PQTRANS_IDLE && *PQerrorMessage(conn) == '\0' &&
                  PQbackendPID(conn) == shell->lent.backend_pid &&
                  (unchanged || ReportsStill(conn, shell->lent.parameters->values));
  return true;
}

bool Shells::Open() noexcept {
  if (outside_) {
    return true;
  }
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) {
    return false;
  }
  inside_.Reset(ends[0]);
  outside_.Reset(ends[1]);
  return true;
}

void Shells::Clear() noexcept {
  for (std::unique_ptr<Shell>& shell : kept_) {
    End(std::move(shell));
  }
  kept_.clear();
  inside_.Reset();
  outside_.Reset();
}

// A kept one: its last word goes to our own other end.
void Shells::End(std::unique_ptr<Shell> shell) noexcept {
  shell.reset();
  (void)Drain(outside_);
}

std::size_t Shells::Drain(const UniqueFd& end) noexcept {
  char dropped[1024];
  std::size_t total = 0;
  ssize_t got;
  do {
    got = ::recv(end.get(), dropped, sizeof(dropped), MSG_DONTWAIT);
    total += static_cast<std::size_t>(std::max<ssize_t>(got, 0));
  } while (got == sizeof(dropped));
  return total;
}

}  // namespace polarx
