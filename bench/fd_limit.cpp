// The limit of lending descriptors: a serving process answers each request of 16 bytes on a Unix
// socket with 16 bytes and one descriptor; clients are processes, each thread of execution its own.
// With a CONNINFO the descriptors are those of connections, ten or one for each client, and each is
// reset, by DISCARD ALL, when its client asks for the next one: the least that a pool has to do.
//   fd_limit CLIENTS SECONDS PAUSE_US [CONNINFO]
#include <libpq-fe.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <map>
#include <queue>
#include <utility>

#include "measure.h"

namespace {

constexpr size_t kMessageSize = 16;
constexpr uint64_t kMaxSamples = 200000;

// What a client leaves in shared memory.
struct Report {
  uint64_t operations;
  float us[kMaxSamples];
};

union ControlBuffer {
  char bytes[CMSG_SPACE(sizeof(int))];
  cmsghdr alignment;
};

void SendDescriptor(int socket, int fd) {
  char message[kMessageSize] = {};
  iovec data{message, sizeof(message)};
  ControlBuffer control{};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  header.msg_control = control.bytes;
  header.msg_controllen = sizeof(control.bytes);
  cmsghdr* item = CMSG_FIRSTHDR(&header);
  item->cmsg_level = SOL_SOCKET;
  item->cmsg_type = SCM_RIGHTS;
  item->cmsg_len = CMSG_LEN(sizeof(int));
  *reinterpret_cast<int*>(CMSG_DATA(item)) = fd;
  if (sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
    bench::Die("could not send a descriptor");
  }
}

// One request there, one descriptor back.
void FetchDescriptor(int socket) {
  char message[kMessageSize] = {};
  iovec data{message, sizeof(message)};
  ControlBuffer control{};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  header.msg_control = control.bytes;
  header.msg_controllen = sizeof(control.bytes);
  if (send(socket, message, sizeof(message), MSG_NOSIGNAL) < 0 ||
      recvmsg(socket, &header, MSG_CMSG_CLOEXEC) <= 0 || CMSG_FIRSTHDR(&header) == nullptr) {
    bench::Die("could not fetch a descriptor");
  }
  close(*reinterpret_cast<int*>(CMSG_DATA(CMSG_FIRSTHDR(&header))));
}

// What is lent: one socket of no use again and again, or connections that are reset in between.
class Lender {
 public:
  Lender(int poller, const char* conninfo, size_t connections) : poller_(poller) {
    int pair[2] = {-1, -1};
    if (conninfo == nullptr && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) {
      bench::Die("could not make a socket pair");
    }
    socket_ = pair[0];
    for (size_t i = 0; conninfo != nullptr && i < connections; i++) {
      PGconn* conn = PQconnectdb(conninfo);
      if (PQstatus(conn) != CONNECTION_OK || PQsetnonblocking(conn, 1) != 0) {
        bench::Die(PQerrorMessage(conn));
      }
      Watch(PQsocket(conn));
      idle_.push_back(conn);
      connections_[PQsocket(conn)] = conn;
    }
  }

  void Watch(int fd) const {
    epoll_event event{EPOLLIN, {.fd = fd}};
    if (epoll_ctl(poller_, EPOLL_CTL_ADD, fd, &event) != 0) {
      bench::Die("could not watch a socket");
    }
  }

  void Lend(int client) {
    if (socket_ >= 0) {
      SendDescriptor(client, socket_);
      return;
    }
    PGconn* before = std::exchange(lent_[client], nullptr);
    if (idle_.empty()) {
      waiting_.push(client);
    } else {
      lent_[client] = idle_.back();
      SendDescriptor(client, PQsocket(idle_.back()));
      idle_.pop_back();
    }
    if (before != nullptr && PQsendQuery(before, "DISCARD ALL") == 0) {
      bench::Die(PQerrorMessage(before));
    }
  }

  // False: that is no connection of the lender.
  bool FinishReset(int fd) {
    const auto found = connections_.find(fd);
    if (found == connections_.end()) {
      return false;
    }
    if (PQconsumeInput(found->second) == 0) {
      bench::Die(PQerrorMessage(found->second));
    }
    while (PQisBusy(found->second) == 0) {
      PGresult* result = PQgetResult(found->second);
      PQclear(result);
      if (result == nullptr) {
        idle_.push_back(found->second);
        break;
      }
    }
    if (!waiting_.empty() && !idle_.empty()) {
      const int client = waiting_.front();
      waiting_.pop();
      Lend(client);
    }
    return true;
  }

