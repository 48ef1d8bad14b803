// Which options may stand where, and the complete option list that a connection is opened with.
#include "core/conninfo.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace polarx {
namespace {

constexpr OptionContext kServer = OptionContext::kServer;
constexpr OptionContext kMapping = OptionContext::kUserMapping;

KnownOption Known(const char* keyword, const char* default_value = "") {
  return {.keyword = keyword, .default_value = default_value};
}

// A libpq of our own, so that the tests do not depend on the installed one.
std::vector<KnownOption> Libpq() {
  return {Known("service"),
          Known("user"),
          {.keyword = "password", .secret = true},
          Known("passfile"),
          Known("channel_binding", "prefer"),
          Known("connect_timeout"),
          Known("dbname"),
          Known("host"),
          Known("hostaddr"),
          Known("port", "5432"),
          Known("client_encoding"),
          Known("options"),
          Known("application_name"),
          Known("fallback_application_name"),
          Known("keepalives"),
          Known("keepalives_idle"),
          Known("keepalives_interval"),
          Known("keepalives_count"),
          Known("tcp_user_timeout"),
          Known("sslmode", "prefer"),
          Known("sslcert"),
          Known("sslkey"),
          {.keyword = "sslpassword", .secret = true},
          Known("gssencmode", "prefer"),
          {.keyword = "replication", .debug = true},
          Known("target_session_attrs", "any")};
}

MappingSource Source() {
  return {.node_name = "dn1",
          .server_options = {{"dbname", "app"}, {"host", "10.0.0.1"}, {"port", "6000"}},
          .mapping_options = {{"password", "s3cret"}, {"user", "remote"}},
          .local_user = "alice",
          .superuser = false,
          .database = "coord",
          .client_encoding = "UTF8"};
}

std::string Value(const MappingDefinition& mapping, std::string_view keyword) {
  const auto found = std::find_if(mapping.options.begin(), mapping.options.end(),
                                  [&](const auto& option) { return option.first == keyword; });
  return found == mapping.options.end() ? "(none)" : found->second;
}

std::string SqlstateOf(const MappingSource& source) {
  return CompleteMapping(Libpq(), source).status.sqlstate();
}

// --- validation -------------------------------------------------------------------------------

struct Case {
  OptionContext context;
  const char* name;
  const char* value;
  const char* sqlstate;  // "" for accepted
};

void Check(std::initializer_list<Case> cases) {
  for (const Case& c : cases) {
    EXPECT_EQ(ValidateOption(Libpq(), c.context, c.name, c.value).sqlstate(), c.sqlstate)
        << (c.context == kServer ? "server " : "mapping ") << c.name << " = " << c.value;
  }
}

TEST(ValidateOptionTest, WhatBelongsToTheNodeStandsInServersOnly) {
  for (const char* name : {"host", "dbname", "options", "application_name", "sslmode"}) {
    Check({{kServer, name, "disable", ""}, {kMapping, name, "disable", "HV00D"}});
  }
  for (const char* name : {"port", "max_pool_size", "min_pool_size", "min_free_size"}) {
    Check({{kServer, name, "7", ""}, {kMapping, name, "7", "HV00D"}});
  }
}

TEST(ValidateOptionTest, WhatBelongsToTheRoleStandsInMappingsOnly) {
  for (const char* name :
       {"user", "password", "passfile", "sslcert", "sslkey", "sslpassword", "password_required"}) {
    Check({{kServer, name, "true", "HV00D"}, {kMapping, name, "true", ""}});
  }
}

TEST(ValidateOptionTest, WhatThePoolerDecidesStandsNowhere) {
  for (const char* name : {"client_encoding", "fallback_application_name", "service", "replication",
                           "use_remote_estimate", "HOST", ""}) {
    Check({{kServer, name, "x", "HV00D"}, {kMapping, name, "x", "HV00D"}});
  }
}

TEST(ValidateOptionTest, NumbersHaveTheirRanges) {
  Check({{kServer, "max_pool_size", "1", ""},
         {kServer, "max_pool_size", "65535", ""},
         {kServer, "max_pool_size", "0", "22023"},
         {kServer, "max_pool_size", "65536", "22023"},
         {kServer, "min_pool_size", "0", ""},
         {kServer, "min_pool_size", "-1", "22023"},
         {kServer, "min_free_size", "0", ""},
         {kServer, "min_free_size", "65536", "22023"},
         {kServer, "port", "0", "22023"},
         {kServer, "port", "65535", ""},
         {kServer, "port", "65536", "22023"},
         {kServer, "port", "", "22023"},
         {kServer, "port", "5432,5433", "22023"},
         {kServer, "port", "12x", "22023"},
         {kServer, "port", "99999999999999999999", "22023"},
         {kServer, "keepalives_idle", "soon", "22023"},
         {kServer, "tcp_user_timeout", "-1", ""},
         {kServer, "connect_timeout", "2147483647", ""}});
}

TEST(ValidateOptionTest, OneHostPerServer) {
  Check({{kServer, "host", "a,b", "22023"},
         {kServer, "hostaddr", "10.0.0.1,10.0.0.2", "22023"},
         {kServer, "host", "/var/run/postgresql", ""}});
}

TEST(ValidateOptionTest, MisspeltModesAreRefusedInsteadOfTakenAsNoEncryption) {
  for (const char* mode : {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}) {
    Check({{kServer, "sslmode", mode, ""}});
  }
  Check({{kServer, "sslmode", "requre", "22023"},
         {kServer, "sslmode", "", "22023"},
         {kServer, "gssencmode", "require", ""},
         {kServer, "gssencmode", "allow", "22023"}});
}

TEST(ValidateOptionTest, BooleansAreThoseOfTheServer) {
  for (const char* value : {"true", "t", "TRU", "yes", "Y", "on", "1", "false", "f", "no", "N",
                            "off", "of", "OFF", "0"}) {
    Check({{kMapping, "password_required", value, ""}});
  }
  for (const char* value : {"", "o", "onn", "offs", "2", "10", " true", "truely", "maybe"}) {
    Check({{kMapping, "password_required", value, "22023"}});
  }
}

TEST(ValidateOptionTest, ErrorsNameOptionValueAndWhatIsValid) {
  const Status status = ValidateOption(Libpq(), kServer, "port", "x");
  EXPECT_EQ(status.message(), "invalid value for option \"port\": \"x\"");
  EXPECT_EQ(status.detail(), "Valid values are integers from 1 to 65535.");
}

TEST(ValidateOptionTest, HintsNameTheNearestOptionOrTheOtherPlaceOrAll) {
  const auto hint = [](OptionContext context, const char* name) {
    const Status status = ValidateOption(Libpq(), context, name, "x");
    EXPECT_EQ(status.message(), "invalid option \"" + std::string(name) + "\"");
    return status.hint();
  };
  EXPECT_EQ(hint(kServer, "hots"), "Perhaps you meant the option \"host\".");
  EXPECT_EQ(hint(kServer, "Port"), "Perhaps you meant the option \"port\".");
  EXPECT_EQ(hint(kServer, "max_pol_sizes"), "Perhaps you meant the option \"max_pool_size\".");
  EXPECT_EQ(hint(kMapping, "pasword"), "Perhaps you meant the option \"password\".");
  EXPECT_EQ(hint(kServer, "password"), "The option \"password\" belongs to the user mapping.");
  EXPECT_EQ(hint(kMapping, "host"), "The option \"host\" belongs to the server.");
  EXPECT_EQ(hint(kMapping, "zzzzzzzzzz"),
            "Valid options in this context are: user, password, passfile, sslcert, sslkey, "
            "sslpassword, password_required");
  EXPECT_EQ(hint(kServer, "q"),
            "Valid options in this context are: channel_binding, connect_timeout, dbname, host, "
            "hostaddr, port, options, application_name, keepalives, keepalives_idle, "
            "keepalives_interval, keepalives_count, tcp_user_timeout, sslmode, gssencmode, "
            "target_session_attrs, max_pool_size, min_pool_size, min_free_size");
}

TEST(DemandsTlsTest, OnlyModesThatInsistDemandIt) {
  for (const char* mode : {"require", "verify-ca", "verify-full"}) {
    EXPECT_TRUE(DemandsTls(mode)) << mode;
  }
  for (const char* mode : {"", "disable", "allow", "prefer"}) {
    EXPECT_FALSE(DemandsTls(mode)) << mode;
  }
}

// --- completion -------------------------------------------------------------------------------

TEST(CompleteMappingTest, GivesTheWholeListInOrder) {
  const MappingDefinition mapping = CompleteMapping(Libpq(), Source());
  ASSERT_TRUE(mapping.status.ok()) << mapping.status.message();
  const Options want = {
      {"application_name", "polarx_pooler/coord"},
      {"channel_binding", "prefer"},
      {"client_encoding", "UTF8"},
      {"dbname", "app"},
      {"gssencmode", "disable"},
      {"host", "10.0.0.1"},
      {"keepalives", "1"},
      {"keepalives_count", "3"},
      {"keepalives_idle", "30"},
      {"keepalives_interval", "10"},
      {"options",
       "-c client_connection_check_interval=2000 "
       "-c DateStyle=ISO -c IntervalStyle=postgres -c extra_float_digits=3 "
       "-c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0"},
      {"passfile", "/dev/null/none"},
      {"password", "s3cret"},
      {"port", "6000"},
      {"sslmode", "disable"},
      {"target_session_attrs", "any"},
      {"tcp_user_timeout", "30000"},
      {"user", "remote"},
  };
  EXPECT_EQ(mapping.options, want);
  EXPECT_EQ(mapping.remote_user, "remote");
  EXPECT_EQ(mapping.remote_database, "app");
  EXPECT_TRUE(mapping.restricted);
  EXPECT_TRUE(mapping.has_password);
}

TEST(CompleteMappingTest, UserAndDatabaseHaveDefaults) {
  MappingSource source = Source();
  source.server_options = {{"dbname", ""}, {"port", ""}};
  source.mapping_options = {{"password", "x"}, {"user", ""}};
  const MappingDefinition mapping = CompleteMapping(Libpq(), source);
  ASSERT_TRUE(mapping.status.ok()) << mapping.status.message();
  EXPECT_EQ(mapping.remote_user, "alice");
  EXPECT_EQ(mapping.remote_database, "alice");
  EXPECT_EQ(Value(mapping, "user"), "alice");
  EXPECT_EQ(Value(mapping, "dbname"), "alice");
  EXPECT_EQ(Value(mapping, "port"), "5432");
  EXPECT_EQ(Value(mapping, "host"), "(none)");

  source.mapping_options.back().second = "bob";
  EXPECT_EQ(CompleteMapping(Libpq(), source).remote_database, "bob");
}

TEST(CompleteMappingTest, ABackslashAtTheEndDoesNotReachWhatFollows) {
  for (const auto& [options, kept] :
       std::vector<std::pair<std::string, std::string>>{{"-c a=b\\", "-c a=b -c DateStyle"},
                                                        {"-c a=b\\\\", "-c a=b\\\\ -c DateStyle"},
                                                        {"\\", " -c DateStyle"}}) {
    MappingSource source = Source();
    source.server_options = {{"options", options}};
    const std::string all = Value(CompleteMapping(Libpq(), source), "options");
    EXPECT_NE(all.find(kept), std::string::npos) << all;
  }
}

TEST(CompleteMappingTest, TheUsersOwnSettingsComeLastAndStay) {
  MappingSource source = Source();
  source.server_options = {{"application_name", "mine"},
                           {"keepalives_idle", "5"},
                           {"options", "-c DateStyle=German -c search_path=a\\ b"},
                           {"tcp_user_timeout", "0"}};
  source.mapping_options.emplace_back("passfile", "/etc/pass");
  const MappingDefinition mapping = CompleteMapping(Libpq(), source);
  ASSERT_TRUE(mapping.status.ok()) << mapping.status.message();
  EXPECT_EQ(Value(mapping, "application_name"), "mine");
  EXPECT_EQ(Value(mapping, "keepalives_idle"), "5");
  EXPECT_EQ(Value(mapping, "keepalives_count"), "3");
  EXPECT_EQ(Value(mapping, "tcp_user_timeout"), "0");
  EXPECT_EQ(Value(mapping, "passfile"), "/etc/pass");
  EXPECT_EQ(Value(mapping, "options"),
            "-c client_connection_check_interval=2000 "
            "-c DateStyle=German -c search_path=a\\ b "
            "-c DateStyle=ISO -c IntervalStyle=postgres -c extra_float_digits=3 "
            "-c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0");
}

TEST(CompleteMappingTest, OptionsInTheWrongPlaceHaveNoEffect) {
  MappingSource source = Source();
  source.server_options = {{"client_encoding", "LATIN1"},   {"fetch_size", "100"},
                           {"max_pool_size", "0"},          {"password", "servers"},
                           {"password_required", "false"},  {"replication", "database"},
                           {"use_remote_estimate", "true"}, {"user", "root"}};
  source.mapping_options = {{"host", "elsewhere"}, {"options", "-c role=root"}, {"password", "p"}};
  const MappingDefinition mapping = CompleteMapping(Libpq(), source);
  ASSERT_TRUE(mapping.status.ok()) << mapping.status.message();
  EXPECT_TRUE(mapping.restricted);
  EXPECT_EQ(mapping.remote_user, "alice");
  EXPECT_EQ(Value(mapping, "password"), "p");
  EXPECT_EQ(Value(mapping, "client_encoding"), "UTF8");
  EXPECT_EQ(Value(mapping, "host"), "(none)");
  EXPECT_EQ(Value(mapping, "options").find("role"), std::string::npos);
  for (const char* name :
       {"replication", "fetch_size", "use_remote_estimate", "max_pool_size", "password_required"}) {
    EXPECT_EQ(Value(mapping, name), "(none)") << name;
  }
}

TEST(CompleteMappingTest, OnlyOptionsThatLibpqKnowsArePassed) {
  std::vector<KnownOption> known = Libpq();
  std::erase_if(known, [](const KnownOption& option) {
    return option.keyword == "tcp_user_timeout" || option.keyword == "gssencmode";
  });
  const MappingDefinition mapping = CompleteMapping(known, Source());
  EXPECT_EQ(Value(mapping, "tcp_user_timeout"), "(none)");
  EXPECT_EQ(Value(mapping, "gssencmode"), "(none)");
  EXPECT_EQ(Value(mapping, "sslmode"), "disable");
}

TEST(CompleteMappingTest, WithoutKnownOptionsThereIsNoConnection) {
  MappingSource source = Source();
  source.superuser = true;
  EXPECT_EQ(CompleteMapping({}, source).status.sqlstate(), "XX000");
}

TEST(CompleteMappingTest, PasswordRuleAppliesToWhoIsNeitherSuperuserNorExempt) {
  struct Row {
    bool superuser;
    Options mapping;
    bool ok;
    bool restricted;
    bool has_password;
  };
  for (const Row& row :
       {Row{false, {{"password", "x"}}, true, true, true}, Row{false, {}, false, true, false},
        Row{false, {{"password", ""}}, false, true, false},
        Row{false, {{"password_required", "false"}}, true, false, false},
        Row{false, {{"password_required", "off"}}, true, false, false},
        Row{false, {{"password_required", "true"}}, false, true, false},
        Row{false, {{"password_required", "nonsense"}}, false, true, false},
        Row{true, {}, true, false, false}, Row{true, {{"password", "x"}}, true, false, true}}) {
    MappingSource source = Source();
    source.superuser = row.superuser;
    source.mapping_options = row.mapping;
    const MappingDefinition mapping = CompleteMapping(Libpq(), source);
    EXPECT_EQ(mapping.status.ok(), row.ok) << testing::PrintToString(row.mapping);
    EXPECT_EQ(mapping.restricted, row.restricted) << testing::PrintToString(row.mapping);
    EXPECT_EQ(mapping.has_password, row.has_password) << testing::PrintToString(row.mapping);
    if (!row.ok) {
      EXPECT_EQ(mapping.status.sqlstate(), "2F003");
      EXPECT_TRUE(mapping.options.empty());
    }
  }
}

TEST(CompleteMappingTest, AMissingPasswordIsReportedAsTheForeignDataWrapperDoes) {
  MappingSource source = Source();
  source.mapping_options.clear();
  const Status status = CompleteMapping(Libpq(), source).status;
  EXPECT_EQ(status.message(), "password is required");
  EXPECT_EQ(status.detail(), "Non-superusers must provide a password in the user mapping.");
  EXPECT_NE(status.hint().find("\"dn1\""), std::string::npos);
}

TEST(CompleteMappingTest, EncryptionThatIsDemandedIsRefusedNotDowngraded) {
  struct Row {
    const char* name;
    const char* value;
    const char* message;  // "" where it is no demand
  };
  const char* tls = "datanode \"dn1\" demands TLS, which a lent connection cannot carry";
  const char* gss =
      "datanode \"dn1\" demands GSSAPI encryption, which a lent connection cannot carry";
  for (const Row& row : {Row{"sslmode", "require", tls}, Row{"sslmode", "verify-ca", tls},
                         Row{"sslmode", "verify-full", tls}, Row{"channel_binding", "require", tls},
                         Row{"gssencmode", "require", gss}, Row{"sslmode", "prefer", ""},
                         Row{"sslmode", "allow", ""}, Row{"sslmode", "disable", ""},
                         Row{"channel_binding", "disable", ""}, Row{"gssencmode", "prefer", ""}}) {
    MappingSource source = Source();
    source.server_options = {{row.name, row.value}};
    const MappingDefinition mapping = CompleteMapping(Libpq(), source);
    EXPECT_EQ(mapping.status.message(), row.message) << row.name << " = " << row.value;
    if (!mapping.status.ok()) {
      EXPECT_EQ(mapping.status.sqlstate(), "0A000");
      EXPECT_NE(mapping.status.hint().find("Unix socket, a VPN or a tunnel"), std::string::npos);
      EXPECT_NE(mapping.status.hint().find(row.name), std::string::npos);
    } else {
      EXPECT_EQ(Value(mapping, "sslmode"), "disable");
      EXPECT_EQ(Value(mapping, "gssencmode"), "disable");
    }
  }
}

TEST(CompleteMappingTest, ServersOfOtherWrappersAreHeldToTheSameValues) {
  for (const auto& option : Options{{"host", "a,b"}, {"sslmode", "requre"}, {"port", "http"}}) {
    MappingSource source = Source();
    source.server_options = {option};
    EXPECT_EQ(SqlstateOf(source), "22023") << option.first;
    EXPECT_NE(CompleteMapping(Libpq(), source).status.message().find("datanode \"dn1\""),
              std::string::npos);
  }
}

TEST(CompleteMappingTest, AServiceIsRefusedRatherThanIgnored) {
  MappingSource source = Source();
  source.server_options = {{"service", "prod"}};
  EXPECT_EQ(SqlstateOf(source), "0A000");
  source.server_options = {{"service", ""}};
  EXPECT_EQ(SqlstateOf(source), "");
}

}  // namespace
}  // namespace polarx
