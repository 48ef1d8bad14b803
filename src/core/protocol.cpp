// Frames become bytes and bytes become frames here; on the main thread and in backends. What a
// message consists of is said once, in FieldsOf; Writer and Reader both follow it.
#include "core/protocol.h"

#include <array>
#include <cassert>
#include <concepts>
#include <limits>
#include <tuple>
#include <type_traits>

namespace polarx::protocol {

namespace {

// The place of a message in its variant is added. No protocol version of PostgreSQL looks like it,
// and a reply is never taken for a request.
constexpr std::uint32_t kRequestCode = 0x504C5801;
constexpr std::uint32_t kReplyCode = 0x504C5881;
constexpr std::uint32_t kNull = 0xFFFFFFFF;
// Every element of a list takes at least that much, so a count is believed only as far as that.
constexpr std::size_t kLeastElementSize = 4;

template <typename T, typename... Candidates>
inline constexpr bool kIsOneOf = (std::is_same_v<T, Candidates> || ...);

template <typename M>
auto FieldsOf(M& m) {
  using T = std::remove_const_t<M>;
  if constexpr (std::is_same_v<T, Attach>) {
    return std::tie(m.version, m.generation);
  } else if constexpr (std::is_same_v<T, Wanted>) {
    return std::tie(m.node, m.role);
  } else if constexpr (std::is_same_v<T, Acquire>) {
    return std::tie(m.request, m.queue_timeout_ms, m.sets, m.wanted);
  } else if constexpr (kIsOneOf<T, Withdraw, Reload, ResetStats, Confirm>) {
    return std::tie(m.request);
  } else if constexpr (std::is_same_v<T, PartlyCommitted>) {
    return std::tie();
  } else if constexpr (std::is_same_v<T, Awaits>) {
    return std::tie(m.number, m.begun_us, m.leases);
  } else if constexpr (std::is_same_v<T, Deadlocked>) {
    return std::tie(m.number, m.detail);
  } else if constexpr (std::is_same_v<T, Released>) {
    return std::tie(m.lease, m.kind, m.changed);
  } else if constexpr (std::is_same_v<T, Release>) {
    return std::tie(m.leases);
  } else if constexpr (kIsOneOf<T, Cancel, Cancelled>) {
    return std::tie(m.lease, m.number);
  } else if constexpr (std::is_same_v<T, Show>) {
    return std::tie(m.request, m.view);
  } else if constexpr (std::is_same_v<T, Ping>) {
    return std::tie(m.request, m.role, m.nodes);
  } else if constexpr (std::is_same_v<T, Clean>) {
    return std::tie(m.request, m.node, m.remote_user);
  } else if constexpr (std::is_same_v<T, Pause>) {
    return std::tie(m.request, m.node, m.paused);
  } else if constexpr (std::is_same_v<T, Check>) {
    return std::tie(m.request, m.nodes);
  } else if constexpr (std::is_same_v<T, NodeDefinition>) {
    return std::tie(m.id, m.name, m.host, m.hostaddr, m.port, m.max_pool_size, m.min_pool_size,
                    m.min_free_size);
  } else if constexpr (std::is_same_v<T, Recall>) {
    return std::tie(m.leases);
  } else if constexpr (std::is_same_v<T, Attached>) {
    return std::tie(m.generation);
  } else if constexpr (std::is_same_v<T, GrantedLease>) {
    return std::tie(m.lease, m.slot, m.pool, m.backend_pid, m.cell, m.node_cell, m.parameter_set,
                    m.told, m.parameters);
  } else if constexpr (std::is_same_v<T, Granted>) {
    return std::tie(m.request, m.leases);
  } else if constexpr (std::is_same_v<T, Failed>) {
    return std::tie(m.request, m.status);
  } else if constexpr (std::is_same_v<T, Rows>) {
    return std::tie(m.request, m.rows);
  } else if constexpr (std::is_same_v<T, Done>) {
    return std::tie(m.request, m.value);
  } else {
    static_assert(std::is_same_v<T, std::pair<std::string, std::string>>);
    return std::tie(m.first, m.second);
  }
}

void SetInt32(std::string* bytes, std::size_t at, std::uint32_t value) {
  for (std::size_t i = 0; i < sizeof(value); ++i) {
    (*bytes)[at + i] = static_cast<char>(value >> (8 * (sizeof(value) - 1 - i)));
  }
}

class Writer {
 public:
  explicit Writer(std::string* out) : out_(*out), start_(out->size()) {}

