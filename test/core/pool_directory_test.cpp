// Which pools there are, who is led to which, and who is known, without anything else.
#include "core/pool_directory.h"

#include <gtest/gtest.h>

#include <chrono>

namespace polarx {
namespace {

using std::chrono::hours;
using std::chrono::minutes;

constexpr NodeId kNode = 1;
constexpr NodeId kOtherNode = 2;
constexpr RoleId kRole = 10;
constexpr RoleId kOtherRole = 11;

NodeDefinition NodeOf(NodeId id, const std::string& host = "127.0.0.1") {
  NodeDefinition node;
  node.id = id;
  node.name = "dn" + std::to_string(id);
  node.host = host;
  return node;
}

MappingDefinition MappingOf(NodeId node, RoleId role, const std::string& user,
                            const std::string& password = "secret") {
  MappingDefinition mapping;
  mapping.node = node;
  mapping.role = role;
  mapping.role_name = "role" + std::to_string(role);
  mapping.options = {{"password", password}, {"user", user}};
  mapping.remote_user = user;
  return mapping;
}

class PoolDirectoryTest : public ::testing::Test {
 protected:
  PoolDirectory::Changes Set(std::vector<MappingDefinition> mappings) {
    return directory_.SetCatalog({NodeOf(kNode), NodeOf(kOtherNode)}, std::move(mappings));
  }
  Pool* PoolOf(NodeId node, RoleId role) { return directory_.FindMapping(node, role)->pool; }
  bool Knows(RoleId role) {
    const auto known = directory_.KnownPairs(now_);
    return std::find(known.begin(), known.end(), MappingQuestion{kNode, role}) != known.end();
  }

