// What a worker thread does for its datanode connections, and how one of them stands in the
// thread's epoll set.
#pragma once

#include <libpq-fe.h>

#include <cstdint>
#include <string>

#include "engine/orders.h"
#include "engine/transaction_timeouts.h"

namespace polarx {

// The worker thread, as its connections see it. All calls on that thread.
class DatanodeHost {
 public:
  virtual ~DatanodeHost() = default;
  virtual void Watch(int fd, std::uint32_t events, SlotId slot) = 0;    // a new descriptor
  virtual void Rewatch(int fd, std::uint32_t events, SlotId slot) = 0;  // for other events
  virtual void Unwatch(int fd) = 0;
  // Datanode::OnDeadline is called then; kNever: it is not called. The new one replaces the old.
  virtual void SetDeadline(SlotId slot, TimePoint deadline) = 0;
  // Has the host's name looked up; the answer comes by Datanode::OnLookedUp.
  virtual void LookUp(SlotId slot, const std::string& host) = 0;
  // Sends the cancel request, which it owns then; Datanode::OnCancelled tells that it is through.
  // `key` names the datanode, whatever the connection.
  virtual void RunCancel(SlotId slot, const std::string& key, PGcancel* cancel) = 0;
  virtual void Report(Completion completion) = 0;
  // What is known of the servers. Null: their time-outs of transactions stay as they are.
  virtual TransactionTimeouts* transaction_timeouts() { return nullptr; }
};

// The PGconn of one connection and its descriptor in the thread's epoll set.
class DatanodeLink {
 public:
  DatanodeLink(DatanodeHost* host, SlotId slot) : host_(host), slot_(slot) {}
  ~DatanodeLink() { Free(); }
  DatanodeLink(const DatanodeLink&) = delete;
  DatanodeLink& operator=(const DatanodeLink&) = delete;

  // Owns `conn` from now on; there must be none.
  void Own(PGconn* conn);
  PGconn* conn() const { return conn_; }
  int socket() const { return PQsocket(conn_); }

  // Watches the datanode's socket, which need not be the PGconn's own just now, for these events of
  // epoll; none must be watched.
  void Watch(std::uint32_t events, int socket);
  // Watches it for others.
  void Change(std::uint32_t events);
  void Unwatch();

  // Unwatches and PQfinish, which says goodbye to the datanode.
  void Free();
  // Puts a placeholder under the PGconn, so that the datanode hears nothing of what follows: its
  // descriptor is in the hands of a session. Without a descriptor for that it is shut down.
  void LeaveToHolder();

 private:
  DatanodeHost* const host_;
  const SlotId slot_;
  PGconn* conn_ = nullptr;
  int watched_ = -1;
  std::uint32_t events_ = 0;
};

}  // namespace polarx
