// Notices and warnings of datanodes are kept and reported here. In a backend, on its only thread.
#include <libpq-fe.h>

#include <list>
#include <new>
#include <string>
#include <utility>

#include "pg/base/text.h"
#include "pg/remote/errors.h"
#include "pg/remote/notices.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

// A message that is longer than this on its own is kept all the same.
constexpr size_t kMostBytes = 1024 * 1024;

struct Notice {
  int level;
  int sqlstate;
  std::string message;
  std::string detail;
  std::string hint;
  std::string context;

  size_t size() const {
    return sizeof(*this) + message.size() + detail.size() + hint.size() + context.size();
  }
};

struct Kept {
  std::list<Notice> notices;
  size_t bytes = 0;
  uint64 dropped = 0;
};

Kept* TheKept() {
  alignas(Kept) static char memory[sizeof(Kept)];
  static Kept* const kept = new (memory) Kept;  // never destroyed: the process ends first
  return kept;
}

int LevelOf(const PGresult* result) {
  const char* severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
  if (severity == nullptr) {
    return 0;
  }
  if (strcmp(severity, "WARNING") == 0) {
    return WARNING;
  }
  if (strcmp(severity, "NOTICE") == 0) {
    return NOTICE;
  }
  return strcmp(severity, "INFO") == 0 ? INFO : 0;
}

std::string FieldOf(const PGresult* result, int field, bool foreign) {
  const char* text = PQresultErrorField(result, field);
  std::string copy(text == nullptr ? "" : text);
  (void)MakeValid(copy.data(), foreign);
  return copy;
}

// The copy is palloc'd, so that an error may jump away from the report. Returns its level, 0: there
// is none.
int TakeFirst(RemoteError** copy) {
  Kept* kept = TheKept();
  if (kept->notices.empty()) {
    return 0;
  }
  const Notice& first = kept->notices.front();
  const int level = first.level;
  *copy = MakeRemoteError(first.sqlstate, first.message.c_str(),
                          first.detail.empty() ? nullptr : pstrdup(first.detail.c_str()),
                          first.hint.empty() ? nullptr : pstrdup(first.hint.c_str()));
  (*copy)->context = first.context.empty() ? nullptr : pstrdup(first.context.c_str());
  kept->bytes -= first.size();
  kept->notices.pop_front();
  return level;
}

void Report(const RemoteError* notice, int level, const PolarxLease* lease) {
  const int length = notice->context != nullptr ? ContextLength(notice->context) : 0;
  ereport(level, (errcode(notice->sqlstate), errmsg_internal("%s", notice->message),
                  notice->detail != nullptr ? errdetail_internal("%s", notice->detail) : 0,
                  notice->hint != nullptr ? errhint("%s", notice->hint) : 0,
                  notice->context != nullptr ? errcontext("%.*s", length, notice->context) : 0,
                  errcontext("message of datanode \"%s\"", lease->node_name)));
}

}  // namespace

void NoticesKeep(void* lease, const PGresult* result) noexcept {
  auto* origin = static_cast<PolarxLease*>(lease);
  const int level = LevelOf(result);
  const char* code = PQresultErrorField(result, PG_DIAG_SQLSTATE);
  if (level == 0 || PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) == nullptr) {
    return;
  }
  try {
    const bool foreign = PQclientEncoding(origin->conn) != GetDatabaseEncoding();
    Notice notice = {level,
                     SqlstateOf(code),
                     FieldOf(result, PG_DIAG_MESSAGE_PRIMARY, foreign),
                     FieldOf(result, PG_DIAG_MESSAGE_DETAIL, foreign),
                     FieldOf(result, PG_DIAG_MESSAGE_HINT, foreign),
                     FieldOf(result, PG_DIAG_CONTEXT, foreign)};
    const size_t size = notice.size();
    LeaseNoteSize(origin, size);
    Kept* kept = TheKept();
    if (!kept->notices.empty() && kept->bytes + size > kMostBytes) {
      ++kept->dropped;
      return;
    }
    kept->notices.push_back(std::move(notice));
    kept->bytes += size;
  } catch (...) {
    // Memory is used up: a notice is what can be done without.
  }
}

void NoticesReport(const PolarxLease* lease) {
  if (TheKept()->notices.empty()) {
    return;
  }
  const MemoryContext copies =
      AllocSetContextCreate(CurrentMemoryContext, "polarx_pooler notice", ALLOCSET_SMALL_SIZES);
  const MemoryContext caller = MemoryContextSwitchTo(copies);
  RemoteError* notice = nullptr;
  while (const int level = TakeFirst(&notice)) {
    CHECK_FOR_INTERRUPTS();
    Report(notice, level, lease);
    MemoryContextReset(copies);
  }
  MemoryContextSwitchTo(caller);
  MemoryContextDelete(copies);
  if (const uint64 dropped = std::exchange(TheKept()->dropped, 0); dropped > 0) {
    ereport(WARNING, (errmsg("%llu messages of datanode \"%s\" were left out",
                             static_cast<unsigned long long>(dropped), lease->node_name),
                      errdetail("They came faster than they could be forwarded.")));
  }
}

void NoticesDrop() noexcept {
  Kept* kept = TheKept();
  kept->notices.clear();
  kept->bytes = 0;
  kept->dropped = 0;
}

}  // namespace polarx
