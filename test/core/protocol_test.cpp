// Frames survive the way there and back; damaged ones are refused, whatever the damage.
#include "core/protocol.h"

#include <gtest/gtest.h>

#include <random>

namespace polarx::protocol {
namespace {

std::string Bytes(const Request& request) {
  std::string out;
  Encode(request, &out);
  return out;
}

std::string Bytes(const Reply& reply) {
  std::string out;
  Encode(reply, &out);
  return out;
}

std::vector<Request> Requests() {
  return {
      Attach{.generation = 0x1122334455667788},
      Acquire{.request = 7,
              .queue_timeout_ms = 4000000000,
              .sets = true,
              .wanted = {{16384, 10}, {1, 0}}},
      Withdraw{.request = 8},
      Release{.leases = {{.lease = 1, .kind = ReleaseKind::kClean, .changed = {}},
                         {.lease = 0x8000000000000001,
                          .kind = ReleaseKind::kClose,
                          .changed = {{"TimeZone", "UTC"}, {"x", ""}}}}},
      Release{},
      Cancel{.lease = 99, .number = 4000000001},
      Show{.request = 1, .view = View::kStats},
      Ping{.request = 2, .role = 10, .nodes = {5, 6, 7}},
      Clean{.request = 3, .node = 0, .remote_user = "app"},
      Reload{.request = 4},
      Pause{.request = 5, .node = 16384, .paused = true},
      ResetStats{.request = 6},
      Check{.request = 7,
            .nodes = {{.id = 16384,
                       .name = "dn1",
                       .host = "a",
                       .hostaddr = "::1",
                       .port = 5433,
                       .max_pool_size = 5,
                       .min_pool_size = 0,
                       .min_free_size = -1}}},
      Confirm{.request = 8},
      PartlyCommitted{},
      Awaits{.number = 4000000001, .begun_us = 5000000000, .leases = {1, 0x8000000000000001}},
  };
}

std::vector<Reply> Replies() {
  return {
      Attached{.generation = 5},
      Granted{.request = 7,
              .leases = {{.lease = 12, .backend_pid = -1, .parameters = {{"DateStyle", "ISO"}}},
                         {.lease = 13, .backend_pid = 4711, .parameters = {}}}},
      Failed{.request = 7, .status = Status("53300", "full", "six", "more")},
      Rows{.request = 1, .rows = {{"a", std::nullopt, ""}, {}, {std::string(70000, 'x')}}},
      Done{.request = 3, .value = -9223372036854775807},
      Recall{.leases = {12, 0x8000000000000001}},
      Cancelled{.lease = 0x8000000000000001, .number = 4000000001},
      Deadlocked{.number = 4000000001, .detail = "who"},
  };
}

// A field that were forgotten on both sides would leave its bytes out.
TEST(ProtocolTest, EveryFieldTakesItsBytes) {
  const std::vector<std::size_t> requests = {12,
                                             4 + 4 + 1 + 4 + 2 * 8,
                                             4,
                                             4 + 2 * (8 + 1 + 4) + (4 + 8 + 4 + 3) + (4 + 1 + 4),
                                             4,
                                             8 + 4,
                                             5,
                                             4 + 4 + 4 + 3 * 4,
                                             4 + 4 + 4 + 3,
                                             4,
                                             4 + 4 + 1,
                                             4,
                                             4 + 4 + 4 + (4 + 3) + (4 + 1) + (4 + 3) + 4 * 4,
                                             4,
                                             0,
                                             4 + 8 + 4 + 2 * 8};
  const std::vector<std::size_t> replies = {
      8,
      4 + 4 + 2 * (3 * 8 + 3 * 4 + 8 + 1 + 4) + (4 + 9 + 4 + 3),
      4 + (4 + 5) + (4 + 4) + (4 + 3) + (4 + 4),
      4 + 4 + 3 * 4 + (4 + 1) + 4 + 4 + (4 + 70000),
      12,
      4 + 2 * 8,
      8 + 4,
      4 + (4 + 3)};
  for (std::size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(Bytes(Requests().at(i)).size(), kHeaderSize + requests[i]) << "request " << i;
  }
  for (std::size_t i = 0; i < replies.size(); ++i) {
    EXPECT_EQ(Bytes(Replies().at(i)).size(), kHeaderSize + replies[i]) << "reply " << i;
  }
}

// Equal bytes are equal messages: every field takes its bytes.
TEST(ProtocolTest, EveryRequestSurvivesTheWay) {
  for (const Request& request : Requests()) {
    const Result<Request> decoded = DecodeRequest(Bytes(request));
    ASSERT_TRUE(decoded.ok()) << decoded.status().message();
    EXPECT_EQ(decoded.value().index(), request.index());
    EXPECT_EQ(Bytes(decoded.value()), Bytes(request));
  }
}

TEST(ProtocolTest, EveryReplySurvivesTheWay) {
  for (const Reply& reply : Replies()) {
    const Result<Reply> decoded = DecodeReply(Bytes(reply));
    ASSERT_TRUE(decoded.ok()) << decoded.status().message();
    EXPECT_EQ(decoded.value().index(), reply.index());
    EXPECT_EQ(Bytes(decoded.value()), Bytes(reply));
  }
}

TEST(ProtocolTest, FieldsArriveWhereTheyBelong) {
  const Result<Request> request = DecodeRequest(Bytes(Requests()[3]));
  const auto& release = std::get<Release>(request.value());
  ASSERT_EQ(release.leases.size(), 2u);
  EXPECT_EQ(release.leases[1].lease, 0x8000000000000001u);
  EXPECT_EQ(release.leases[1].kind, ReleaseKind::kClose);
  EXPECT_EQ(release.leases[1].changed, (Parameters{{"TimeZone", "UTC"}, {"x", ""}}));

  const Result<Reply> reply = DecodeReply(Bytes(Replies()[2]));
  const Status& status = std::get<Failed>(reply.value()).status;
  EXPECT_EQ(status.sqlstate(), "53300");
  EXPECT_EQ(status.message(), "full");
  EXPECT_EQ(status.detail(), "six");
  EXPECT_EQ(status.hint(), "more");

  const Result<Reply> rows = DecodeReply(Bytes(Replies()[3]));
  EXPECT_EQ(std::get<Rows>(rows.value()).rows, std::get<Rows>(Replies()[3]).rows);

  const Result<Reply> granted = DecodeReply(Bytes(Replies()[1]));
  const GrantedLease& lease = std::get<Granted>(granted.value()).leases.at(0);
  EXPECT_EQ(lease.lease, 12u);
  EXPECT_EQ(lease.backend_pid, -1);
  EXPECT_EQ(lease.parameters, (Parameters{{"DateStyle", "ISO"}}));
}

TEST(ProtocolTest, BytesAreBigEndianWithLengthAndCodeInFront) {
  EXPECT_EQ(Bytes(Request(Attach{.version = 1, .generation = 2})),
            std::string("\0\0\0\x14PLX\x01\0\0\0\x01\0\0\0\0\0\0\0\x02", 20));
}

TEST(ProtocolTest, EncodeAppendsToWhatIsThere) {
  std::string out = Bytes(Request(Withdraw{.request = 1}));
  const std::size_t first = out.size();
  Encode(Request(Cancel{.lease = 2}), &out);
  ASSERT_EQ(FrameLength(out, kMaxRequestSize).value(), first);
  EXPECT_TRUE(DecodeRequest(std::string_view(out).substr(first)).ok());
}

TEST(ProtocolTest, LengthIsUnknownUntilFourBytesHaveCome) {
  const std::string frame = Bytes(Request(Reload{.request = 1}));
  for (std::size_t size = 0; size <= frame.size(); ++size) {
    const Result<std::size_t> length = FrameLength(frame.substr(0, size), kMaxRequestSize);
    ASSERT_TRUE(length.ok());
    EXPECT_EQ(length.value(), size < 4 ? 0 : frame.size());
  }
}

TEST(ProtocolTest, LengthsThatCannotBeAreRefused) {
  struct Case {
    std::string head;
    bool ok;
  };
  for (const Case& c :
       {Case{std::string("\0\0\0\0", 4), false}, Case{std::string("\0\0\0\x07", 4), false},
        Case{std::string("\0\0\0\x08", 4), true}, Case{std::string("\0\0\x04\0", 4), true},
        Case{std::string("\0\0\x04\x01", 4), false}, Case{"GET /", false},
        Case{"\xff\xff\xff\xff", false}}) {
    const Result<std::size_t> length = FrameLength(c.head, 1024);
    EXPECT_EQ(length.ok(), c.ok) << testing::PrintToString(c.head);
    if (!length.ok()) {
      EXPECT_EQ(length.status().sqlstate(), "08P01");
    }
  }
}

// --- damage -----------------------------------------------------------------------------------

std::string Number(std::uint64_t value, std::size_t size) {
  std::string out;
  for (std::size_t i = size; i-- > 0;) {
    out.push_back(static_cast<char>(value >> (8 * i)));
  }
  return out;
}

// A frame with the code of `like` and another payload.
std::string Frame(const std::string& like, const std::string& payload) {
  return Number(payload.size() + kHeaderSize, 4) + like.substr(4, 4) + payload;
}

void ExpectRefused(const std::string& request, const std::string& reason) {
  const Result<Request> decoded = DecodeRequest(request);
  ASSERT_FALSE(decoded.ok()) << reason;
  EXPECT_EQ(decoded.status().sqlstate(), "08P01");
  EXPECT_NE(decoded.status().message().find(reason), std::string::npos)
      << decoded.status().message();
}

TEST(ProtocolTest, AFrameCutShortAnywhereIsRefused) {
  for (const Request& request : Requests()) {
    const std::string whole = Bytes(request);
    for (std::size_t size = 0; size < whole.size(); ++size) {
      EXPECT_FALSE(DecodeRequest(whole.substr(0, size)).ok());
      if (size >= kHeaderSize) {
        EXPECT_FALSE(DecodeRequest(Frame(whole, whole.substr(8, size - 8))).ok());
      }
    }
  }
  for (const Reply& reply : Replies()) {
    const std::string whole = Bytes(reply);
    for (std::size_t size = 8; size < std::min<std::size_t>(whole.size(), 200); ++size) {
      EXPECT_FALSE(DecodeReply(Frame(whole, whole.substr(8, size - 8))).ok());
    }
  }
}

TEST(ProtocolTest, BytesAfterThePayloadAreRefused) {
  for (const Request& request : Requests()) {
    const std::string whole = Bytes(request);
    ExpectRefused(Frame(whole, whole.substr(8) + "x"), "payload is too long");
    ExpectRefused(whole + "x", "length differs");
  }
}

TEST(ProtocolTest, CodesOfTheOtherDirectionOrOfNobodyAreRefused) {
  for (const Reply& reply : Replies()) {
    ExpectRefused(Bytes(reply), "unknown code");
  }
  for (const Request& request : Requests()) {
    EXPECT_FALSE(DecodeReply(Bytes(request)).ok());
  }
  ExpectRefused(Number(8, 4) + Number(196608, 4), "unknown code");    // protocol 3.0
  ExpectRefused(Number(8, 4) + Number(80877103, 4), "unknown code");  // SSLRequest
  ExpectRefused(Number(8, 4) + Number(0x504C5800, 4), "unknown code");
  constexpr std::uint32_t kAfterLast = 0x504C5801 + std::variant_size_v<Request>;
  ExpectRefused(Number(8, 4) + Number(kAfterLast, 4), "unknown code");
}

TEST(ProtocolTest, CountsThatCannotBeAreRefusedWithoutBelievingThem) {
  const std::string ping = Bytes(Request(Ping{}));
  ExpectRefused(Frame(ping, Number(1, 4) + Number(1, 4) + Number(0xFFFFFFFF, 4)), "count exceeds");
  ExpectRefused(Frame(ping, Number(1, 4) + Number(1, 4) + Number(2, 4) + Number(1, 4)),
                "count exceeds");
  const std::string rows = Bytes(Reply(Rows{}));
  EXPECT_FALSE(DecodeReply(Frame(rows, Number(1, 4) + Number(0x7FFFFFFF, 4))).ok());
}

TEST(ProtocolTest, AnAcquireNamesOneToAllNodes) {
  struct Case {
    std::size_t nodes;
    bool ok;
  };
  for (const Case c :
       {Case{0, false}, Case{1, true}, Case{kMaxNodes, true}, Case{kMaxNodes + 1, false}}) {
    const Acquire acquire{.request = 1, .wanted = std::vector<Wanted>(c.nodes)};
    EXPECT_EQ(DecodeRequest(Bytes(Request(acquire))).ok(), c.ok) << c.nodes;
  }
}

TEST(ProtocolTest, NulBytesInStringsAreRefused) {
  ExpectRefused(Bytes(Request(Clean{.remote_user = std::string("a\0b", 3)})), "NUL byte");
  EXPECT_FALSE(DecodeReply(Bytes(Reply(Rows{.rows = {{std::string("\0", 1)}}}))).ok());
}

TEST(ProtocolTest, EnumerationsOutOfRangeAreRefused) {
  for (int value = 0; value < 256; ++value) {
    const std::string show = Frame(Bytes(Request(Show{})), Number(1, 4) + Number(value, 1));
    EXPECT_EQ(DecodeRequest(show).ok(), value <= 4) << value;
    const std::string release = Frame(
        Bytes(Request(Release{})), Number(1, 4) + Number(9, 8) + Number(value, 1) + Number(0, 4));
    EXPECT_EQ(DecodeRequest(release).ok(), value <= 3) << value;
  }
}

TEST(ProtocolTest, AFailureNeedsAnSqlstate) {
  const std::string failed = Bytes(Reply(Failed{.status = Status("XX000", "m")}));
  const auto with = [&](const std::string& state) {
    return Frame(failed, Number(1, 4) + Number(state.size(), 4) + state + std::string(12, '\0'));
  };
  EXPECT_TRUE(DecodeReply(with("2F003")).ok());
  for (const char* state : {"", "2F00", "2F0031", "2f003", "2F 03"}) {
    EXPECT_FALSE(DecodeReply(with(state)).ok()) << state;
  }
}

// What is accepted must be a frame like any other: it encodes to the same bytes.
TEST(ProtocolTest, RandomDamageIsRefusedOrMeansSomethingElse) {
  std::mt19937 random(20240229);
  const auto below = [&](std::size_t limit) { return random() % limit; };
  const std::vector<Request> requests = Requests();
  std::vector<Reply> replies = Replies();
  std::get<Rows>(replies[3]).rows[2] = {"short"};
  int accepted = 0;
  for (int round = 0; round < 100000; ++round) {
    const bool is_request = below(2) == 0;
    std::string frame = is_request ? Bytes(requests[below(requests.size())])
                                   : Bytes(replies[below(replies.size())]);
    for (std::size_t changes = 1 + below(3); changes > 0; --changes) {
      frame[below(frame.size())] = static_cast<char>(below(3) == 0 ? 0xFF : below(256));
    }
    if (below(4) == 0) {
      frame = Frame(frame, frame.substr(8, below(frame.size() - 7)));
    }
    if (const Result<Request> request = DecodeRequest(frame); request.ok()) {
      ++accepted;
      ASSERT_EQ(Bytes(request.value()), frame);
    }
    if (const Result<Reply> reply = DecodeReply(frame); reply.ok()) {
      ++accepted;
      ASSERT_EQ(Bytes(reply.value()), frame);
    }
  }
  EXPECT_GT(accepted, 1000);
}

TEST(ProtocolTest, NoiseIsRefused) {
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    std::string noise(random() % 64, '\0');
    for (char& c : noise) {
      c = static_cast<char>(random());
    }
    EXPECT_FALSE(DecodeRequest(noise).ok());
    EXPECT_FALSE(DecodeReply(noise).ok());
  }
}

TEST(ProtocolTest, RowsAddedOneByOneMakeTheSameFrame) {
  const Rows rows{7, {{"a", std::nullopt}, {}, {"", std::string(300, 'x'), "c"}}};
  for (std::size_t count = 0; count <= rows.rows.size(); ++count) {
    Rows some{rows.request, {}};
    RowsFrame frame(rows.request);
    for (std::size_t i = 0; i < count; ++i) {
      some.rows.push_back(rows.rows[i]);
      frame.Add(rows.rows[i]);
    }
    EXPECT_EQ(frame.Finish(), Bytes(Reply(some)));
  }
}

}  // namespace
}  // namespace polarx::protocol
