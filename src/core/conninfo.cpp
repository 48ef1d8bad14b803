// Options of servers and user mappings are checked here and made into the complete option list of a
// datanode connection; in backends and on the main thread of the pooler worker.
#include "core/conninfo.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <climits>
#include <cstddef>
#include <map>
#include <optional>
#include <utility>

namespace polarx {

namespace {

using std::string;
using std::string_view;

constexpr const char* kInvalidOptionName = "HV00D";  // the class of foreign data wrappers

// No file can exist below a device, and libpq does not complain about one that does not exist.
constexpr const char* kNoPassfile = "/dev/null/none";

// In front of the user's own, which therefore win.
constexpr const char* kOverridable = "-c client_connection_check_interval=2000";
// Behind the user's own: values would not be exact, or the pool not keep its connections.
constexpr const char* kFixed =
    " -c DateStyle=ISO -c IntervalStyle=postgres -c extra_float_digits=3"
    " -c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0";

constexpr std::array<string_view, 3> kPoolSizes = {"max_pool_size", "min_pool_size",
                                                   "min_free_size"};
constexpr string_view kPasswordRule = "password_required";

struct NumberRange {
  string_view name;
  int low;
  int high;
};

constexpr std::array kNumbers = {
    NumberRange{"max_pool_size", 1, 65535},
    NumberRange{"min_pool_size", 0, 65535},
    NumberRange{"min_free_size", 0, 65535},
    NumberRange{"port", 1, 65535},
    NumberRange{"connect_timeout", INT_MIN, INT_MAX},
    NumberRange{"keepalives", INT_MIN, INT_MAX},
    NumberRange{"keepalives_idle", INT_MIN, INT_MAX},
    NumberRange{"keepalives_interval", INT_MIN, INT_MAX},
    NumberRange{"keepalives_count", INT_MIN, INT_MAX},
    NumberRange{"tcp_user_timeout", INT_MIN, INT_MAX},
};

constexpr std::array<string_view, 6> kSslModes = {"disable", "allow",     "prefer",
                                                  "require", "verify-ca", "verify-full"};
constexpr std::array<string_view, 3> kGssEncModes = {"disable", "prefer", "require"};

template <typename List, typename T>
bool Contains(const List& list, const T& value) {
  return std::find(std::begin(list), std::end(list), value) != std::end(list);
}

string Quoted(string_view text) { return '"' + string(text) + '"'; }

// --- which option may stand where -------------------------------------------------------------

// Where the connection option may stand; nullopt: nowhere.
std::optional<OptionContext> ContextOf(const KnownOption& option) {
  static constexpr std::array<string_view, 3> kOurs = {"client_encoding",
                                                       "fallback_application_name", "service"};
  static constexpr std::array<string_view, 4> kPersonal = {"user", "passfile", "sslcert", "sslkey"};
  if (option.debug || Contains(kOurs, option.keyword)) {
    return std::nullopt;
  }
  return option.secret || Contains(kPersonal, option.keyword) ? OptionContext::kUserMapping
                                                              : OptionContext::kServer;
}

bool IsConnectionOption(const std::vector<KnownOption>& known, OptionContext context,
                        string_view name) {
  return std::any_of(known.begin(), known.end(), [&](const KnownOption& option) {
    return option.keyword == name && ContextOf(option) == context;
  });
}

std::vector<string_view> ValidNames(const std::vector<KnownOption>& known, OptionContext context) {
  std::vector<string_view> names;
  for (const KnownOption& option : known) {
    if (ContextOf(option) == context) {
      names.push_back(option.keyword);
    }
  }
  if (context == OptionContext::kServer) {
    names.insert(names.end(), kPoolSizes.begin(), kPoolSizes.end());
  } else {
    names.push_back(kPasswordRule);
  }
  return names;
}

// Insertions, deletions and replacements between the two.
std::size_t EditDistance(string_view a, string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) {
    row[j] = j;
  }
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row.back();
}

// The nearest name, unless more than half of the word, or four letters, would have to change.
std::optional<string_view> NearestName(const std::vector<string_view>& names, string_view name) {
  std::size_t best = std::min<std::size_t>(4, name.size() / 2) + 1;
  std::optional<string_view> nearest;
  for (const string_view candidate : names) {
    const std::size_t distance = EditDistance(name, candidate);
    if (distance < best) {
      best = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

Status InvalidName(const std::vector<KnownOption>& known, OptionContext context, string_view name) {
  const bool in_server = context == OptionContext::kServer;
  const OptionContext other = in_server ? OptionContext::kUserMapping : OptionContext::kServer;
  const std::vector<string_view> names = ValidNames(known, context);
  string hint;
  if (Contains(ValidNames(known, other), name)) {
    hint = "The option " + Quoted(name) + " belongs to the " +
           (in_server ? "user mapping." : "server.");
  } else if (const auto nearest = NearestName(names, name)) {
    hint = "Perhaps you meant the option " + Quoted(*nearest) + ".";
  } else {
    hint = "Valid options in this context are: ";
    for (std::size_t i = 0; i < names.size(); ++i) {
      hint.append(i == 0 ? "" : ", ").append(names[i]);
    }
  }
  return Status(kInvalidOptionName, "invalid option " + Quoted(name), "", hint);
}

// --- values -----------------------------------------------------------------------------------

// As the server reads a bool: any case, prefixes as far as they are unambiguous.
std::optional<bool> ParseBool(string_view text) {
  string lower(text);
  for (char& c : lower) {
    c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  const auto is_prefix_of = [&](string_view word, std::size_t least) {
    return lower.size() >= least && word.starts_with(lower);
  };
  if (is_prefix_of("true", 1) || is_prefix_of("yes", 1) || is_prefix_of("on", 2) || lower == "1") {
    return true;
  }
  if (is_prefix_of("false", 1) || is_prefix_of("no", 1) || is_prefix_of("off", 2) || lower == "0") {
    return false;
  }
  return std::nullopt;
}

bool IsNumberIn(string_view text, const NumberRange& range) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() && number >= range.low &&
         number <= range.high;
}

// The valid values as a sentence if `value` is none of them, else "".
string ValueTrouble(string_view name, string_view value) {
  if ((name == "host" || name == "hostaddr") && value.find(',') != string_view::npos) {
    return "A server has one host: create a server for each datanode.";
  }
  if (name == kPasswordRule && !ParseBool(value)) {
    return "Valid values are Boolean: true or false.";
  }
  for (const NumberRange& range : kNumbers) {
    if (name == range.name && !IsNumberIn(value, range)) {
      return "Valid values are integers from " + std::to_string(range.low) + " to " +
             std::to_string(range.high) + ".";
    }
  }
  if (name == "sslmode" && !Contains(kSslModes, value)) {
    return "Valid values are \"disable\", \"allow\", \"prefer\", \"require\", \"verify-ca\" and "
           "\"verify-full\".";
  }
  if (name == "gssencmode" && !Contains(kGssEncModes, value)) {
    return "Valid values are \"disable\", \"prefer\" and \"require\".";
  }
  return {};
}

// `owner` is put behind the option's name.
Status CheckValue(string_view name, string_view value, const string& owner) {
  const string trouble = ValueTrouble(name, value);
  if (trouble.empty()) {
    return Status::Ok();
  }
  return Status(sqlstate::kInvalidParameter,
                "invalid value for option " + Quoted(name) + owner + ": " + Quoted(value), trouble);
}

// --- completion -------------------------------------------------------------------------------

using OptionMap = std::map<string, string, std::less<>>;

string ValueOf(const OptionMap& options, string_view name) {
  const auto found = options.find(name);
  return found == options.end() ? string() : found->second;
}

// Adds those of `options` that may stand in `context`. Empty ones are as good as absent to libpq.
void AddAccepted(const std::vector<KnownOption>& known, OptionContext context,
                 const Options& options, OptionMap* out) {
  for (const auto& [name, value] : options) {
    if (!value.empty() && IsConnectionOption(known, context, name)) {
      (*out)[name] = value;
    }
  }
}

// What the accepted options ask for and a pooled, lent connection cannot give.
Status CheckAccepted(const MappingSource& source, const OptionMap& options) {
  const string node = "datanode " + Quoted(source.node_name);
  for (const auto& [name, value] : source.server_options) {
    if (name == "service" && !value.empty()) {
      return Status(sqlstate::kFeatureNotSupported, node + " is defined by a service file", "",
                    "Replace the option \"service\" of the server by host, port and dbname.");
    }
  }
  for (const auto& [name, value] : options) {
    Status status = CheckValue(name, value, " of " + node);
    if (!status.ok()) {
      return status;
    }
  }
  string_view option;
  if (DemandsTls(ValueOf(options, "sslmode"))) {
    option = "sslmode";
  } else if (ValueOf(options, "channel_binding") == "require") {
    option = "channel_binding";
  } else if (ValueOf(options, "gssencmode") == "require") {
    option = "gssencmode";
  }
  if (!option.empty()) {
    return Status(sqlstate::kFeatureNotSupported,
                  node + " demands " + (option == "gssencmode" ? "GSSAPI encryption" : "TLS") +
                      ", which a lent connection cannot carry",
                  "",
                  "Reach the datanode over a Unix socket, a VPN or a tunnel, and set the option " +
                      Quoted(option) + " of the server to \"disable\".");
  }
  return Status::Ok();
}

// The user's word, else ours, else what is compiled into libpq; the encryption modes are ours.
Options Complete(const std::vector<KnownOption>& known, const MappingSource& source,
                 OptionMap options) {
  string settings = kOverridable;
  if (const string own = ValueOf(options, "options"); !own.empty()) {
    settings += " " + own;
    // A backslash at its end, of which the server would make nothing, would join what follows to
    // it.
    const std::size_t others = settings.find_last_not_of('\\') + 1;
    if ((settings.size() - others) % 2 != 0) {
      settings.pop_back();
    }
  }
  options["options"] = settings + kFixed;
  options["sslmode"] = "disable";
  options["gssencmode"] = "disable";
  options["client_encoding"] = source.client_encoding;

  const OptionMap defaults = {
      {"passfile", kNoPassfile},     {"application_name", "polarx_pooler/" + source.database},
      {"keepalives", "1"},           {"keepalives_idle", "30"},
      {"keepalives_interval", "10"}, {"keepalives_count", "3"},
      {"tcp_user_timeout", "30000"},
  };
  options.insert(defaults.begin(), defaults.end());

  Options result;
  for (const KnownOption& option : known) {
    string value = ValueOf(options, option.keyword);
    if (value.empty()) {
      value = option.default_value;
    }
    if (!value.empty()) {
      result.emplace_back(option.keyword, std::move(value));
    }
  }
  std::sort(result.begin(), result.end());
  return result;
}

}  // namespace

Status ValidateOption(const std::vector<KnownOption>& known, OptionContext context,
                      string_view name, string_view value) {
  if (!Contains(ValidNames(known, context), name)) {
    return InvalidName(known, context, name);
  }
  return CheckValue(name, value, "");
}

bool DemandsTls(string_view sslmode) {
  return sslmode == "require" || sslmode == "verify-ca" || sslmode == "verify-full";
}

MappingDefinition CompleteMapping(const std::vector<KnownOption>& known,
                                  const MappingSource& source) {
  MappingDefinition result;
  if (known.empty()) {  // an empty list would connect as whoever runs the server
    result.status = Status(sqlstate::kInternalError, "connection options of libpq are not known");
    return result;
  }
  OptionMap options;
  AddAccepted(known, OptionContext::kServer, source.server_options, &options);
  AddAccepted(known, OptionContext::kUserMapping, source.mapping_options, &options);
  result.status = CheckAccepted(source, options);
  if (!result.status.ok()) {
    return result;
  }
  const auto not_required = [](const auto& option) {
    return option.first == kPasswordRule && ParseBool(option.second) == false;
  };
  const bool restricted =
      !source.superuser &&
      std::none_of(source.mapping_options.begin(), source.mapping_options.end(), not_required);
  const bool has_password = options.contains("password");
  if (restricted && !has_password) {
    result.status = Status(sqlstate::kPasswordRequired, "password is required",
                           "Non-superusers must provide a password in the user mapping.",
                           "Set the option \"password\" of the user mapping for server " +
                               Quoted(source.node_name) + ".");
    return result;
  }
  result.restricted = restricted;
  result.has_password = has_password;
  result.remote_user = options.try_emplace("user", source.local_user).first->second;
  result.remote_database = options.try_emplace("dbname", result.remote_user).first->second;
  result.options = Complete(known, source, std::move(options));
  return result;
}

}  // namespace polarx
