// What kind of statement a text is.
#include "core/statement.h"

#include <gtest/gtest.h>

#include <ostream>
#include <string>

namespace polarx {

void PrintTo(StatementKind kind, std::ostream* out) { *out << static_cast<int>(kind); }

namespace {

constexpr StatementKind kPlain = StatementKind::kPlain;
constexpr StatementKind kControl = StatementKind::kTransactionControl;
constexpr StatementKind kCopy = StatementKind::kCopy;
constexpr StatementKind kOther = StatementKind::kOther;

struct Case {
  const char* sql;
  StatementKind want;
};

void Check(std::initializer_list<Case> cases) {
  for (const Case& c : cases) {
    EXPECT_EQ(ClassifyStatement(c.sql), c.want) << c.sql;
  }
}

TEST(StatementTest, QueriesAndChangesOfRowsArePlain) {
  Check({{"SELECT 1", kPlain},
         {"insert into t values (1)", kPlain},
         {"UPDATE t SET a = 1", kPlain},
         {"Delete From t", kPlain},
         {"MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE", kPlain},
         {"VALUES (1)", kPlain},
         {"TABLE t", kPlain},
         {"WITH a AS (SELECT 1) SELECT * FROM a", kPlain},
         {"SELECT'x'", kPlain},
         {"SELECT", kPlain}});
}

TEST(StatementTest, TransactionControlIsFound) {
  Check({{"BEGIN", kControl},
         {"start transaction read only", kControl},
         {"COMMIT", kControl},
         {"COMMIT PREPARED 'x'", kControl},
         {"END", kControl},
         {"ROLLBACK TO s", kControl},
         {"ABORT;", kControl},
         {"SAVEPOINT s", kControl},
         {"RELEASE s", kControl},
         {"PREPARE TRANSACTION 'x'", kControl},
         {"prepare\n-- a comment\n/* another */transaction 'x'", kControl}});
}

TEST(StatementTest, PreparingAStatementIsNotTransactionControl) {
  Check({{"PREPARE p AS SELECT 1", kOther},
         {"PREPARE transactions AS SELECT 1", kOther},
         {"PREPARETRANSACTION 'x'", kOther},
         {"PREPARE", kOther}});
}

TEST(StatementTest, CopyIsFound) {
  Check({{"COPY t FROM stdin", kCopy}, {"copy(SELECT 1) TO stdout", kCopy}});
}

TEST(StatementTest, TheRestIsOther) {
  Check({{"", kOther},
         {"  ;; ", kOther},
         {"VACUUM t", kOther},
         {"SET a = 1", kOther},
         {"CALL p()", kOther},
         {"\"select\"", kOther},
         {"EXPLAIN SELECT 1", kOther}});
}

TEST(StatementTest, AWordThatOnlyBeginsLikeAKeywordIsOther) {
  Check({{"selects", kOther},
         {"commit_", kOther},
         {"begin1", kOther},
         {"copy$", kOther},
         {"end\xc3\xa9", kOther},
         {"selec", kOther}});
}

TEST(StatementTest, WhatStandsInFrontIsSkipped) {
  Check({{" \t\r\n\f\vCOMMIT", kControl},
         {"-- SELECT\nCOMMIT", kControl},
         {"-- SELECT\rCOMMIT", kControl},
         {"/* SELECT */COMMIT", kControl},
         {"/* a /* nested */ SELECT */ COMMIT", kControl},
         {"/**/COMMIT", kControl},
         {"/*/ SELECT */COMMIT", kControl},
         {"/***/ COMMIT", kControl},
         {";; ;COMMIT", kControl},
         {"((SELECT 1) UNION SELECT 2)", kPlain},
         {"( /* x */ SELECT 1)", kPlain}});
}

TEST(StatementTest, ACommentThatNeverEndsHidesTheRest) {
  Check({{"/* COMMIT", kOther},
         {"/* /* */ COMMIT", kOther},
         {"/*", kOther},
         {"/*/", kOther},
         {"-- COMMIT", kOther},
         {"-", kOther},
         {"/", kOther},
         {"- COMMIT", kOther}});
}

TEST(StatementTest, AMillionNestedCommentsAreNoTrouble) {
  std::string sql;
  for (int i = 0; i < 1000000; ++i) {
    sql += "/*";
  }
  EXPECT_EQ(ClassifyStatement(sql), kOther);
  for (int i = 0; i < 1000000; ++i) {
    sql += "*/";
  }
  EXPECT_EQ(ClassifyStatement(sql + "COPY"), kCopy);
}

}  // namespace
}  // namespace polarx