  void Put(bool value) { Put(static_cast<std::uint8_t>(value)); }
  void Put(std::integral auto value) {
    const auto bits = static_cast<std::make_unsigned_t<decltype(value)>>(value);
    char bytes[sizeof(value)];
    for (std::size_t i = 0; i < sizeof(value); ++i) {
      bytes[i] = static_cast<char>(bits >> (8 * (sizeof(value) - 1 - i)));
    }
    out_.append(bytes, sizeof(value));
  }
  template <typename E>
  requires std::is_enum_v<E>
  void Put(E value) { Put(static_cast<std::uint8_t>(value)); }
  void Put(const std::string& text) {
    Put(static_cast<std::uint32_t>(text.size()));
    out_.append(text);
  }
  void Put(const std::optional<std::string>& text) { text ? Put(*text) : Put(kNull); }
  void Put(const Status& status) {
    assert(!status.ok());
    Put(status.sqlstate());
    Put(status.message());
    Put(status.detail());
    Put(status.hint());
  }
  template <typename T>
  void Put(const std::vector<T>& list) {
    Put(static_cast<std::uint32_t>(list.size()));
    for (const T& element : list) {
      Put(element);
    }
  }
  template <typename M>
  requires std::is_class_v<M>
  void Put(const M& message) {
    std::apply([this](const auto&... field) { (this->Put(field), ...); }, FieldsOf(message));
  }

  // The length is known only now.
  void Finish() {
    const std::size_t length = out_.size() - start_;
    assert(length <= static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()));
    SetInt32(&out_, start_, static_cast<std::uint32_t>(length));
  }

 private:
  std::string& out_;
  const std::size_t start_;
};

// Remembers the first thing that was wrong and hands out zeros from there on.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  const char* trouble() const { return trouble_; }
  bool ok() const { return trouble_ == nullptr; }
  void Fail(const char* trouble) {
    if (ok()) {
      trouble_ = trouble;
    }
  }
  void ExpectEnd() {
    if (!rest_.empty()) {
      Fail("payload is too long");
    }
  }

  void Get(bool& value) {
    std::uint8_t byte = 0;
    Get(byte);
    if (byte > 1) {
      Fail("truth value out of range");
    }
    value = byte == 1;
  }
  template <std::integral T>
  void Get(T& value) {
    std::make_unsigned_t<T> bits = 0;
    for (const char c : Take(sizeof(T))) {
      bits = static_cast<decltype(bits)>(static_cast<std::uint64_t>(bits) << 8 |
                                         static_cast<unsigned char>(c));
    }
    value = static_cast<T>(bits);
  }
  void Get(ReleaseKind& kind) { GetEnum(kind, ReleaseKind::kResetSent); }
  void Get(View& view) { GetEnum(view, View::kStats); }
  void Get(std::string& text) {
    std::uint32_t size = 0;
    Get(size);
    TakeText(size, text);
  }
  void Get(std::optional<std::string>& text) {
    std::uint32_t size = 0;
    Get(size);
    if (size == kNull) {
      text.reset();
    } else {
      TakeText(size, text.emplace());
    }
  }
  void Get(Status& status) {
    std::array<std::string, 4> texts;
    for (std::string& text : texts) {
      Get(text);
    }
    if (ok() && !IsSqlstate(texts[0])) {
      Fail("invalid SQLSTATE");
    }
    if (ok()) {
      status = Status(texts[0], std::move(texts[1]), std::move(texts[2]), std::move(texts[3]));
    }
  }
  template <typename T>
  void Get(std::vector<T>& list) {
    std::uint32_t count = 0;
    Get(count);
    if (count > rest_.size() / kLeastElementSize) {
      Fail("count exceeds payload");
    }
    for (; ok() && count > 0; --count) {
      Get(list.emplace_back());
    }
  }
  template <typename M>
  requires std::is_class_v<M>
  void Get(M& message) {
    std::apply([this](auto&... field) { (this->Get(field), ...); }, FieldsOf(message));
  }

