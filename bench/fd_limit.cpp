// The limit of lending descriptors: a serving process answers each request of 16 bytes on a Unix
// socket with 16 bytes and one descriptor; clients are processes, each thread of execution its own.
//   fd_limit CLIENTS SECONDS PAUSE_US
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>

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

[[noreturn]] void Serve(const std::vector<int>& sockets) {
  const int poller = epoll_create1(EPOLL_CLOEXEC);
  int lent[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, lent) != 0) {
    bench::Die("could not make a socket pair");
  }
  for (const int socket : sockets) {
    epoll_event event{EPOLLIN, {.fd = socket}};
    epoll_ctl(poller, EPOLL_CTL_ADD, socket, &event);
  }
  size_t open = sockets.size();
  epoll_event events[64];
  while (open > 0) {
    const int count = epoll_wait(poller, events, 64, -1);
    for (int i = 0; i < count; i++) {
      char message[kMessageSize];
      if (recv(events[i].data.fd, message, sizeof(message), MSG_DONTWAIT) <= 0) {
        close(events[i].data.fd);
        open--;
      } else {
        SendDescriptor(events[i].data.fd, lent[0]);
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
  if (argc != 4) {
    bench::Die("usage: fd_limit CLIENTS SECONDS PAUSE_US");
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
    Serve(served);
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
