// What the linked libpq says about its options, and whether it takes the list made from them.
#include "engine/libpq_options.h"

#include <gtest/gtest.h>
#include <libpq-fe.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>

namespace polarx {
namespace {

const KnownOption* Find(const std::vector<KnownOption>& known, std::string_view keyword) {
  const auto found = std::find_if(known.begin(), known.end(), [&](const KnownOption& option) {
    return option.keyword == keyword;
  });
  return found == known.end() ? nullptr : &*found;
}

class LibpqOptionsTest : public testing::Test {
 protected:
  ~LibpqOptionsTest() override {
    for (const char* name : {"PGPORT", "PGSSLMODE", "PGHOST", "PGSERVICE", "PGSERVICEFILE"}) {
      unsetenv(name);
    }
  }
};

TEST_F(LibpqOptionsTest, OptionsCarryTheMarksOfLibpq) {
  const std::vector<KnownOption> known = KnownLibpqOptions();
  struct Row {
    const char* keyword;
    bool secret;
    bool debug;
  };
  for (const Row& row : {Row{"host", false, false}, Row{"user", false, false},
                         Row{"password", true, false}, Row{"sslpassword", true, false},
                         Row{"replication", false, true}, Row{"service", false, false}}) {
    const KnownOption* option = Find(known, row.keyword);
    ASSERT_NE(option, nullptr) << row.keyword;
    EXPECT_EQ(option->secret, row.secret) << row.keyword;
    EXPECT_EQ(option->debug, row.debug) << row.keyword;
  }
}

TEST_F(LibpqOptionsTest, DefaultsComeFromNoEnvironmentOrFile) {
  setenv("PGPORT", "1111", 1);
  setenv("PGSSLMODE", "verify-full", 1);
  setenv("PGHOST", "elsewhere", 1);
  setenv("PGSERVICE", "missing", 1);
  setenv("PGSERVICEFILE", "/dev/null/none", 1);
  const std::vector<KnownOption> known = KnownLibpqOptions();
  ASSERT_FALSE(known.empty());
  EXPECT_EQ(Find(known, "port")->default_value, "5432");
  EXPECT_EQ(Find(known, "target_session_attrs")->default_value, "any");
  EXPECT_NE(Find(known, "sslmode")->default_value, "verify-full");
  EXPECT_EQ(Find(known, "host")->default_value, "");
  EXPECT_EQ(Find(known, "user")->default_value, "");
}

TEST_F(LibpqOptionsTest, LibpqTakesTheCompletedListWordForWord) {
  setenv("PGPORT", "1111", 1);
  setenv("PGSSLMODE", "verify-full", 1);
  const MappingDefinition mapping = CompleteMapping(
      KnownLibpqOptions(), {.node_name = "dn1",
                            .server_options = {{"dbname", "a=b"}, {"host", "/dev/null/none"}},
                            .mapping_options = {{"password", "x"}},
                            .local_user = "alice",
                            .superuser = false,
                            .database = "coord",
                            .client_encoding = "UTF8"});
  ASSERT_TRUE(mapping.status.ok()) << mapping.status.message();
  std::vector<const char*> keywords;
  std::vector<const char*> values;
  for (const auto& [keyword, value] : mapping.options) {
    keywords.push_back(keyword.c_str());
    values.push_back(value.c_str());
  }
  keywords.push_back(nullptr);
  values.push_back(nullptr);
  const std::unique_ptr<PGconn, decltype(&PQfinish)> connection(
      PQconnectStartParams(keywords.data(), values.data(), 0), PQfinish);
  ASSERT_NE(connection, nullptr);
  // Every option was understood if it got as far as the socket, which is in no directory.
  EXPECT_NE(std::string(PQerrorMessage(connection.get())).find("/dev/null/none/.s.PGSQL.5432"),
            std::string::npos)
      << PQerrorMessage(connection.get());

  const std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> used(
      PQconninfo(connection.get()), PQconninfoFree);
  std::map<std::string, std::string> seen;
  for (const PQconninfoOption* option = used.get(); option->keyword != nullptr; ++option) {
    if (option->val != nullptr && option->val[0] != '\0') {
      seen.emplace(option->keyword, option->val);
    }
  }
  const std::map<std::string, std::string> given(mapping.options.begin(), mapping.options.end());
  EXPECT_EQ(seen, given);
}

}  // namespace
}  // namespace polarx