 private:
  std::string_view Take(std::size_t size) {
    if (!ok() || size > rest_.size()) {
      Fail("payload is too short");
      return {};
    }
    const std::string_view result = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return result;
  }
  void TakeText(std::size_t size, std::string& text) {
    text = Take(size);
    if (text.find('\0') != std::string::npos) {
      Fail("NUL byte in a string");
    }
  }
  template <typename E>
  void GetEnum(E& value, E last) {
    std::uint8_t byte = 0;
    Get(byte);
    if (byte > static_cast<std::uint8_t>(last)) {
      Fail("enumeration value out of range");
    } else {
      value = static_cast<E>(byte);
    }
  }

  std::string_view rest_;
  const char* trouble_ = nullptr;
};

template <typename Variant>
void EncodeFrame(std::uint32_t first_code, const Variant& message, std::string* out) {
  Writer writer(out);
  writer.Put(std::uint32_t{0});
  writer.Put(first_code + static_cast<std::uint32_t>(message.index()));
  std::visit([&writer](const auto& m) { writer.Put(m); }, message);
  writer.Finish();
}

// Reads the alternative number `index`; one that does not exist is trouble.
template <typename Variant, std::size_t... I>
void GetAlternative(Reader& reader, std::uint32_t index, Variant& out, std::index_sequence<I...>) {
  const bool known = ((index == I && (reader.Get(out.template emplace<I>()), true)) || ...);
  if (!known) {
    reader.Fail("unknown code");
  }
}

template <typename Variant>
Result<Variant> DecodeFrame(std::uint32_t first_code, std::string_view frame) {
  Reader reader(frame);
  std::uint32_t length = 0;
  std::uint32_t code = 0;
  reader.Get(length);
  reader.Get(code);
  if (reader.ok() && length != frame.size()) {
    reader.Fail("length differs from what was received");
  }
  Variant message;
  if (reader.ok()) {
    // Codes below first_code wrap to large indexes, which do not exist either.
    GetAlternative(reader, code - first_code, message,
                   std::make_index_sequence<std::variant_size_v<Variant>>());
    reader.ExpectEnd();
  }
  if (!reader.ok()) {
    return Status(sqlstate::kProtocolViolation,
                  "invalid frame of code " + std::to_string(code) + ": " + reader.trouble());
  }
  return message;
}

}  // namespace

void Encode(const Request& request, std::string* out) { EncodeFrame(kRequestCode, request, out); }

void Encode(const Reply& reply, std::string* out) { EncodeFrame(kReplyCode, reply, out); }

RowsFrame::RowsFrame(std::uint32_t request) { Encode(Reply(Rows{request, {}}), &bytes_); }

void RowsFrame::Add(const Row& row) {
  Writer(&bytes_).Put(row);
  ++count_;
}

std::string RowsFrame::Finish() {
  SetInt32(&bytes_, 0, static_cast<std::uint32_t>(bytes_.size()));
  SetInt32(&bytes_, kHeaderSize + sizeof(Rows::request), count_);
  return std::move(bytes_);
}

Result<std::size_t> FrameLength(std::string_view buffer, std::size_t limit) {
  if (buffer.size() < 4) {
    return std::size_t{0};
  }
  std::uint32_t length = 0;
  Reader(buffer.substr(0, 4)).Get(length);
  if (length < kHeaderSize || length > limit) {
    return Status(sqlstate::kProtocolViolation, "invalid frame length " + std::to_string(length),
                  "Valid lengths are " + std::to_string(kHeaderSize) + " to " +
                      std::to_string(limit) + " bytes.");
  }
  return std::size_t{length};
}

Result<Request> DecodeRequest(std::string_view frame) {
  Result<Request> result = DecodeFrame<Request>(kRequestCode, frame);
  if (!result.ok()) {
    return result;
  }
  const auto* acquire = std::get_if<Acquire>(&result.value());
  if (acquire != nullptr && (acquire->wanted.empty() || acquire->wanted.size() > kMaxNodes)) {
    return Status(sqlstate::kProtocolViolation, "invalid number of nodes in an acquire: " +
                                                    std::to_string(acquire->wanted.size()));
  }
  return result;
}

Result<Reply> DecodeReply(std::string_view frame) { return DecodeFrame<Reply>(kReplyCode, frame); }

}  // namespace polarx::protocol
