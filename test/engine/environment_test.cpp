// libpq's environment variables: which ones go, and that they come back.
#include "engine/environment.h"

#include <gtest/gtest.h>
#include <libpq-fe.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

namespace polarx {
namespace {

std::vector<std::string> Environment() {
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    all.emplace_back(*entry);
  }
  std::sort(all.begin(), all.end());
  return all;
}

// Names that libpq reads: those that it tells, and those that it does not.
std::vector<std::string> LibpqNames() {
  std::vector<std::string> names = {"PGSERVICEFILE", "PGSYSCONFDIR", "PGTZ",
                                    "PGDATESTYLE",   "PGGEQO",       "PGREQUIRESSL"};
  PQconninfoOption* options = PQconndefaults();
  for (PQconninfoOption* option = options; option != nullptr && option->keyword; ++option) {
    if (option->envvar != nullptr) {
      names.emplace_back(option->envvar);
    }
  }
  PQconninfoFree(options);
  return names;
}

class EnvironmentTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const std::string& name : LibpqNames()) {
      ::setenv(name.c_str(), "from the environment", 1);
    }
    ::setenv("PGDATA", "/data", 1);
    ::setenv("PGLOCALEDIR", "/locale", 1);
    ::setenv("PG_OOM_ADJUST_FILE", "/proc/self/oom_score_adj", 1);
    ::setenv("POOLER_TEST", "1", 1);
  }
  void TearDown() override {
    RemoveLibpqEnvironment();
    for (const char* name : {"PGDATA", "PGLOCALEDIR", "PG_OOM_ADJUST_FILE", "POOLER_TEST"}) {
      ::unsetenv(name);
    }
  }
  void ExpectOnlyLibpqsGone() {
    EXPECT_GE(LibpqNames().size(), 20u);
    for (const std::string& name : LibpqNames()) {
      EXPECT_EQ(::getenv(name.c_str()), nullptr) << name;
    }
    EXPECT_STREQ(::getenv("PGDATA"), "/data");
    EXPECT_STREQ(::getenv("PGLOCALEDIR"), "/locale");
    EXPECT_STREQ(::getenv("PG_OOM_ADJUST_FILE"), "/proc/self/oom_score_adj");
    EXPECT_STREQ(::getenv("POOLER_TEST"), "1");
    EXPECT_NE(::getenv("PATH"), nullptr);
  }
};

TEST_F(EnvironmentTest, RemoveTakesLibpqsVariablesOnly) {
  RemoveLibpqEnvironment();
  ExpectOnlyLibpqsGone();
}

TEST_F(EnvironmentTest, TheGuardPutsEverythingBack) {
  ::setenv("PGOPTIONS", "-c a=b=c", 1);
  ::setenv("PGHOST", "", 1);  // empty is not unset
  const std::vector<std::string> before = Environment();
  {
    LibpqEnvironmentGuard guard;
    ExpectOnlyLibpqsGone();
  }
  EXPECT_EQ(Environment(), before);
}

TEST_F(EnvironmentTest, TheGuardOverridesWhatWasSetMeanwhile) {
  {
    LibpqEnvironmentGuard guard;
    ::setenv("PGHOST", "meanwhile", 1);
  }
  EXPECT_STREQ(::getenv("PGHOST"), "from the environment");
}

TEST_F(EnvironmentTest, AGuardWithNothingToDoChangesNothing) {
  RemoveLibpqEnvironment();
  const std::vector<std::string> before = Environment();
  { LibpqEnvironmentGuard guard; }
  EXPECT_EQ(Environment(), before);
}

}  // namespace
}  // namespace polarx
