// Lookups of host names: shared by all who wait, dropped with the last of them, fair by name.
#include "engine/lookups.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>

#include "engine/helper.h"

namespace polarx {
namespace {

// The name service of a test: lookups of names that begin with "dead" hang until it is told.
struct Service {
  std::mutex mutex;
  std::condition_variable changed;
  bool open = false;
  std::map<std::string, int> begun;
  std::map<std::uint64_t, std::string> answers;

  LookupResult LookUp(const std::string& host) {
    std::unique_lock lock(mutex);
    ++begun[host];
    changed.notify_all();
    changed.wait(lock, [&] { return open || !host.starts_with("dead"); });
    return {"192.0.2.1", ""};
  }
  template <typename Condition>
  bool WaitFor(Condition condition) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(20), condition);
  }
};
std::shared_ptr<Service> service;

class LookupsTest : public ::testing::Test {
 protected:
  LookupsTest() {
    service = std::make_shared<Service>();
    SetLookupForTest([](const std::string& host) {
      const std::shared_ptr<Service> its = service;
      return its->LookUp(host);
    });
  }
  ~LookupsTest() override {
    {
      std::lock_guard lock(service->mutex);
      service->open = true;
      service->changed.notify_all();
    }
    EXPECT_TRUE(helpers_.Stop());
    SetLookupForTest(nullptr);
  }
  std::uint64_t Ask(const std::string& host) {
    const std::uint64_t number = ++asked_;
    return helpers_.names().Ask(host, [its = service, number](const LookupResult& result) {
      std::lock_guard lock(its->mutex);
      its->answers[number] = result.addresses;
      its->changed.notify_all();
    });
  }
  bool Begun(const std::string& host, int times = 1) {
    return service->WaitFor([&] { return service->begun[host] >= times; });
  }
  void Open() {
    std::lock_guard lock(service->mutex);
    service->open = true;
    service->changed.notify_all();
  }

  std::uint64_t asked_ = 0;
  HelperPool helpers_{4, 2};
};

TEST_F(LookupsTest, AllWhoWaitForANameShareOneLookup) {
  for (int i = 0; i < 100; ++i) {
    Ask("dead1");
  }
  ASSERT_TRUE(Begun("dead1"));
  Ask("dead1");
  Open();
  EXPECT_TRUE(service->WaitFor([] { return service->answers.size() == 101; }));
  EXPECT_EQ(service->begun["dead1"], 1);
  Ask("dead1");
  EXPECT_TRUE(service->WaitFor([] { return service->answers.size() == 102; }));
  EXPECT_EQ(service->begun["dead1"], 2) << "an answer is not kept";
}

TEST_F(LookupsTest, OneThatNobodyWaitsForDoesNotBegin) {
  for (int i = 0; i < 4; ++i) {
    Ask("dead" + std::to_string(i));
    ASSERT_TRUE(Begun("dead" + std::to_string(i)));
  }
  const std::uint64_t first = Ask("left");
  const std::uint64_t second = Ask("left");
  helpers_.names().Leave(first);
  helpers_.names().Leave(second);
  Ask("wanted");
  Open();
  EXPECT_TRUE(service->WaitFor([] { return service->answers.size() == 5; }));
  EXPECT_EQ(service->begun.count("left"), 0u);
  EXPECT_EQ(service->begun["wanted"], 1);
}

TEST_F(LookupsTest, WhoHasLeftIsToldNothing) {
  const std::uint64_t ticket = Ask("dead1");
  Ask("dead1");
  ASSERT_TRUE(Begun("dead1"));
  helpers_.names().Leave(ticket);
  helpers_.names().Leave(ticket);  // does nothing
  Open();
  EXPECT_TRUE(service->WaitFor([] { return service->answers.count(2) == 1; }));
  EXPECT_EQ(service->answers.count(1), 0u);
}

TEST_F(LookupsTest, ANameThatHangsTakesOneThreadHoweverOftenItIsAskedFor) {
  for (int i = 0; i < 50; ++i) {
    helpers_.names().Leave(Ask("dead1"));
    Ask("dead1");
  }
  ASSERT_TRUE(Begun("dead1"));
  Ask("good");
  EXPECT_TRUE(service->WaitFor([] { return service->begun["good"] == 1; }));
  EXPECT_LE(helpers_.thread_count(), 2u);
}

}  // namespace
}  // namespace polarx
