// Requests that the pooler worker answers by rows or by a number; in a backend, on its only thread.
#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "core/protocol.h"
#include "core/time.h"

#include "pg/base/catalog.h"
#include "pg/base/text.h"
#include "pg/base/version.h"
#include "pg/session/attachment.h"
#include "pg/session/requests.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

// Builds the request in a frame of its own, which no ereport jumps over. Returns false if the
// pooler is gone.
template <typename Build>
bool Send(Build build) noexcept {
  try {
    return ClientSend(build());
  } catch (...) {
    return false;
  }
}

// Attaches, sends the request that `build` makes of its number, and awaits the reply, which is in
// the attachment afterwards.
template <typename Build>
void Ask(Build build) {
  ClientAttach();
  const uint32 request = ClientNextRequest();
  ErrorText error;
  switch (Send([&] { return build(request); }) ? ClientAwait(request, kNever, &error)
                                               : AwaitResult::kGone) {
    case AwaitResult::kReply:
      return;
    case AwaitResult::kFailed:
      ThrowError(&error);
    case AwaitResult::kGone:
    case AwaitResult::kTimeout:
      ereport(ERROR, (errcode(ERRCODE_CANNOT_CONNECT_NOW),
                      errmsg("pooler closed the connection before it answered")));
  }
}

[[noreturn]] void ThrowUnexpected() {
  ereport(ERROR,
          (errcode(ERRCODE_PROTOCOL_VIOLATION), errmsg("pooler answered what was not asked for")));
  pg_unreachable();
}

char* TextOf(std::optional<std::string>& value) noexcept {
  return value.has_value() ? MakeValid(value->data()) : nullptr;  // it may be a datanode's
}

protocol::Rows* RowsReplied() {
  auto* rows = std::get_if<protocol::Rows>(&ClientAttachment()->reply.reply);
  if (rows == nullptr) {
    ThrowUnexpected();
  }
  return rows;
}

// A view of an older version of the extension shows fewer columns than the library tells, for views
// grow at their ends; one of a newer version wants more.
[[noreturn]] void ThrowNewerView() {
  ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                  errmsg("extension polarx_pooler of this database is newer than the library"),
                  errdetail("The library's version is %s.", kVersionText),
                  errhint("Restart the server, so that it loads the library that is installed.")));
  pg_unreachable();
}

// Puts the rows of the reply into `result`; they stay on the heap if an input function errs.
void StoreRows(ReturnSetInfo* result) {
  protocol::Rows* rows = RowsReplied();
  AttInMetadata* columns = TupleDescGetAttInMetadata(result->setDesc);
  const int width = result->setDesc->natts;
  char** values = static_cast<char**>(palloc(sizeof(char*) * width));
  for (protocol::Row& row : rows->rows) {
    if (row.size() < static_cast<size_t>(width)) {
      ThrowNewerView();
    }
    for (int i = 0; i < width; ++i) {
      values[i] = TextOf(row[i]);
    }
    HeapTuple tuple = BuildTupleFromCStrings(columns, values);
    tuplestore_puttuple(result->setResult, tuple);
    heap_freetuple(tuple);
  }
  rows->rows.clear();
}

// Returns the session of a row of the view connections if it holds a lease on the node (NULL: on
// any) that is not parked, else 0.
int HolderOf(protocol::Row& row, const char* node_name) {
  constexpr size_t kNode = 2;
  constexpr size_t kState = 4;
  constexpr size_t kSessionPid = 6;
  if (row.size() <= kSessionPid) {
    ThrowUnexpected();
  }
  const char* node = TextOf(row[kNode]);
  const char* pid = TextOf(row[kSessionPid]);
  if (node == nullptr || pid == nullptr || strcmp(TextOf(row[kState]), "parked") == 0 ||
      (node_name != nullptr && strcmp(node, node_name) != 0)) {
    return 0;
  }
  return std::atoi(pid);
}

int64 NumberReplied() {
  const auto* done = std::get_if<protocol::Done>(&ClientAttachment()->reply.reply);
  if (done == nullptr) {
    ThrowUnexpected();
  }
  return done->value;
}

}  // namespace

void ClientShow(protocol::View view, ReturnSetInfo* result) {
  Ask([=](uint32 request) { return protocol::Show{.request = request, .view = view}; });
  StoreRows(result);
}

void ClientPing(const NodeRef* nodes, int count, ReturnSetInfo* result) {
  const Oid role = GetUserId();
  Ask([=](uint32 request) {
    protocol::Ping ping{.request = request, .role = role, .nodes = {}};
    for (int i = 0; i < count; ++i) {
      ping.nodes.push_back(nodes[i].id);
    }
    return ping;
  });
  StoreRows(result);
}

int64 ClientClean(Oid node, const char* remote_user) {
  Ask([=](uint32 request) {
    return protocol::Clean{
        .request = request, .node = node, .remote_user = remote_user != nullptr ? remote_user : ""};
  });
  return NumberReplied();
}

void ClientReload() {
  Ask([](uint32 request) { return protocol::Reload{.request = request}; });
  (void)NumberReplied();
}

void ClientPause(Oid node, bool paused) {
  Ask([=](uint32 request) {
    return protocol::Pause{.request = request, .node = node, .paused = paused};
  });
  (void)NumberReplied();
}

void ClientResetStats() {
  Ask([](uint32 request) { return protocol::ResetStats{.request = request}; });
  (void)NumberReplied();
}

void ClientCountPartialCommit() noexcept {
  (void)Send([] { return protocol::PartlyCommitted{}; });
}

bool ClientCheckNodes() {
  // What is committed between reading and answering makes a difference that the second look clears.
  for (int look = 0; look < 2; ++look) {
    ClientAttach();
    AcceptInvalidationMessages();
    const RawCatalog* catalog = CatalogReadServers();
    Ask([=](uint32 request) {
      return protocol::Check{.request = request, .nodes = BuildNodes(*catalog)};
    });
    if (NumberReplied() != 0) {
      return true;
    }
  }
  return false;
}

int* ClientHolders(const char* node_name, int* count) {
  Ask([](uint32 request) {
    return protocol::Show{.request = request, .view = protocol::View::kConnections};
  });
  protocol::Rows* rows = RowsReplied();
  int* pids = static_cast<int*>(palloc(sizeof(int) * (rows->rows.size() + 1)));
  *count = 0;
  for (protocol::Row& row : rows->rows) {
    const int pid = HolderOf(row, node_name);
    if (pid > 0 && pid != MyProcPid && std::find(pids, pids + *count, pid) == pids + *count) {
      pids[(*count)++] = pid;
    }
  }
  rows->rows.clear();
  return pids;
}

}  // namespace polarx