 private:
  const int poller_;
  int socket_ = -1;
  std::map<int, PGconn*> connections_;
  std::map<int, PGconn*> lent_;  // by client
  std::vector<PGconn*> idle_;
  std::queue<int> waiting_;
};

[[noreturn]] void Serve(const std::vector<int>& sockets, const char* conninfo) {
  const int poller = epoll_create1(EPOLL_CLOEXEC);
  Lender lender(poller, conninfo, std::max<size_t>(10, sockets.size()));
  for (const int socket : sockets) {
    lender.Watch(socket);
  }
  size_t open = sockets.size();
  epoll_event events[64];
  while (open > 0) {
    const int count = epoll_wait(poller, events, 64, -1);
    for (int i = 0; i < count; i++) {
      const int fd = events[i].data.fd;
      if (lender.FinishReset(fd)) {
        continue;
      }
      char message[kMessageSize];
      if (recv(fd, message, sizeof(message), MSG_DONTWAIT) <= 0) {
        close(fd);
        open--;
      } else {
        lender.Lend(fd);
      }
    }
  }
  _exit(0);
}

[[noreturn]] void Request(int socket, double end_us, double pause_us, Report* report) {
  for (double start = bench::NowUs(); start < end_us; start = bench::NowUs()) {
    FetchDescriptor(socket);
    const double us = bench::NowUs() - start;
    if (report->operations < kMaxSamples) {
      report->us[report->operations] = static_cast<float>(us);
    }
    report->operations++;
    if (pause_us > 0) {
      bench::SleepUs(pause_us);
    }
  }
  _exit(0);
}

// A process that ends with this one. The child closes the other ends, so that each end shows.
template <typename Body>
pid_t Spawn(const Body& body) {
  const pid_t child = fork();
  if (child < 0) {
    bench::Die("could not fork");
  }
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    body();
  }
  return child;
}

void CloseAll(const std::vector<int>& sockets, int except) {
  for (const int socket : sockets) {
    if (socket != except) {
      close(socket);
    }
  }
}

void PrintReports(const Report* reports, int clients, double seconds, double cpu_us) {
  std::vector<double> all;
  double operations = 0;
  for (int i = 0; i < clients; i++) {
    const uint64_t kept = std::min(reports[i].operations, kMaxSamples);
    all.insert(all.end(), reports[i].us, reports[i].us + kept);
    operations += static_cast<double>(reports[i].operations);
  }
  const double p50 = bench::Percentile(all, 0.5);
  bench::PrintLine(p50, bench::Percentile(all, 0.99), operations / seconds, cpu_us / operations);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) {
    bench::Die("usage: fd_limit CLIENTS SECONDS PAUSE_US [CONNINFO]");
  }
  const int clients = std::atoi(argv[1]);
  const double seconds = std::atof(argv[2]);
  const double pause_us = std::atof(argv[3]);
  void* memory = mmap(nullptr, sizeof(Report) * static_cast<size_t>(clients),
                      PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (clients < 1 || memory == MAP_FAILED) {
    bench::Die("could not get shared memory for the clients");
  }
  auto* reports = static_cast<Report*>(memory);
  std::vector<int> served(static_cast<size_t>(clients));
  std::vector<int> asking(static_cast<size_t>(clients));
  for (size_t i = 0; i < served.size(); i++) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
      bench::Die("could not make a socket pair");
    }
    served[i] = pair[0];
    asking[i] = pair[1];
  }
  const pid_t server = Spawn([&] {
    CloseAll(asking, -1);
    Serve(served, argv[4]);  // null after the last
  });
  const double end_us = bench::NowUs() + seconds * 1e6;
  std::vector<pid_t> children;
  for (size_t i = 0; i < asking.size(); i++) {
    children.push_back(Spawn([&] {
      CloseAll(served, -1);
      CloseAll(asking, asking[i]);
      Request(asking[i], end_us, pause_us, &reports[i]);
    }));
  }
  CloseAll(served, -1);
  int failed = 0;
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    failed += status != 0 ? 1 : 0;
  }
  const double cpu_us = bench::MainThreadCpuUs(server);  // before its sockets close: it waits
  CloseAll(asking, -1);
  waitpid(server, nullptr, 0);
  if (failed > 0) {
    return 1;
  }
  PrintReports(reports, clients, seconds, cpu_us);
}
