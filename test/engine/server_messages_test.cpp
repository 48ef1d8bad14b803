// What a server says, read without libpq.
#include "engine/server_messages.h"

#include <gtest/gtest.h>

#include <string>

namespace polarx {
namespace {

TEST(ServerMessagesTest, WholeNoticesNotificationsAndParametersAreUnasked) {
  std::string bytes;
  EXPECT_TRUE(AreUnasked(bytes));
  AppendMessage('N', "notice", &bytes);
  AppendMessage('A', "notification", &bytes);
  AppendParameter("TimeZone", "UTC", &bytes);
  EXPECT_TRUE(AreUnasked(bytes));
  for (std::size_t size = 1; size < bytes.size(); ++size) {
    const bool whole = size == 11 || size == 28;
    EXPECT_EQ(AreUnasked(std::string_view(bytes).substr(0, size)), whole) << size;
  }
}

TEST(ServerMessagesTest, WhatEndsAConnectionOrAnswersIsNotUnasked) {
  for (const char type : {'E', 'Z', 'C', 'R', '\0'}) {
    std::string bytes;
    AppendMessage('N', "notice", &bytes);
    AppendMessage(type, "I", &bytes);
    EXPECT_FALSE(AreUnasked(bytes)) << type;
  }
  EXPECT_FALSE(AreUnasked(std::string("N\0\0\0\3", 5))) << "no message is that short";
}

}  // namespace
}  // namespace polarx
