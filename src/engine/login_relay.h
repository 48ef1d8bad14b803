// Stands between a PGconn and its datanode during a login, so that libpq reads nothing but what has
// been looked at; on the worker thread that opens the connection.
#pragma once

#include <libpq-fe.h>

#include <cstddef>
#include <string>
#include <string_view>

#include "engine/unique_fd.h"

namespace polarx {

// Lives from the startup packet to the end of the login. What the datanode sends is read here, as
// it comes: left in its socket, the rest of a message could keep the kernel from taking more.
class LoginRelay {
 public:
  // Takes the PGconn's socket and gives it one end of a pair instead: two descriptors more, until
  // this object goes. False: the system refuses one; errno says why.
  [[nodiscard]] bool Begin(PGconn* conn);
  // The datanode's socket.
  int socket() const { return datanode_.get(); }

  // Reads what has come, without waiting, until `window` bytes are unread. Returns how many bytes
  // came.
  std::size_t Read(std::size_t window);
  std::string_view unread() const { return unread_; }
  bool ended() const { return ended_; }  // the datanode has hung up

  // Lets libpq read the first `size` unread bytes, and then the end if they were all and the
  // datanode has hung up; passes on what it answers. Returns its state.
  PostgresPollingStatusType Feed(PGconn* conn, std::size_t size);

  // Gives the socket back to the PGconn. False as Begin.
  [[nodiscard]] bool End(PGconn* conn);

 private:
  void PassOn();

  UniqueFd datanode_;
  UniqueFd outside_;  // of the pair, the end that libpq has not
  std::string unread_;
  bool ended_ = false;
};

}  // namespace polarx