  Settings settings_;
  PoolDirectory directory_{settings_};
  TimePoint now_{hours(100)};
};

TEST_F(PoolDirectoryTest, APoolIsItsNodeAndItsOptions) {
  const auto changes = Set({MappingOf(kNode, kRole, "alice"), MappingOf(kNode, kOtherRole, "alice"),
                            MappingOf(kOtherNode, kRole, "alice")});
  EXPECT_EQ(changes.added.size(), 2u);
  EXPECT_EQ(changes.opened.size(), 2u);
  EXPECT_EQ(PoolOf(kNode, kRole), PoolOf(kNode, kOtherRole));
  EXPECT_NE(PoolOf(kNode, kRole), PoolOf(kOtherNode, kRole));
  EXPECT_EQ(PoolOf(kNode, kRole)->mapped_roles, (std::vector<std::string>{"role10", "role11"}));
  const auto added = directory_.AddMapping(nullptr, MappingOf(kNode, 12, "alice", "other"));
  EXPECT_EQ(added.opened.size(), 1u) << "another secret is another pool";
  EXPECT_NE(PoolOf(kNode, 12), PoolOf(kNode, kRole));
}

TEST_F(PoolDirectoryTest, ARoleThatIsLedElsewhereIsNoLongerOneOfTheOldPool) {
  Set({MappingOf(kNode, kRole, "alice"), MappingOf(kNode, kOtherRole, "alice")});
  Pool* before = PoolOf(kNode, kRole);
  directory_.AddMapping(nullptr, MappingOf(kNode, kRole, "bob"));
  EXPECT_EQ(before->mapped_roles, std::vector<std::string>{"role11"});
  EXPECT_EQ(PoolOf(kNode, kRole)->mapped_roles, std::vector<std::string>{"role10"});
}

TEST_F(PoolDirectoryTest, APoolWithoutMappingIsRetiredOnceAndGoesWhenItIsEmpty) {
  Set({MappingOf(kNode, kRole, "alice")});
  Pool* pool = PoolOf(kNode, kRole);
  EXPECT_EQ(Set({MappingOf(kNode, kRole, "bob")}).retired, std::vector<Pool*>{pool});
  EXPECT_TRUE(pool->obsolete && pool->mapped_roles.empty());
  EXPECT_TRUE(Set({MappingOf(kNode, kRole, "alice")}).retired.size() == 1u) << "that of bob";
  EXPECT_NE(PoolOf(kNode, kRole), pool) << "a retired pool does not come back";
  pool->dirty = true;
  EXPECT_EQ(directory_.TakeEmptyPools().size(), 1u);
  EXPECT_TRUE(directory_.has_retired()) << "it is still to be looked at";
  pool->dirty = false;
  EXPECT_EQ(directory_.TakeEmptyPools().size(), 1u);
  EXPECT_FALSE(directory_.has_retired());
  EXPECT_EQ(directory_.FindNode(kNode)->pools.size(), 1u);
}

TEST_F(PoolDirectoryTest, ANodeGoesWithItsLastPool) {
  Set({MappingOf(kOtherNode, kRole, "alice")});
  EXPECT_EQ(directory_.SetCatalog({NodeOf(kNode)}, {}).retired.size(), 1u);
  EXPECT_TRUE(directory_.TakeEmptyNodes().empty());
  (void)directory_.TakeEmptyPools();
  EXPECT_EQ(directory_.TakeEmptyNodes().size(), 1u);
  EXPECT_EQ(directory_.FindNode(kOtherNode), nullptr);
}

TEST_F(PoolDirectoryTest, ANodeAtAnotherAddressHasMoved) {
  Set({});
  const auto changes = directory_.SetCatalog({NodeOf(kNode, "10.0.0.1"), NodeOf(kOtherNode)}, {});
  EXPECT_EQ(changes.moved, std::vector<Node*>{directory_.FindNode(kNode)});
  EXPECT_TRUE(changes.added.empty());
}

TEST_F(PoolDirectoryTest, AMappingThatCannotBeUsedLeadsNowhere) {
  MappingDefinition mapping = MappingOf(kNode, kRole, "alice");
  mapping.status = Status(sqlstate::kUndefinedObject, "no mapping");
  Set({mapping});
  EXPECT_EQ(PoolOf(kNode, kRole), nullptr);
  EXPECT_TRUE(directory_.pools().empty());
  EXPECT_EQ(directory_.FindMapping(kNode, kOtherRole), nullptr);
}

TEST_F(PoolDirectoryTest, ARoleIsKnownForAnHourAfterItsLastUse) {
  Set({MappingOf(kNode, kRole, "alice"), MappingOf(kNode, kOtherRole, "bob")});
  directory_.NoteUse({kNode, kRole}, now_);
  directory_.NoteUse({kNode, kOtherRole}, now_);
  now_ += minutes(59);
  EXPECT_TRUE(Knows(kRole) && Knows(kOtherRole));
  directory_.NoteUse({kNode, kRole}, now_);
  now_ += minutes(1);
  EXPECT_TRUE(Knows(kRole));
  EXPECT_FALSE(Knows(kOtherRole));
  now_ += minutes(59);
  EXPECT_FALSE(Knows(kRole));
}

TEST_F(PoolDirectoryTest, ARoleOrServerThatIsGoneIsForgottenAtOnce) {
  Set({MappingOf(kNode, kRole, "alice"), MappingOf(kNode, kOtherRole, "bob")});
  directory_.NoteUse({kNode, kRole}, now_);
  directory_.NoteUse({kNode, kOtherRole}, now_);
  MappingDefinition nobody = MappingOf(kNode, kOtherRole, "bob");
  nobody.status = Status(sqlstate::kUndefinedObject, "no such role");
  nobody.role_name.clear();
  Set({MappingOf(kNode, kRole, "alice"), nobody});
  EXPECT_TRUE(Knows(kRole));
  EXPECT_FALSE(Knows(kOtherRole));
  directory_.SetCatalog({NodeOf(kOtherNode)}, {});
  EXPECT_TRUE(directory_.KnownPairs(now_).empty());
}

TEST_F(PoolDirectoryTest, APauseOfAllIsForThoseToComeAsWell) {
  Set({});
  EXPECT_EQ(directory_.SetPaused(kNode, true).size(), 1u);
  EXPECT_TRUE(directory_.FindNode(kNode)->paused);
  EXPECT_FALSE(directory_.FindNode(kOtherNode)->paused);
  EXPECT_EQ(directory_.SetPaused(0, true).size(), 2u);
  directory_.SetCatalog({NodeOf(kNode), NodeOf(kOtherNode), NodeOf(3)}, {});
  EXPECT_TRUE(directory_.FindNode(3)->paused);
  (void)directory_.SetPaused(0, false);
  EXPECT_FALSE(directory_.FindNode(kNode)->paused);
}

TEST_F(PoolDirectoryTest, SurvivorsAreThoseOfTheLastCall) {
  Set({});
  EXPECT_EQ(directory_.SetSurvivors({{kNode, 2}, {3, 1}}),
            std::vector<Node*>{directory_.FindNode(kNode)});
  directory_.SetCatalog({NodeOf(kNode), NodeOf(3)}, {});
  EXPECT_EQ(directory_.FindNode(3)->survivors, 1) << "counted before it was known";
  EXPECT_EQ(directory_.SetSurvivors({{kNode, 2}}), std::vector<Node*>{directory_.FindNode(3)});
}

TEST_F(PoolDirectoryTest, ServersHaveLimitsOfTheirOwn) {
  NodeDefinition own = NodeOf(kNode);
  own.max_pool_size = 7;
  directory_.SetCatalog({own, NodeOf(kOtherNode)}, {});
  settings_.max_pool_size = 20;
  directory_.Apply(settings_);
  EXPECT_EQ(directory_.FindNode(kNode)->limits.max_size, 7);
  EXPECT_EQ(directory_.FindNode(kOtherNode)->limits.max_size, 20);
}

}  // namespace
}  // namespace polarx
