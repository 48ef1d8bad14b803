// Descriptors are counted, and refused before they run out.
#include "engine/descriptor_budget.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace polarx {
namespace {

TEST(DescriptorBudgetTest, RefusesWhileSomeAreLeftForWhoIsTurnedAway) {
  DescriptorBudget budget(30, 20);
  EXPECT_EQ(budget.used(), 20);
  budget.Take();
  EXPECT_TRUE(budget.RoomFor("a test").ok());
  budget.Take();
  EXPECT_TRUE(budget.RoomFor("a test").ok());
  budget.Take();
  const Status status = budget.RoomFor("a test");
  EXPECT_EQ(status.sqlstate(), "53000");
  EXPECT_EQ(status.message(), "pooler worker has no descriptor left for a test");
  EXPECT_EQ(status.detail(), "23 of 30 descriptors are in use.");
  EXPECT_NE(status.hint(), "");
  budget.GiveBack();
  EXPECT_TRUE(budget.RoomFor("a test").ok());
}

TEST(DescriptorBudgetTest, TellsWhyTheSystemRefuses) {
  const Status status = DescriptorBudget::Refused("a test", EMFILE);
  EXPECT_EQ(status.sqlstate(), "53000");
  EXPECT_EQ(status.detail().find("Too many open files; the process may have "), 0u);
}

}  // namespace
}  // namespace polarx
