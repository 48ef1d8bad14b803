// The statements of one RunOrder on a datanode connection; on its worker thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/protocol.h"
#include "engine/answer_reader.h"
#include "engine/orders.h"

namespace polarx {

// Carries out one RunOrder over a socket, without libpq, which then has nothing buffered of what
// the next holder has to read. Each call returns the end of the run as soon as it comes; then no
// other may follow.
class Running {
 public:
  struct End {
    RunDone done;         // without `parameters`
    bool broken = false;  // the datanode has hung up or talks nonsense
  };

  // `parameters`, which outlives the run, becomes what the datanode reports meanwhile.
  // `was_cancelled`: a cancel may still strike the first statement, which is then repeated.
  Running(RunOrder order, int socket, bool was_cancelled, protocol::Parameters* parameters);

  std::optional<End> Begin();
  std::optional<End> OnEvents();
  End OnDeadline();
  // It cannot even begin, because of `reason`.
  End GiveUp(const std::string& reason);

  // Events of epoll that the run waits for.
  std::uint32_t events() const;

 private:
  std::optional<End> TakeAnswer();
  std::optional<End> Send();
  End Finish(Status status, bool broken = false);
  End Break(const std::string& reason);
  std::size_t FirstVerify() const;
  bool Measuring() const;
  void TakeParameters();

  RunOrder order_;
  const int socket_;
  protocol::Parameters* const parameters_;
  bool may_be_struck_;  // by a cancel that comes late
  AnswerReader reader_;
  std::size_t statement_ = 0;  // the one under way
  bool awaited_ = false;       // it has been sent, if only in part
  std::string unsent_;         // the rest of it
  bool timed_out_ = false;
  std::optional<std::string> measured_;  // value of the order's `measure`
};

}  // namespace polarx
