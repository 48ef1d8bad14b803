// Fuzz target: what a datanode may answer to a statement of the pooler. What a session takes as a
// plain answer to its reset the pooler takes as well, to the same byte; and nothing harms its
// reader.
#include <fuzzer/FuzzedDataProvider.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "engine/answer_reader.h"
#include "engine/sent_reset.h"

namespace polarx {
namespace {

using fuzz::Require;

// What was sent is read to its end, in pieces; `closed`: by the end of file.
AnswerReader::State ReadAll(std::string_view bytes, std::size_t step, bool closed) {
  int ends[2];
  Require(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "there is a socket pair");
  AnswerReader reader;
  reader.Begin(false);
  AnswerReader::State state = AnswerReader::State::kMore;
  for (std::size_t at = 0; at < bytes.size() && state == AnswerReader::State::kMore; at += step) {
    const std::string_view piece = bytes.substr(at, step);
    Require(::send(ends[1], piece.data(), piece.size(), 0) == static_cast<ssize_t>(piece.size()),
            "it can be sent");
    state = reader.Read(ends[0]);
  }
  if (closed && state == AnswerReader::State::kMore) {
    (void)::shutdown(ends[1], SHUT_WR);
    state = reader.Read(ends[0]);
    Require(state == AnswerReader::State::kFailed, "what is not whole is no answer");
  }
  const bool good = state == AnswerReader::State::kDone;
  Require(state == AnswerReader::State::kMore || good == reader.error().empty(),
          "who fails says why");
  Require(reader.error().find('\n') == std::string::npos, "in one line");
  Require(reader.sqlstate().empty() || fuzz::IsSqlstate(reader.sqlstate()), "an SQLSTATE is one");
  Require(reader.parameters().size() < 20, "values are those of known parameters");
  (void)::close(ends[0]);
  (void)::close(ends[1]);
  return state;
}

void Plain(std::string_view bytes) {
  int ends[2];
  Require(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "there is a socket pair");
  (void)::send(ends[1], bytes.data(), bytes.size(), 0);
  const PlainAnswer answer = LookForPlainAnswer(ends[0]);
  Require(answer.come == !bytes.empty() && answer.size <= bytes.size(), "no more than has come");
  if (answer.size > 0) {
    Require(TakePlainAnswer(ends[0], answer.size), "it can be taken");
    Require(bytes.substr(answer.size - 6, 2) == std::string_view("Z\0", 2), "it ends with its end");
    if (bytes.substr(0, answer.size).find('I') == answer.size - 1) {  // else it may be empty
      Require(ReadAll(bytes.substr(0, answer.size), 1, false) == AnswerReader::State::kDone,
              "the pooler takes it, too");
    }
  }
  (void)::close(ends[0]);
  (void)::close(ends[1]);
}

}  // namespace
}  // namespace polarx

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  const auto step = input.ConsumeIntegralInRange<std::size_t>(1, 64);
  const std::string bytes = input.ConsumeRemainingBytesAsString();
  polarx::Plain(bytes);
  (void)polarx::ReadAll(bytes, step, true);
  return 0;
}
