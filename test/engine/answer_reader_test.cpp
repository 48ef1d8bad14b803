// What the pooler makes of a datanode's answers.
#include "engine/answer_reader.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <string>
#include <thread>

#include "raw_datanode.h"

namespace polarx {
namespace {

using namespace std::string_literals;
using namespace std::string_view_literals;
using State = AnswerReader::State;

const std::string kDone = CompleteMessage("DISCARD ALL");
const std::string kReady = ReadyMessage();
const std::string kError = ErrorMessage("57014", "canceling statement");
const std::string kZone = ParameterMessage("TimeZone", "UTC");

class AnswerReaderTest : public ::testing::Test {
 protected:
  AnswerReaderTest() { Open(); }
  ~AnswerReaderTest() override { Shut(); }
  void Open() { EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends_.data()), 0); }
  void Shut() {
    ::close(ends_[0]);
    ::close(ends_[1]);
  }
  void Say(std::string_view bytes) {
    ASSERT_EQ(::send(ends_[1], bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  State Answer(AnswerReader* reader, std::string_view bytes) {
    reader->Begin(false);
    Say(bytes);
    return reader->Read(ends_[0]);
  }

  std::array<int, 2> ends_{-1, -1};
};

TEST_F(AnswerReaderTest, EveryAnswerIsToldForWhatItIs) {
  struct Case {
    std::string bytes;
    std::string error;  // "": it is one that will do
    bool in_step = true;
    bool may_be_empty = false;
  };
  const std::string empty = Message('I', "");
  const std::string notice = NoticeMessage();
  const std::string row = RowDescription() + DataRow("x");
  const std::string nothing = "datanode gave no answer, but is ready for the next statement";
  const std::string copy = "a statement of the pooler started a COPY";
  const Case cases[] = {
      {kDone + kReady, ""},
      {kDone + kDone + kReady, ""},
      {notice + kZone + kDone + kReady + notice, ""},
      {row + kDone + kReady, ""},
      {empty + kReady, "", true, true},
      {empty + kReady, nothing, false},
      {kReady, nothing, false, true},
      {kError + kReady, "canceling statement"},
      {kDone + kError + kReady, "canceling statement"},
      {kError + ReadyMessage('E'), "canceling statement"},
      {Message('E', "") + kReady, "unexpected answer"},
      {Message('E', "Mno end"), "no end", false},
      {kDone + ReadyMessage('T'), ""},
      {kDone + Message('Z', ""), "datanode sent a malformed answer", false},
      {kDone + Message('Z', "X"), "datanode sent a malformed answer", false},
      {kDone + kReady + kError, "canceling statement", false},
      {kDone + kReady + kDone, "datanode sent more than the answer", false},
      {kDone + kReady + kReady, "datanode sent more than the answer", false},
      {kDone + kReady + notice.substr(0, 9), "datanode closed the connection", false},
      {Message('G', ""), copy, false},
      {Message('H', ""), copy, false},
      {Message('W', ""), copy, false},
      {Message('R', ""), "unexpected answer", false},
      {RowDescription() + Message('D', "\0\1\0\0\0\x09short"sv), "datanode sent a malformed answer",
       false},
      {"C\0\0\0\3"s, "datanode sent a malformed answer", false},
      {"C\x7f\0\0\0"s, "datanode sent a malformed answer", false},
  };
  for (const Case& c : cases) {
    for (const std::size_t step : {c.bytes.size(), std::size_t{1}}) {  // whole, or byte by byte
      AnswerReader reader;
      reader.Begin(c.may_be_empty);
      State state = State::kMore;
      for (std::size_t at = 0; at < c.bytes.size() && state != State::kFailed; at += step) {
        Say(std::string_view(c.bytes).substr(at, step));
        state = reader.Read(ends_[0]);
      }
      if (state == State::kMore) {
        ::shutdown(ends_[1], SHUT_WR);  // no more is to come
        state = reader.Read(ends_[0]);
      }
      const State expected = !c.in_step        ? State::kFailed
                             : c.error.empty() ? State::kDone
                                               : State::kRefused;
      EXPECT_EQ(state, expected) << c.bytes;
      EXPECT_EQ(reader.error(), c.error) << c.bytes;
      Shut();
      Open();
    }
  }
}

TEST_F(AnswerReaderTest, ReadsOneAnswerAfterTheOther) {
  AnswerReader reader;
  EXPECT_EQ(reader.Read(ends_[0]), State::kDone) << "nothing has been sent, nothing has come";
  reader.Begin(false);
  EXPECT_EQ(reader.Read(ends_[0]), State::kMore);
  Say(kDone);
  EXPECT_EQ(reader.Read(ends_[0]), State::kMore);
  Say(kReady);
  EXPECT_EQ(reader.Read(ends_[0]), State::kDone);
  EXPECT_EQ(Answer(&reader, kError + ReadyMessage('E')), State::kRefused);
  EXPECT_EQ(reader.sqlstate(), "57014");
  EXPECT_EQ(reader.transaction(), 'E');
  EXPECT_EQ(Answer(&reader, kDone + kReady), State::kDone);
  EXPECT_EQ(reader.error(), "");
  EXPECT_EQ(reader.sqlstate(), "");
  EXPECT_EQ(reader.transaction(), 'I');
}

TEST_F(AnswerReaderTest, BeforeAStatementOnlyWhatNobodyAskedForMayCome) {
  AnswerReader reader;
  Say(NoticeMessage() + kZone);
  EXPECT_EQ(reader.Read(ends_[0]), State::kDone);
  Say(kDone + kReady);
  EXPECT_EQ(reader.Read(ends_[0]), State::kFailed);
  EXPECT_EQ(reader.error(), "datanode sent more than the answer");
}

TEST_F(AnswerReaderTest, BringsTheOnlyValue) {
  AnswerReader reader;
  Answer(&reader, RowDescription() + DataRow("4711") + kDone + kReady);
  EXPECT_EQ(reader.value(), "4711");
  Answer(&reader, RowDescription() + DataRow("1") + DataRow("2") + kDone + kReady);
  EXPECT_EQ(reader.value(), std::nullopt) << "there are two rows";
  Answer(&reader, RowDescription() + Message('D', "\0\1\377\377\377\377"sv) + kDone + kReady);
  EXPECT_EQ(reader.value(), std::nullopt) << "it is null";
  Answer(&reader, kDone + kReady);
  EXPECT_EQ(reader.value(), std::nullopt) << "there is no row";
}

TEST_F(AnswerReaderTest, NamesTheLastValueOfKnownParameters) {
  AnswerReader reader;
  EXPECT_EQ(Answer(&reader, kZone + ParameterMessage("no.such", "x") + kDone +
                                ParameterMessage("TimeZone", "Asia/Tokyo") + kReady),
            State::kDone);
  EXPECT_EQ(reader.parameters(), (protocol::Parameters{{"TimeZone", "Asia/Tokyo"}}));
}

// Whatever the messages are: parameters, notices, rows, or one that does not end.
TEST_F(AnswerReaderTest, AnEndlessAnswerIsReadInPiecesAndGivenUp) {
  const std::string floods[] = {kZone,
                                Message('S', Zero()),
                                NoticeMessage(),
                                DataRow("x"),
                                DataRow(std::string(600000, 'x')),
                                DataRow(std::string(2000000, 'x'))};
  for (const std::string& message : floods) {
    std::string chunk;
    while (chunk.size() < 256 * 1024) {
      chunk += message;
    }
    std::thread server([&, socket = ends_[1]] {
      while (::send(socket, chunk.data(), chunk.size(), MSG_NOSIGNAL) > 0) {
      }
    });
    AnswerReader reader;
    reader.Begin(false);
    State state = State::kMore;
    int calls = 0;
    while (state == State::kMore) {
      state = reader.Read(ends_[0]);
      calls += state == State::kMore ? 1 : 0;
    }
    EXPECT_EQ(state, State::kFailed);
    EXPECT_EQ(reader.error(), "datanode sent more than 1 MB to the pooler");
    EXPECT_TRUE(calls >= 10 || message.size() > AnswerReader::kMostBytes) << "no call takes it all";
    EXPECT_LE(reader.parameters().size(), 1u);
    ::shutdown(ends_[0], SHUT_RDWR);
    server.join();
    Shut();
    Open();
  }
}

TEST_F(AnswerReaderTest, TheLimitIsThatOfAllAnswers) {
  AnswerReader reader;
  const std::string answer = RowDescription() + DataRow(std::string(50000, 'x')) + kDone + kReady;
  int answers = 0;
  while (Answer(&reader, answer) == State::kDone) {
    ASSERT_LT(++answers, 30);
  }
  EXPECT_GE(answers, 15);
}

}  // namespace
}  // namespace polarx
