// The log queue: order, cutting, loss that is told, many senders.
#include "engine/log_queue.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <type_traits>
#include <vector>

namespace polarx {
namespace {

static_assert(std::is_trivially_destructible_v<LogRecord>);

std::string PushAndPopMessage(const std::string& message) {
  LogQueue queue;
  queue.Push(LogSeverity::kLog, message);
  LogRecord record;
  EXPECT_TRUE(queue.Pop(&record));
  return record.message;
}

TEST(LogQueueTest, GivesRecordsBackInOrder) {
  LogQueue queue;
  queue.Push(LogSeverity::kWarning, "first", "why");
  queue.Push(LogSeverity::kDebug, "second");
  LogRecord record;
  ASSERT_TRUE(queue.Pop(&record));
  EXPECT_EQ(record.severity, LogSeverity::kWarning);
  EXPECT_STREQ(record.message, "first");
  EXPECT_STREQ(record.detail, "why");
  ASSERT_TRUE(queue.Pop(&record));
  EXPECT_EQ(record.severity, LogSeverity::kDebug);
  EXPECT_STREQ(record.message, "second");
  EXPECT_STREQ(record.detail, "");
  EXPECT_FALSE(queue.Pop(&record));
}

TEST(LogQueueTest, CutsAtTheEndOfACharacter) {
  EXPECT_EQ(PushAndPopMessage(std::string(511, 'a')), std::string(511, 'a'));
  EXPECT_EQ(PushAndPopMessage(std::string(512, 'a')), std::string(511, 'a'));
  const std::string rest(20, 'z');
  EXPECT_EQ(PushAndPopMessage(std::string(509, 'a') + "ä" + rest), std::string(509, 'a') + "ä");
  EXPECT_EQ(PushAndPopMessage(std::string(510, 'a') + "ä" + rest), std::string(510, 'a'));
  EXPECT_EQ(PushAndPopMessage(std::string(509, 'a') + "€" + rest), std::string(509, 'a'));
  EXPECT_EQ(PushAndPopMessage(std::string(508, 'a') + "😀" + rest), std::string(508, 'a'));
  EXPECT_EQ(PushAndPopMessage(std::string(507, 'a') + "😀" + rest), std::string(507, 'a') + "😀");
}

TEST(LogQueueTest, SurvivesWhatIsNoUtf8) {
  EXPECT_EQ(PushAndPopMessage(std::string(600, '\x80')).size(), 508u);
}

TEST(LogQueueTest, CountsWhatDoesNotFitAndTellsItOnce) {
  LogQueue queue;
  for (std::size_t i = 0; i < LogQueue::kCapacity + 3; ++i) {
    queue.Push(LogSeverity::kLog, std::to_string(i));
  }
  LogRecord record;
  for (std::size_t i = 0; i < LogQueue::kCapacity; ++i) {
    ASSERT_TRUE(queue.Pop(&record));
    EXPECT_EQ(record.message, std::to_string(i));
  }
  ASSERT_TRUE(queue.Pop(&record));
  EXPECT_EQ(record.severity, LogSeverity::kWarning);
  EXPECT_STREQ(record.message, "pooler log messages lost: 3");
  EXPECT_FALSE(queue.Pop(&record));
}

TEST(LogQueueTest, TellsTheLossBeforeWhatCameLater) {
  LogQueue queue;
  for (std::size_t i = 0; i < LogQueue::kCapacity + 1; ++i) {
    queue.Push(LogSeverity::kLog, "early");
  }
  LogRecord record;
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(queue.Pop(&record));
  }
  queue.Push(LogSeverity::kLog, "late");
  std::vector<std::string> last;
  while (queue.Pop(&record)) {
    last.emplace_back(record.message);
  }
  ASSERT_EQ(last.size(), LogQueue::kCapacity);
  EXPECT_EQ(last[last.size() - 2], "pooler log messages lost: 1");
  EXPECT_EQ(last.back(), "late");
}

TEST(LogQueueTest, ARecordWithoutPlaceForTheLossBeforeItIsLostToo) {
  LogQueue queue;
  for (std::size_t i = 0; i < LogQueue::kCapacity + 1; ++i) {
    queue.Push(LogSeverity::kLog, "early");
  }
  LogRecord record;
  ASSERT_TRUE(queue.Pop(&record));
  queue.Push(LogSeverity::kLog, "late");
  std::string last;
  while (queue.Pop(&record)) {
    last = record.message;
  }
  EXPECT_EQ(last, "pooler log messages lost: 2");
}

TEST(LogQueueTest, TakesRecordsOfManyThreads) {
  constexpr int kThreads = 4;
  constexpr int kEach = 200;
  LogQueue queue;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&queue] {
      for (int j = 0; j < kEach; ++j) {
        queue.Push(LogSeverity::kLog, "message");
      }
    });
  }
  int popped = 0;
  LogRecord record;
  while (popped < kThreads * kEach) {
    if (queue.Pop(&record)) {
      EXPECT_STREQ(record.message, "message");
      ++popped;
    } else {
      std::this_thread::yield();
    }
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_FALSE(queue.Pop(&record));
}

}  // namespace
}  // namespace polarx
