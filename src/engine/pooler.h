// The pooler of one database: sessions, pools and worker threads behind one descriptor and one
// deadline. Every method is for the main thread of the pooler worker; none blocks. They throw
// where memory is used up, or a worker thread has found it so: the process should then end.
//
// A turn of the main loop:
//   wait on fd() until NextDeadline() · Receive(now) · answer NextAttach, NextMapping, TakeReload,
//   NextLocalWaits · Serve(now) · NextLog and NextLongLease until empty
// `now` may be read once a turn, before Receive.
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

#include "core/deadlock_graph.h"
#include "core/node.h"
#include "core/parking.h"
#include "core/settings.h"
#include "core/status.h"
#include "core/time.h"
#include "engine/log_queue.h"
#include "engine/questions.h"
#include "engine/unique_fd.h"

namespace polarx {

struct PoolerConfig {
  std::string database;          // its name, for logs and application_name
  std::uint64_t generation = 0;  // of this worker in the registry; who knows another is sent away
  int worker_threads = 2;
  int fd_limit = 1024;             // descriptors that this process may have open
  UniqueFd listener;               // listening Unix socket, non-blocking
  uid_t user = ::geteuid();        // whose processes may connect
  std::span<NodeCell> node_cells;  // in memory that sessions see; empty: no lease is parked
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
  void AnswerMapping(const NodeDefinition* node, MappingDefinition mapping, TimePoint now);
  // Has a session called reload()? Then settings and catalog are to be read again: Serve tells the
  // session that they were.
  bool TakeReload();

  // Serves releases, then acquires; timers; refills pools; sends replies.
  void Serve(TimePoint now);

  void Apply(const Settings& settings, TimePoint now);
  // The whole catalog anew: all nodes, and all mappings known without a session plus those that
  // were asked for (KnownMappings). Pools that no mapping leads to any more end: idle slots close,
  // leased ones close at release. A changed node or mapping ends its hold-off.
  void SetCatalog(const std::vector<NodeDefinition>& nodes, std::vector<MappingDefinition> mappings,
                  TimePoint now);
  // (node, role) pairs that sessions have asked for in the last hour, hold or wait for.
  std::vector<MappingQuestion> KnownMappings(TimePoint now);

  // The processes about which the server itself is to be asked, who is in their way; before Serve.
  bool NextLocalWaits(std::vector<int>* processes);  // false: none
  void AnswerLocalWaits(const std::vector<WaitEdge>& edges);

  bool NextLog(LogRecord* record);       // false: empty
  bool NextLongLease(LongLease* lease);  // false: no more
  // Leases that sessions still hold from earlier workers, by node; all of them at every call.
  void SetSurvivors(const std::map<NodeId, int>& survivors);
  int fds_used() const;  // descriptors that the pooler holds

  // Ends the worker threads; returns within a second, and needs no memory, for the process may be
  // ending for want of it. Nothing else is to be called after it. False: a helper thread is stuck
  // in a name lookup or cancel, so the process must leave by _exit.
  [[nodiscard]] bool Stop() noexcept;

 private:
  class Parts;
  explicit Pooler(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace polarx
