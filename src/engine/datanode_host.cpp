// How a datanode connection stands in its worker thread's epoll set; on that thread.
#include "engine/datanode_host.h"

#include <sys/socket.h>

#include <cassert>

#include "engine/adopt.h"
#include "engine/unique_fd.h"

namespace polarx {

void DatanodeLink::Own(PGconn* conn) {
  assert(conn_ == nullptr && watched_ < 0);
  conn_ = conn;
}

void DatanodeLink::Watch(std::uint32_t events, int socket) {
  assert(watched_ < 0);
  watched_ = socket;
  events_ = events;
  host_->Watch(watched_, events, slot_);
}

void DatanodeLink::Change(std::uint32_t events) {
  if (watched_ >= 0 && events != events_) {
    events_ = events;
    host_->Rewatch(watched_, events, slot_);
  }
}

void DatanodeLink::Unwatch() {
  if (watched_ >= 0) {
    host_->Unwatch(watched_);
    watched_ = -1;
  }
}

void DatanodeLink::Free() {
  Unwatch();
  if (conn_ != nullptr) {
    PQfinish(conn_);
    conn_ = nullptr;
  }
}

void DatanodeLink::LeaveToHolder() {
  if (conn_ == nullptr || socket() < 0) {
    return;
  }
  Unwatch();
  const UniqueFd nobody(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!nobody || !PutUnder(conn_, nobody.get())) {
    shutdown(socket(), SHUT_RDWR);  // without a descriptor it cannot be left to its holder
  }
}

}  // namespace polarx
