// Fuzz target: options of a server and a user mapping, as the validator and the pooler worker read
// them. libpq must see what was made of them, and nothing of the environment.
#include <libpq-fe.h>

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include "fuzz.h"
#include "core/conninfo.h"
#include "engine/environment.h"
#include "engine/libpq_options.h"

namespace polarx {
namespace {

using fuzz::Require;

constexpr const char* kNowhere = "/dev/null/none";

// The variables that libpq knows are set to what would be noticed, then removed as the pooler does.
std::vector<KnownOption> Prepare() {
  PQconninfoOption* options = PQconninfoParse("", nullptr);
  for (const PQconninfoOption* option = options; option->keyword != nullptr; ++option) {
    if (option->envvar != nullptr) {
      ::setenv(option->envvar, "out_of_the_environment", 1);
    }
  }
  PQconninfoFree(options);
  RemoveLibpqEnvironment();
  return KnownLibpqOptions();
}

std::string_view NextLine(std::string_view* text) {
  const std::size_t end = std::min(text->find('\n'), text->size());
  const std::string_view line = text->substr(0, end);
  text->remove_prefix(std::min(end + 1, text->size()));
  return line;
}

// Words of a startup packet's options, as the server divides them.
std::vector<std::string> Words(std::string_view options) {
  std::vector<std::string> words;
  bool inside = false;
  for (std::size_t i = 0; i < options.size(); ++i) {
    const bool space = std::string_view(" \t\n\v\f\r").find(options[i]) != std::string_view::npos;
    if (space) {
      inside = false;
      continue;
    }
    if (!inside) {
      words.emplace_back();
      inside = true;
    }
    if (options[i] == '\\' && ++i == options.size()) {
      break;
    }
    words.back() += options[i];
  }
  return words;
}

void CheckSettings(const std::string& options) {
  const std::vector<std::string> last = {
      "-c", "DateStyle=ISO",         "-c", "IntervalStyle=postgres",
      "-c", "extra_float_digits=3",  "-c", "idle_in_transaction_session_timeout=0",
      "-c", "idle_session_timeout=0"};
  const std::vector<std::string> words = Words(options);
  Require(words.size() >= last.size() && std::equal(last.rbegin(), last.rend(), words.rbegin()),
          "the server reads the pooler's own settings last");
}

// libpq is given the list, with a place where no server can be.
void CheckLibpq(std::map<std::string, std::string> options) {
  options["host"] = options["passfile"] = kNowhere;
  options.erase("hostaddr");
  std::vector<const char*> keywords, values;
  for (const auto& [keyword, value] : options) {
    keywords.push_back(keyword.c_str());
    values.push_back(value.c_str());
  }
  keywords.push_back(nullptr);
  values.push_back(nullptr);
  const std::unique_ptr<PGconn, decltype(&PQfinish)> conn(
      PQconnectStartParams(keywords.data(), values.data(), 0), PQfinish);
  Require(conn != nullptr && PQstatus(conn.get()) == CONNECTION_BAD, "no server is there");
  const std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> used(PQconninfo(conn.get()),
                                                                          PQconninfoFree);
  Require(used != nullptr, "libpq takes every keyword");
  std::map<std::string, std::string> seen;
  for (const PQconninfoOption* option = used.get(); option->keyword != nullptr; ++option) {
    if (option->val != nullptr && option->val[0] != '\0') {
      seen.emplace(option->keyword, option->val);
    }
  }
  Require(seen == options, "libpq connects with the completed list and nothing else");
}

void CheckComplete(const std::vector<KnownOption>& known, const MappingSource& source,
                   const MappingDefinition& mapping) {
  const std::map<std::string, std::string> options(mapping.options.begin(), mapping.options.end());
  Require(options.size() == mapping.options.size() &&
              std::is_sorted(mapping.options.begin(), mapping.options.end()),
          "keywords are in order, each once");
  for (const auto& [keyword, value] : options) {
    const auto found =
        std::find_if(known.begin(), known.end(),
                     [&name = keyword](const auto& option) { return option.keyword == name; });
    Require(found != known.end() && !value.empty(), "keywords are libpq's, values not empty");
    Require(!found->debug || value == found->default_value, "no debug option is set");
    const bool host = keyword == "host" || keyword == "hostaddr";
    Require(!host || value.find(',') == std::string::npos, "one host");
  }
  const auto is = [&options](const char* keyword, std::string_view value) {
    const auto found = options.find(keyword);
    return found == options.end() ? value.empty() : found->second == value;
  };
  Require(is("sslmode", "disable") && is("gssencmode", "disable"), "a lent socket is plain");
  Require(is("service", "") && options.contains("passfile"), "no file gives an option");
  Require(is("client_encoding", source.client_encoding), "the coordinator's encoding");
  Require(is("user", mapping.remote_user) && is("dbname", mapping.remote_database),
          "the pool's names are those of the connection");
  Require(mapping.has_password == options.contains("password"), "has_password is true");
  Require(!mapping.restricted || mapping.has_password, "who is restricted has a password");
  Require(!source.superuser || !mapping.restricted, "a superuser is not restricted");
  CheckSettings(options.at("options"));
  CheckLibpq(options);
}

}  // namespace
}  // namespace polarx

// Lines: node, local user, database, "1" for a superuser, then options: s or m for server or
// mapping, name, =, value.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace polarx;
  static const std::vector<KnownOption> known = Prepare();
  const fuzz::DescriptorsKept kept;
  std::string text(fuzz::Text(data, size));
  std::erase(text, '\0');  // no name and no value in the catalog holds one
  std::string_view rest = text;
  MappingSource source;
  source.node_name = NextLine(&rest);
  source.local_user = std::string("u") + std::string(NextLine(&rest));
  source.database = NextLine(&rest);
  source.superuser = NextLine(&rest) == "1";
  source.client_encoding = "UTF8";
  bool valid = true;
  while (!rest.empty()) {
    const std::string_view line = NextLine(&rest);
    const bool server = line.starts_with('s');
    const std::size_t sign = line.find('=');
    if (line.empty() || sign == std::string_view::npos) {
      continue;
    }
    const std::string name(line.substr(1, sign - 1)), value(line.substr(sign + 1));
    const Status status = ValidateOption(
        known, server ? OptionContext::kServer : OptionContext::kUserMapping, name, value);
    Require(status.ok() || status.sqlstate() == "HV00D" ||
                status.sqlstate() == sqlstate::kInvalidParameter,
            "the validator's errors");
    Require(status.ok() || !status.detail().empty() || !status.hint().empty(), "with help");
    valid = valid && status.ok();
    (server ? source.server_options : source.mapping_options).emplace_back(name, value);
  }
  const MappingDefinition mapping = CompleteMapping(known, source);
  if (mapping.status.ok()) {
    CheckComplete(known, source, mapping);
  } else {
    Require(mapping.options.empty(), "what is refused has no options");
    Require(!valid || mapping.status.sqlstate() != sqlstate::kInvalidParameter,
            "what the validator lets in can be completed");
  }
  return 0;
}
