// What a datanode is asked about its processes, and how its answer is read.
#include "engine/blocking_query.h"

#include <gtest/gtest.h>

namespace polarx {
namespace {

using Blocked = std::vector<std::pair<int, int>>;

TEST(BlockingQuery, Statement) {
  const std::string statement = BlockingStatement({7, 12}, {7, 8, 12});
  EXPECT_NE(statement.find("unnest('{7,12}'::pg_catalog.int4[])"), std::string::npos);
  EXPECT_NE(statement.find("ALL ('{7,8,12}'::pg_catalog.int4[])"), std::string::npos);
}

TEST(BlockingQuery, Answer) {
  const struct {
    const char* text;
    Blocked blocked;
    std::vector<int> neighbours;
  } cases[] = {
      {"", {}, {}},
      {"|", {}, {}},
      {"1:2;|", {{1, 2}}, {}},
      {"1:2,3;4:1;|9;8;", {{1, 2}, {1, 3}, {4, 1}}, {9, 8}},
      {"1:0,3;|", {{1, 3}}, {}},     // a prepared transaction
      {"1:2;3:45", {{1, 2}}, {}},    // cut off
      {"1:2;|9;87", {{1, 2}}, {9}},  // likewise
      {"1:;2;:3;x:4;5:y;-1:6;7:-8;9:99999999999;1 :2;|x;-1;0;;", {}, {}},
      {"1:2|3;4:5;", {}, {3}},
      {";;|;;", {}, {}},
  };
  for (const auto& example : cases) {
    SCOPED_TRACE(example.text);
    const BlockingAnswer answer = ParseBlockingAnswer(example.text);
    EXPECT_EQ(answer.blocked, example.blocked);
    EXPECT_EQ(answer.neighbours, example.neighbours);
  }
}

}  // namespace
}  // namespace polarx
