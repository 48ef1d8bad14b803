// A ping ends once for each node, whichever of its two ways answers, and in time.
#include "engine/ping_desk.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <utility>

namespace polarx {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr SessionId kSession = 3;
constexpr std::uint32_t kRequest = 17;
constexpr RoleId kRole = 10;
constexpr NodeId kFirst = 1, kSecond = 2;
const Status kBroken(sqlstate::kConnectionLost, "broken");

class PingDeskTest : public ::testing::Test, public PingDriver {
 protected:
  bool PingBySlot(PingId ping, NodeId node, RoleId role, TimePoint /*now*/) override {
    EXPECT_EQ(role, kRole);
    if (with_idle_slot_.contains(node)) {
      by_slot_[node] = ping;
    }
    return with_idle_slot_.contains(node);
  }
  bool PingByStartup(PingId ping, NodeId node, TimePoint deadline,
                     std::chrono::seconds /*limit*/) override {
    by_startup_[node] = ping;
    deadline_ = deadline;
    return names_.contains(node);
  }
  void OnPinged(NodeId node, const Status& status, double /*milliseconds*/,
                TimePoint /*now*/) override {
    pinged_.emplace_back(node, status.ok());
  }
  std::string NameOf(NodeId node) override {
    const auto found = names_.find(node);
    return found == names_.end() ? "" : found->second;
  }
  void OnAllPinged(SessionId session, std::uint32_t request,
                   std::vector<protocol::Row> rows) override {
    EXPECT_EQ(session, kSession);
    EXPECT_EQ(request, kRequest);
    ++answers_;
    rows_ = std::move(rows);
  }
  void Begin(const std::vector<NodeId>& nodes) {
    desk_.Begin(kSession, kRequest, nodes, kRole, seconds(10), now_);
  }

  std::map<NodeId, std::string> names_ = {{kFirst, "dn1"}, {kSecond, "dn2"}};
  std::set<NodeId> with_idle_slot_;
  std::map<NodeId, PingId> by_slot_, by_startup_;
  TimePoint deadline_{};
  std::vector<std::pair<NodeId, bool>> pinged_;
  int answers_ = 0;
  std::vector<protocol::Row> rows_;
  TimePoint now_ = TimePoint{} + std::chrono::hours(1);
  PingDesk desk_{this};
};

TEST_F(PingDeskTest, OfNoNodeIsAnsweredAtOnce) {
  Begin({});
  EXPECT_EQ(answers_, 1);
  EXPECT_TRUE(rows_.empty());
  EXPECT_EQ(desk_.NextDeadline(), kNever);
}

TEST_F(PingDeskTest, AsksAnIdleSlotElseByStartupAndAnswersWhenAllHave) {
  with_idle_slot_ = {kFirst};
  Begin({kFirst, kSecond});
  EXPECT_EQ(by_startup_.count(kFirst), 0u);
  EXPECT_EQ(deadline_, now_ + seconds(10));
  desk_.OnStartupAnswer(by_startup_.at(kSecond), kBroken, 0, now_);
  EXPECT_EQ(answers_, 0);
  desk_.OnSlotAnswer(by_slot_.at(kFirst), Status(), now_ + milliseconds(5));
  ASSERT_EQ(answers_, 1);
  EXPECT_EQ(rows_.at(0), (protocol::Row{"dn1", "t", "5.000000", std::nullopt}));
  EXPECT_EQ(rows_.at(1), (protocol::Row{"dn2", "f", std::nullopt, "broken"}));
  EXPECT_EQ(pinged_, (std::vector<std::pair<NodeId, bool>>{{kSecond, false}, {kFirst, true}}));
  EXPECT_EQ(desk_.NextDeadline(), kNever) << "nothing is left behind";
}

TEST_F(PingDeskTest, ASlotThatBreaksIsNotTheNode) {
  with_idle_slot_ = {kFirst};
  Begin({kFirst});
  desk_.OnSlotAnswer(by_slot_.at(kFirst), kBroken, now_);
  ASSERT_EQ(by_startup_.count(kFirst), 1u);
  desk_.OnSlotAnswer(by_slot_.at(kFirst), kBroken, now_);  // once is enough
  EXPECT_EQ(answers_, 0);
  desk_.OnStartupAnswer(by_startup_.at(kFirst), Status(), 2, now_);
  EXPECT_EQ(answers_, 1);
  EXPECT_EQ(rows_.at(0).at(1), "t");
}

TEST_F(PingDeskTest, ASilentSlotIsGivenHalfOfTheTimeAndMayAnswerLate) {
  with_idle_slot_ = {kFirst};
  Begin({kFirst});
  EXPECT_EQ(desk_.NextDeadline(), now_ + seconds(5));
  desk_.Expire(now_ + seconds(4));
  EXPECT_TRUE(by_startup_.empty());
  desk_.Expire(now_ + seconds(5));
  EXPECT_EQ(by_startup_.count(kFirst), 1u);
  desk_.OnSlotAnswer(by_slot_.at(kFirst), Status(), now_ + seconds(6));
  EXPECT_EQ(answers_, 1);
  desk_.OnStartupAnswer(by_startup_.at(kFirst), kBroken, 0, now_ + seconds(7));
  EXPECT_EQ(answers_, 1);
  EXPECT_EQ(pinged_.size(), 1u) << "one end";
}

TEST_F(PingDeskTest, AStartupThatIsStuckIsGivenUp) {
  Begin({kFirst, kSecond});
  desk_.OnStartupAnswer(by_startup_.at(kFirst), Status(), 2, now_);
  const TimePoint given_up = desk_.NextDeadline();
  EXPECT_GT(given_up, now_ + seconds(10));
  EXPECT_LE(given_up, now_ + seconds(11));
  desk_.Expire(given_up);
  ASSERT_EQ(answers_, 1);
  EXPECT_EQ(rows_.at(1).at(1), "f");
  EXPECT_EQ(rows_.at(1).at(3),
            "no answer from datanode \"dn2\": pooler.pooler_dn_set_timeout (10 s) is over");
  desk_.OnStartupAnswer(by_startup_.at(kSecond), Status(), 2, given_up);
  EXPECT_EQ(answers_, 1);
}

TEST_F(PingDeskTest, ANodeThatIsNotKnownIsTold) {
  Begin({kFirst, kSecond + 1});
  desk_.OnStartupAnswer(by_startup_.at(kFirst), Status(), 2, now_);
  ASSERT_EQ(answers_, 1);
  EXPECT_EQ(rows_.at(1), (protocol::Row{std::nullopt, "f", std::nullopt,
                                        "datanode is not known to the pooler"}));
}

}  // namespace
}  // namespace polarx
