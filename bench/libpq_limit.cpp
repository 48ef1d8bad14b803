// What libpq can do at best, without a pool: opening connections, a few at a time, and resetting
// many of them, each thread driving its share without blocking.
//   libpq_limit open CONNINFO CONNECTIONS AT_A_TIME
//   libpq_limit reset CONNINFO CONNECTIONS SECONDS THREADS
#include <libpq-fe.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>

#include "measure.h"

namespace {

struct Closer {
  void operator()(PGconn* conn) const { PQfinish(conn); }
};
using Connection = std::unique_ptr<PGconn, Closer>;

class Poller {
 public:
  Poller() : fd_(epoll_create1(EPOLL_CLOEXEC)) {}
  ~Poller() { close(fd_); }
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  void Watch(int operation, int fd, uint32_t events, size_t index) const {
    epoll_event event{events, {.u64 = index}};
    if (epoll_ctl(fd_, operation, fd, &event) != 0) {
      bench::Die("could not watch a socket");
    }
  }

  // The indexes of what is ready; waits at most a second.
  std::vector<size_t> Wait() const {
    epoll_event events[64];
    const int count = epoll_wait(fd_, events, 64, 1000);
    std::vector<size_t> ready;
    for (int i = 0; i < count; i++) {
      ready.push_back(static_cast<size_t>(events[i].data.u64));
    }
    return ready;
  }

 private:
  int fd_;
};

uint32_t Wanted(PostgresPollingStatusType status) {
  return status == PGRES_POLLING_WRITING ? EPOLLOUT : EPOLLIN;
}

// Opens connections, at most `at_a_time` under way at once.
std::vector<Connection> Open(const char* conninfo, size_t connections, size_t at_a_time) {
  const Poller poller;
  std::vector<Connection> all;
  std::vector<int> sockets;
  size_t under_way = 0;
  size_t open = 0;
  while (open < connections) {
    while (all.size() < connections && under_way < at_a_time) {
      all.emplace_back(PQconnectStart(conninfo));
      if (PQstatus(all.back().get()) == CONNECTION_BAD) {
        bench::Die(PQerrorMessage(all.back().get()));
      }
      sockets.push_back(PQsocket(all.back().get()));
      poller.Watch(EPOLL_CTL_ADD, sockets.back(), EPOLLOUT, all.size() - 1);
      under_way++;
    }
    for (const size_t i : poller.Wait()) {
      const PostgresPollingStatusType status = PQconnectPoll(all[i].get());
      if (status == PGRES_POLLING_FAILED) {
        bench::Die(PQerrorMessage(all[i].get()));
      }
      if (PQsocket(all[i].get()) != sockets[i]) {
        bench::Die("the connection has got another socket: name one host, without TLS");
      }
      if (status == PGRES_POLLING_OK) {
        poller.Watch(EPOLL_CTL_DEL, sockets[i], 0, i);
        open++;
        under_way--;
      } else {
        poller.Watch(EPOLL_CTL_MOD, sockets[i], Wanted(status), i);
      }
    }
  }
  return all;
}

void SendReset(PGconn* conn) {
  if (PQsendQuery(conn, "DISCARD ALL") == 0) {
    bench::Die(PQerrorMessage(conn));
  }
}

// Reads what has come; true when the answer is complete.
bool FinishReset(PGconn* conn) {
  if (PQconsumeInput(conn) == 0) {
    bench::Die(PQerrorMessage(conn));
  }
  while (PQisBusy(conn) == 0) {
    PGresult* result = PQgetResult(conn);
    if (result == nullptr) {
      return true;
    }
    if (PQresultStatus(result) != PGRES_COMMAND_OK) {
      bench::Die(PQresultErrorMessage(result));
    }
    PQclear(result);
  }
  return false;
}

// Resets connections again and again until end_us; the times go to `us`.
void ResetAll(std::vector<Connection>& share, double end_us, std::vector<double>& us) {
  const Poller poller;
  std::vector<double> start(share.size(), bench::NowUs());
  for (size_t i = 0; i < share.size(); i++) {
    poller.Watch(EPOLL_CTL_ADD, PQsocket(share[i].get()), EPOLLIN, i);
    SendReset(share[i].get());
  }
  while (bench::NowUs() < end_us) {
    for (const size_t i : poller.Wait()) {
      if (FinishReset(share[i].get())) {
        const double now = bench::NowUs();
        us.push_back(now - start[i]);
        start[i] = now;
        SendReset(share[i].get());
      }
    }
  }
}

void MeasureOpen(const char* conninfo, size_t connections, size_t at_a_time) {
  const double start = bench::NowUs();
  const std::vector<Connection> all = Open(conninfo, connections, at_a_time);
  const double us = bench::NowUs() - start;
  bench::PrintLine(us, -1, static_cast<double>(connections) * 1e6 / us, -1);
}

void MeasureReset(const char* conninfo, size_t connections, double seconds, size_t threads) {
  std::vector<std::vector<Connection>> shares(threads);
  std::vector<std::vector<double>> us(threads);
  for (size_t i = 0; i < threads; i++) {
    shares[i] = Open(conninfo, connections / threads, 8);
  }
  const double end_us = bench::NowUs() + seconds * 1e6;
  std::vector<std::thread> running;
  for (size_t i = 0; i < threads; i++) {
    running.emplace_back([&, i] { ResetAll(shares[i], end_us, us[i]); });
  }
  std::vector<double> all;
  for (size_t i = 0; i < threads; i++) {
    running[i].join();
    all.insert(all.end(), us[i].begin(), us[i].end());
  }
  const double p50 = bench::Percentile(all, 0.5);
  bench::PrintLine(p50, bench::Percentile(all, 0.99), static_cast<double>(all.size()) / seconds,
                   -1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 5 && std::strcmp(argv[1], "open") == 0) {
    MeasureOpen(argv[2], std::strtoul(argv[3], nullptr, 10), std::strtoul(argv[4], nullptr, 10));
  } else if (argc == 6 && std::strcmp(argv[1], "reset") == 0) {
    MeasureReset(argv[2], std::strtoul(argv[3], nullptr, 10), std::atof(argv[4]),
                 std::max(1UL, std::strtoul(argv[5], nullptr, 10)));
  } else {
    bench::Die(
        "usage: libpq_limit open CONNINFO CONNECTIONS AT_A_TIME\n"
        "       libpq_limit reset CONNINFO CONNECTIONS SECONDS THREADS");
  }
}
