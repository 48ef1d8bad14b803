// The server's side of one connection in PostgreSQL's protocol 3, bytes in and bytes out; for
// tests, on whatever thread feeds it.
//
// Statements it knows (all others succeed, their text is the command tag):
//   ECHO text                  one row with one text column
//   SET name = value           reports the parameter
//   FAIL 22012 some message    that error
//   COPY                       begins to copy to the client
//   SLEEP                      no answer before a cancel (57014)
//   NOTHING, EMPTY             no answer but that it is ready; the answer to an empty statement
//   BEGIN, COMMIT, ROLLBACK    the transaction's state; a failed one refuses all else with 25P02
//   DISCARD ALL                25001 inside a transaction or beside other statements
// Simple queries may hold several, separated by semicolons. Extended protocol: Parse, Bind,
// Describe, Execute, Close, Flush, Sync, of unnamed statements.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace polarx {

struct FakeBehaviour {
  enum class Startup { kAccept, kAskPassword, kRefuse, kSilent, kHangUp };
  enum class Answer { kObey, kSilent, kHangUp };

  Startup startup = Startup::kAccept;
  std::string password = "secret";  // of kAskPassword; another one: 28P01
  std::string sqlstate = "57P03";   // of kRefuse
  std::string message = "the database system is starting up";
  Answer answer = Answer::kObey;       // to what comes after the startup
  std::chrono::milliseconds delay{0};  // before every answer of a FakeDatanode
  std::vector<std::pair<std::string, std::string>> parameters = {
      {"server_version", "15.20"}, {"client_encoding", "UTF8"},
      {"DateStyle", "ISO, MDY"},   {"TimeZone", "Europe/Berlin"},
      {"application_name", ""},    {"standard_conforming_strings", "on"}};
  std::vector<std::pair<std::string, std::string>> rows = {};  // statements that answer one value
};

class FakeBackend {
 public:
  enum class Phase { kStartup, kPassword, kReady, kEnd };

  FakeBackend(std::int32_t pid, std::function<void(const std::string&)> on_statement)
      : pid_(pid), on_statement_(std::move(on_statement)) {}

  // As if the startup were over.
  void SkipStartup() { phase_ = Phase::kReady; }

  // Takes bytes of the client, returns the answer.
  std::string Receive(std::string_view bytes, const FakeBehaviour& behaviour);
  // What a cancel makes it send.
  std::string Cancel(const FakeBehaviour& behaviour);

  bool at_end() const { return phase_ == Phase::kEnd; }  // to be hung up on
  bool terminated() const { return terminated_; }        // the client said goodbye
  std::int32_t pid() const { return pid_; }
  std::int32_t canceled_pid() const { return canceled_pid_; }  // 0: this was no cancel request
  const std::vector<std::pair<std::string, std::string>>& startup_options() const {
    return startup_options_;
  }

  static std::string ErrorMessage(std::string_view sqlstate, std::string_view message);
  static std::string ParameterMessage(std::string_view name, std::string_view value);

 private:
  void HandleStartup(std::string_view body, const FakeBehaviour& behaviour);
  void Handle(char type, std::string_view body, const FakeBehaviour& behaviour);
  void HandleSimple(std::string_view text, const FakeBehaviour& behaviour);
  void Greet(const FakeBehaviour& behaviour);
  // False: an error was sent.
  bool Execute(std::string_view statement, bool alone, const FakeBehaviour& behaviour);
  void Fail(std::string_view sqlstate, std::string_view message);
  void Ready();

  const std::int32_t pid_;
  const std::function<void(const std::string&)> on_statement_;
  Phase phase_ = Phase::kStartup;
  std::string in_;
  std::string out_;
  std::string parsed_;      // text of the unnamed statement
  char transaction_ = 'I';  // as ReadyForQuery tells it
  bool skipping_ = false;   // after an error, up to Sync
  bool sleeping_ = false;   // what comes meanwhile waits in in_
  bool sleep_is_simple_ = false;
  bool terminated_ = false;
  std::int32_t canceled_pid_ = 0;
  std::vector<std::pair<std::string, std::string>> startup_options_;
};

}  // namespace polarx
