// Drives sessions of the coordinator.
//   sql_load loop CONNINFO SESSIONS SECONDS PID SQL   each session runs SQL, a loop of
//   polarx_bench,
//            at the same time (START and SECONDS in SQL are replaced); CPU of that process's main
//            thread
//   sql_load time CONNINFO LOOPS SQL                  one session runs SQL again and again
//   sql_load first CONNINFO SECONDS SQL               sessions one after the other, for that long;
//                                                     SQL is the first statement of each
//   sql_load hold CONNINFO SESSIONS SQL               each session runs SQL once; says "ready", and
//            ends them when its standard input ends
//   sql_load until CONNINFO SQL CONDITION             runs SQL, then CONDITION until it is true; in
//                                                     it, $1 is the time before SQL, and a second
//                                                     column the microseconds that it took
#include <libpq-fe.h>

#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <numeric>

#include "measure.h"

namespace {

constexpr double kPollIntervalUs = 50e3;  // looking costs what is looked at some time
constexpr double kLongestWaitUs = 180e6;

struct Closer {
  void operator()(PGconn* conn) const { PQfinish(conn); }
  void operator()(PGresult* result) const { PQclear(result); }
};
using Connection = std::unique_ptr<PGconn, Closer>;
using Result = std::unique_ptr<PGresult, Closer>;

Connection Connect(const char* conninfo) {
  Connection conn(PQconnectdb(conninfo));
  if (PQstatus(conn.get()) != CONNECTION_OK) {
    bench::Die(PQerrorMessage(conn.get()));
  }
  return conn;
}

std::vector<Connection> ConnectAll(const char* conninfo, int sessions) {
  std::vector<Connection> all;
  for (int i = 0; i < sessions; i++) {
    all.push_back(Connect(conninfo));
  }
  return all;
}

Result Checked(PGresult* result, int rows_needed = 0) {
  Result owned(result);
  const ExecStatusType status = PQresultStatus(result);
  if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
    bench::Die(PQresultErrorMessage(result));
  }
  if (PQntuples(result) < rows_needed) {
    bench::Die("the statement returned too few rows");
  }
  return owned;
}

std::string Replace(std::string text, const std::string& what, double number) {
  const std::string value = std::to_string(number);
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at)) {
    text.replace(at, what.size(), value);
    at += value.size();
  }
  return text;
}

double Column(const Result& result, int column) {
  return std::atof(PQgetvalue(result.get(), 0, column));
}

void Loop(const char* conninfo, int sessions, double seconds, int pid, const char* sql) {
  const std::vector<Connection> all = ConnectAll(conninfo, sessions);
  // Time for each to prepare itself.
  const double start_us = bench::ClockUs(CLOCK_REALTIME) + 5e4 + 2e4 * sessions;
  const std::string text = Replace(Replace(sql, "START", start_us / 1e6), "SECONDS", seconds);
  for (const Connection& conn : all) {
    if (PQsendQuery(conn.get(), text.c_str()) == 0) {
      bench::Die(PQerrorMessage(conn.get()));
    }
  }
  bench::SleepUs(std::max(0.0, start_us - bench::ClockUs(CLOCK_REALTIME)));
  const double cpu_before = bench::MainThreadCpuUs(pid);
  double operations = 0;
  std::vector<double> p50;
  std::vector<double> p99;
  for (const Connection& conn : all) {
    const Result result = Checked(PQgetResult(conn.get()), 1);
    operations += Column(result, 0);
    p50.push_back(Column(result, 1));
    p99.push_back(Column(result, 2));
  }
  const double cpu = bench::MainThreadCpuUs(pid) - cpu_before;
  bench::PrintLine(bench::Percentile(p50, 0.5), bench::Percentile(p99, 0.5), operations / seconds,
                   pid > 0 ? cpu / operations : -1);
}

double Timed(const Connection& conn, const char* sql) {
  const double start = bench::NowUs();
  Checked(PQexec(conn.get(), sql));
  return bench::NowUs() - start;
}

void PrintTimes(std::vector<double> us) {
  const double sum = std::accumulate(us.begin(), us.end(), 0.0);
  const double p50 = bench::Percentile(us, 0.5);
  bench::PrintLine(p50, bench::Percentile(us, 0.99), us.size() * 1e6 / sum, -1);
}

void Time(const char* conninfo, int loops, const char* sql) {
  const Connection conn = Connect(conninfo);
  Checked(PQexec(conn.get(), sql));
  std::vector<double> us;
  for (int i = 0; i < loops; i++) {
    us.push_back(Timed(conn, sql));
  }
  PrintTimes(us);
}

void First(const char* conninfo, double seconds, const char* sql) {
  std::vector<double> us;
  for (const double end = bench::NowUs() + seconds * 1e6; us.empty() || bench::NowUs() < end;) {
    us.push_back(Timed(Connect(conninfo), sql));
  }
  PrintTimes(us);
}

void Hold(const char* conninfo, int sessions, const char* sql) {
  const std::vector<Connection> all = ConnectAll(conninfo, sessions);
  for (const Connection& conn : all) {
    Checked(PQexec(conn.get(), sql));
  }
  std::cout << "ready" << std::endl;
  while (std::cin.get() != std::istream::traits_type::eof()) {
  }
}

void Until(const char* conninfo, const char* sql, const char* condition) {
  const Connection conn = Connect(conninfo);
  const int parameters = std::strstr(condition, "$1") != nullptr ? 1 : 0;
  const Result before = Checked(PQexec(conn.get(), "SELECT clock_timestamp()"));
  const char* const values[] = {PQgetvalue(before.get(), 0, 0)};
  const double start = bench::NowUs();
  Checked(PQexec(conn.get(), sql));
  for (;;) {
    const Result result = Checked(
        PQexecParams(conn.get(), condition, parameters, nullptr, values, nullptr, nullptr, 0));
    const double us = PQnfields(result.get()) == 2 ? std::atof(PQgetvalue(result.get(), 0, 1))
                                                   : bench::NowUs() - start;
    if (PQntuples(result.get()) == 1 && std::strcmp(PQgetvalue(result.get(), 0, 0), "t") == 0) {
      bench::PrintLine(us, -1, -1, -1);
      return;
    }
    if (bench::NowUs() - start > kLongestWaitUs) {
      bench::Die(std::string("not true after three minutes: ") + condition);
    }
    bench::SleepUs(kPollIntervalUs);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  if (verb == "loop" && argc == 7) {
    Loop(argv[2], std::atoi(argv[3]), std::atof(argv[4]), std::atoi(argv[5]), argv[6]);
  } else if (verb == "time" && argc == 5) {
    Time(argv[2], std::atoi(argv[3]), argv[4]);
  } else if (verb == "first" && argc == 5) {
    First(argv[2], std::atof(argv[3]), argv[4]);
  } else if (verb == "hold" && argc == 5) {
    Hold(argv[2], std::atoi(argv[3]), argv[4]);
  } else if (verb == "until" && argc == 5) {
    Until(argv[2], argv[3], argv[4]);
  } else {
    bench::Die("usage: see the head of sql_load.cpp");
  }
}
