// The stat lines are written out here; on the main thread of the pooler worker.
#include "core/stat_line.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <concepts>
#include <utility>

namespace polarx {

namespace {

bool IsBare(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '.';
}

bool IsControl(unsigned char c) { return c < 0x20 || c == 0x7f; }

std::string Escaped(char c) {
  static constexpr std::string_view kDigits = "0123456789abcdef";
  switch (c) {
    case '"':
    case '\\':
      return {'\\', c};
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      break;
  }
  const auto byte = static_cast<unsigned char>(c);
  if (IsControl(byte)) {
    return {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
  }
  return {c};
}

// Microseconds with one decimal, in whatever locale.
std::string Decimal(double value) {
  std::array<char, 400> text;
  const auto end = std::to_chars(text.begin(), text.end(), value, std::chars_format::fixed, 1).ptr;
  return {text.begin(), end};
}

class Line {
 public:
  Line& Text(std::string_view key, std::string_view value) {
    text_.append(" ").append(key).append("=").append(QuoteStatValue(value));
    return *this;
  }
  Line& Number(std::string_view key, std::integral auto value) {
    return Text(key, std::to_string(value));
  }
  Line& Number(std::string_view key, double value) { return Text(key, Decimal(value)); }
  std::string Take() { return std::move(text_); }

 private:
  std::string text_ = "[pooler stat]";
};

std::uint64_t Difference(std::uint64_t now, std::uint64_t earlier) {
  return now < earlier ? now : now - earlier;
}

}  // namespace

RequestCounters RequestCounters::Since(const RequestCounters& earlier) const {
  RequestCounters result = *this;
  for (const auto counter :
       {&RequestCounters::client_request_conn_total, &RequestCounters::client_request_from_hashtab,
        &RequestCounters::client_request_from_thread, &RequestCounters::acquire_conn_from_hashtab,
        &RequestCounters::acquire_conn_from_hashtab_and_set,
        &RequestCounters::acquire_conn_from_thread, &RequestCounters::acquire_conn_time_us}) {
    result.*counter = Difference(this->*counter, earlier.*counter);
  }
  return result;
}

double RequestCounters::EachRequestCostUs() const {
  if (client_request_conn_total == 0) {
    return 0;
  }
  return static_cast<double>(acquire_conn_time_us) / static_cast<double>(client_request_conn_total);
}

std::string QuoteStatValue(std::string_view value) {
  if (!value.empty() && std::all_of(value.begin(), value.end(), IsBare)) {
    return std::string(value);
  }
  std::string result = "\"";
  for (const char c : value) {
    result += Escaped(c);
  }
  return result + "\"";
}

std::string DatabaseStatLine(std::string_view database, const RequestCounters& since_last) {
  const RequestCounters& c = since_last;
  return Line()
             .Text("database", database)
             .Number("client_request_conn_total", c.client_request_conn_total)
             .Number("client_request_from_hashtab", c.client_request_from_hashtab)
             .Number("client_request_from_thread", c.client_request_from_thread)
             .Number("acquire_conn_from_hashtab", c.acquire_conn_from_hashtab)
             .Number("acquire_conn_from_hashtab_and_set", c.acquire_conn_from_hashtab_and_set)
             .Number("acquire_conn_from_thread", c.acquire_conn_from_thread)
             .Number("acquire_conn_time", c.acquire_conn_time_us)
             .Number("each_client_conn_request_cost_time", c.EachRequestCostUs())
             .Take() +
         " us";
}

std::string PoolStatLine(std::string_view database, const PoolFigures& figures) {
  return Line()
      .Text("database", database)
      .Text("node", figures.node)
      .Text("user", figures.user)
      .Number("total", figures.total)
      .Number("idle", figures.idle)
      .Number("leased", figures.leased)
      .Number("parked", figures.parked)
      .Number("connecting", figures.connecting)
      .Number("waiting", figures.waiting)
      .Number("acquired", figures.acquired)
      .Number("rejected", figures.rejected)
      .Number("acquire_p50_us", figures.acquire_p50_us)
      .Number("acquire_p99_us", figures.acquire_p99_us)
      .Take();
}

}  // namespace polarx
