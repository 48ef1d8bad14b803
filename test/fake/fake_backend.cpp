// Messages of PostgreSQL's protocol are taken apart and answered here; for tests.
#include "fake/fake_backend.h"

#include <algorithm>
#include <cctype>
#include <optional>

namespace polarx {
namespace {

constexpr std::int32_t kCancelRequest = 80877102;
constexpr std::int32_t kSslRequest = 80877103;
constexpr std::int32_t kGssRequest = 80877104;

std::int32_t ReadInt32(std::string_view bytes) {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    value = value << 8 | static_cast<unsigned char>(bytes[static_cast<std::size_t>(i)]);
  }
  return static_cast<std::int32_t>(value);
}

std::string Int32(std::int64_t value) {
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>(value >> shift));
  }
  return out;
}

std::string Int16(int value) { return Int32(value).substr(2); }

std::string Text(std::string_view text) { return std::string(text) + '\0'; }

std::string Message(char type, std::string_view body) {
  return type + Int32(static_cast<std::int64_t>(body.size()) + 4) + std::string(body);
}

std::string_view FirstText(std::string_view* body) {
  const std::size_t end = std::min(body->find('\0'), body->size());
  const std::string_view text = body->substr(0, end);
  body->remove_prefix(std::min(end + 1, body->size()));
  return text;
}

std::string_view Trim(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) {
    text.remove_prefix(1);
  }
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) {
    text.remove_suffix(1);
  }
  return text;
}

std::string RowDescription() {
  return Message('T', Int16(1) + Text("echo") + Int32(0) + Int16(0) + Int32(25) + Int16(-1) +
                          Int32(-1) + Int16(0));
}

// The value that a statement answers in one row of one column; empty: it has no rows.
std::optional<std::string> RowOf(std::string_view statement, const FakeBehaviour& behaviour) {
  if (statement.starts_with("ECHO ")) {
    return std::string(statement.substr(5));
  }
  for (const auto& [text, value] : behaviour.rows) {
    if (text == statement) {
      return value;
    }
  }
  return std::nullopt;
}

}  // namespace

std::string FakeBackend::ErrorMessage(std::string_view sqlstate, std::string_view message) {
  return Message('E', 'S' + Text("ERROR") + 'V' + Text("ERROR") + 'C' + Text(sqlstate) + 'M' +
                          Text(message) + '\0');
}

std::string FakeBackend::ParameterMessage(std::string_view name, std::string_view value) {
  return Message('S', Text(name) + Text(value));
}

std::string FakeBackend::Receive(std::string_view bytes, const FakeBehaviour& behaviour) {
  in_.append(bytes);
  while (phase_ != Phase::kEnd && !sleeping_) {
    const std::size_t head = phase_ == Phase::kStartup ? 0 : 1;
    if (in_.size() < head + 4) {
      break;
    }
    const auto size = static_cast<std::size_t>(ReadInt32(std::string_view(in_).substr(head)));
    if (in_.size() < head + size) {
      break;
    }
    const char type = in_[0];
    const std::string body = in_.substr(head + 4, size - 4);
    in_.erase(0, head + size);
    if (head == 0) {
      HandleStartup(body, behaviour);
    } else {
      Handle(type, body, behaviour);
    }
  }
  return std::exchange(out_, {});
}

std::string FakeBackend::Cancel(const FakeBehaviour& behaviour) {
  if (std::exchange(sleeping_, false)) {
    Fail("57014", "canceling statement due to user request");
    skipping_ = !sleep_is_simple_;
    if (sleep_is_simple_) {
      Ready();
    }
  }
  return Receive({}, behaviour);
}

void FakeBackend::HandleStartup(std::string_view body, const FakeBehaviour& behaviour) {
  const std::int32_t code = ReadInt32(body);
  body.remove_prefix(4);
  if (code == kCancelRequest) {
    canceled_pid_ = ReadInt32(body);
    phase_ = Phase::kEnd;
    return;
  }
  if (code == kSslRequest || code == kGssRequest) {
    out_ += 'N';
    return;
  }
  while (body.size() > 1) {
    const std::string_view name = FirstText(&body);
    startup_options_.emplace_back(name, FirstText(&body));
  }
  switch (behaviour.startup) {
    case FakeBehaviour::Startup::kAccept:
      Greet(behaviour);
      return;
    case FakeBehaviour::Startup::kAskPassword:
      out_ += Message('R', Int32(3));
      phase_ = Phase::kPassword;
      return;
    case FakeBehaviour::Startup::kRefuse:
      out_ += ErrorMessage(behaviour.sqlstate, behaviour.message);
      phase_ = Phase::kEnd;
      return;
    case FakeBehaviour::Startup::kHangUp:
      phase_ = Phase::kEnd;
      return;
    case FakeBehaviour::Startup::kSilent:
      return;
  }
}

