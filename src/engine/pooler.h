// The pooler of one database: sessions, pools and worker threads behind one descriptor and one
// deadline. Every method is for the main thread of the pooler worker; none blocks. They throw
// where memory is used up, or a worker thread has found it so: the process should then end.
//
// A turn of the main loop:
//   wait on fd() until NextDeadline() · Receive(now) · answer NextAttach / NextMapping /
//   NextReload · Serve(now) · NextLog until empty
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/node.h"
#include "core/parking.h"
#include "core/settings.h"
#include "core/status.h"
#include "core/time.h"
#include "engine/log_queue.h"
#include "engine/unique_fd.h"

namespace polarx {

using SessionId = std::uint64_t;

struct PoolerConfig {
  std::string database;  // its name, for logs and application_name
  std::uint64_t generation =
      0;  // of this worker in the registry; sessions that know another are sent away
  int worker_threads = 2;
  int fd_limit = 1024;             // descriptors that this process may have open
  UniqueFd listener;               // listening Unix socket, non-blocking
  uid_t user = ::geteuid();        // whose processes may connect
  std::span<NodeCell> node_cells;  // in memory that sessions see; empty: no lease is parked
};

// A process that connected: the pg side looks it up among the server's processes.
struct AttachQuestion {
  SessionId session = 0;
  int pid = 0;  // by the kernel's word (SO_PEERCRED)
};

// A role that wants a node for the first time since the catalog changed.
struct MappingQuestion {
  NodeId node = 0;
  RoleId role = 0;
};

// A lease that is held for longer than pooler.lease_warn_after.
struct LongLease {
  std::string node;
  std::string remote_user;
  int session_pid = 0;
  int remote_pid = 0;
  double seconds = 0;
};

class Pooler {
 public:
  // Starts the worker threads. RemoveLibpqEnvironment must have been called.
  static Result<std::unique_ptr<Pooler>> Start(PoolerConfig config, const Settings& settings);
  // Calls Stop, and needs no memory either.
  ~Pooler();

  int fd() const;  // readable when Receive has something to do
  void LookOut();  // before a wait for fd(): may wait a moment without sleeping
  TimePoint NextDeadline() const;

  // Takes what sessions and worker threads have sent. Answers nothing yet, so that catalog changes
  // that came before a request can be taken in before it is served.
  void Receive(TimePoint now);

  // Questions for the pg side, to be answered before Serve; false: no more.
  bool NextAttach(AttachQuestion* question);
  // `role_name`: login role of that process. Not ok: the session is told and hung up on.
  // `cells`: kCellsOfASession of that process; null: it cannot park leases.
  void AnswerAttach(SessionId session, const Status& status, std::string_view role_name,
                    LeaseCell* cells = nullptr);
  bool NextMapping(MappingQuestion* question);
  // `node`: the server asked for, null if there is none (then the mapping's status says so). This
  // is how servers of other wrappers become known; SetCatalog must then bring them as well.
  void AnswerMapping(const NodeDefinition* node, MappingDefinition mapping);
  // A session called reload(): re-read settings and catalog, then AnswerReload.
  bool NextReload();
  void AnswerReload();

  // Serves releases, then acquires; timers; refills pools; sends replies.
  void Serve(TimePoint now);

  void Apply(const Settings& settings, TimePoint now);
  // The whole catalog anew: all nodes, and all mappings known without a session plus those that
  // were asked for (KnownMappings). Pools that no mapping leads to any more end: idle slots close,
  // leased ones close at release. A changed node or mapping ends its hold-off.
  void SetCatalog(const std::vector<NodeDefinition>& nodes, std::vector<MappingDefinition> mappings,
                  TimePoint now);
  // (node, role) pairs that sessions have asked for since the start.
  std::vector<MappingQuestion> KnownMappings() const;

  bool NextLog(LogRecord* record);       // false: empty
  bool NextLongLease(LongLease* lease);  // false: no more
  // Leases that sessions still hold from earlier workers, by node; all of them at every call.
  void SetSurvivors(const std::map<NodeId, int>& survivors);
  int fds_used() const;  // descriptors that the pooler holds

  // Refuses new sessions and ends the worker threads; returns within a second, and needs no memory,
  // for the process may be ending for want of it. False: a helper thread is stuck in a name lookup
  // or cancel, so the process must leave by _exit.
  [[nodiscard]] bool Stop() noexcept;

 private:
  class Impl;
  explicit Pooler(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace polarx