void FakeBackend::Greet(const FakeBehaviour& behaviour) {
  out_ += Message('R', Int32(0));
  for (const auto& [name, value] : behaviour.parameters) {
    out_ += ParameterMessage(name, value);
  }
  out_ += Message('K', Int32(pid_) + Int32(pid_));
  Ready();
  phase_ = Phase::kReady;
}

void FakeBackend::Handle(char type, std::string_view body, const FakeBehaviour& behaviour) {
  if (phase_ == Phase::kPassword) {
    if (type == 'p' && FirstText(&body) == behaviour.password) {
      Greet(behaviour);
    } else {
      out_ += ErrorMessage("28P01", "password authentication failed");
      phase_ = Phase::kEnd;
    }
    return;
  }
  if (type == 'X') {
    terminated_ = true;
    phase_ = Phase::kEnd;
    return;
  }
  if (behaviour.answer == FakeBehaviour::Answer::kHangUp) {
    phase_ = Phase::kEnd;
    return;
  }
  if (behaviour.answer == FakeBehaviour::Answer::kSilent || (skipping_ && type != 'S')) {
    return;
  }
  switch (type) {
    case 'Q':
      HandleSimple(FirstText(&body), behaviour);
      break;
    case 'P':
      FirstText(&body);
      parsed_ = FirstText(&body);
      out_ += Message('1', "");
      break;
    case 'B':
      out_ += Message('2', "");
      break;
    case 'C':
      out_ += Message('3', "");
      break;
    case 'D':
      out_ += RowOf(Trim(parsed_), behaviour) ? RowDescription() : Message('n', "");
      break;
    case 'E':
      skipping_ = !Execute(Trim(parsed_), true, behaviour);
      break;
    case 'S':
      skipping_ = false;
      Ready();
      break;
    case 'H':
      break;
    default:
      Fail("08P01", std::string("unexpected message ") + type);
  }
}

void FakeBackend::HandleSimple(std::string_view text, const FakeBehaviour& behaviour) {
  const bool alone = text.find(';') == text.npos || text.find(';') + 1 == text.size();
  bool ok = true;
  if (text.find_first_not_of("; ") == text.npos) {
    out_ += Message('I', "");
  }
  while (ok && !text.empty()) {
    const std::size_t end = std::min(text.find(';'), text.size());
    const std::string_view statement = Trim(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (RowOf(statement, behaviour)) {
      out_ += RowDescription();
    }
    ok = statement.empty() || Execute(statement, alone, behaviour);
  }
  sleep_is_simple_ = sleeping_;
  if (!sleeping_) {
    Ready();
  }
}

bool FakeBackend::Execute(std::string_view statement, bool alone, const FakeBehaviour& behaviour) {
  on_statement_(std::string(statement));
  if (transaction_ == 'E' && statement != "ROLLBACK" && statement != "COMMIT") {
    Fail("25P02", "current transaction is aborted");
    return false;
  }
  std::string tag(statement.substr(0, 60));
  if (statement.starts_with("FAIL ")) {
    Fail(statement.substr(5, 5), statement.substr(std::min<std::size_t>(11, statement.size())));
    return false;
  }
  if (statement == "DISCARD ALL" && (transaction_ != 'I' || !alone)) {
    Fail("25001", "DISCARD ALL cannot run inside a transaction block");
    return false;
  }
  if (statement == "NOTHING" || statement == "EMPTY") {
    out_ += statement == "EMPTY" ? Message('I', "") : "";
    return true;
  }
  if (statement == "SLEEP") {
    sleeping_ = true;
    sleep_is_simple_ = false;
    return true;
  }
  if (statement == "COPY") {
    out_ += Message('H', '\0' + Int16(0));
    return true;
  }
  if (statement.starts_with("BEGIN")) {
    transaction_ = 'T';
    tag = "BEGIN";
  } else if (statement == "COMMIT" || statement == "ROLLBACK") {
    tag = transaction_ == 'E' ? "ROLLBACK" : tag;
    transaction_ = 'I';
  } else if (const std::size_t equals = statement.find(" = ");
             statement.starts_with("SET ") && equals != statement.npos) {
    out_ += ParameterMessage(statement.substr(4, equals - 4), statement.substr(equals + 3));
    tag = "SET";
  } else if (const std::optional<std::string> value = RowOf(statement, behaviour)) {
    out_ += Message('D', Int16(1) + Int32(static_cast<std::int64_t>(value->size())) + *value);
    tag = "SELECT 1";
  }
  out_ += Message('C', Text(tag));
  return true;
}

void FakeBackend::Fail(std::string_view sqlstate, std::string_view message) {
  out_ += ErrorMessage(sqlstate, message);
  if (transaction_ == 'T') {
    transaction_ = 'E';
  }
}

void FakeBackend::Ready() { out_ += Message('Z', std::string(1, transaction_)); }

}  // namespace polarx
