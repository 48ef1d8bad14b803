// One datanode connection from its opening to the datanode's end of file; on its worker thread.
#include "engine/datanode.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cassert>
#include <cerrno>
#include <utility>

namespace polarx {
namespace {

// Edge-triggered: silent while a holder's data flow, one event when the datanode hangs up.
constexpr std::uint32_t kOpenEvents = EPOLLRDHUP | EPOLLET;

constexpr const char* kCancelStuck = "a cancel request is stuck";

}  // namespace

// --- opening ------------------------------------------------------------------------------------

void Datanode::Connect(ConnectOrder order) {
  assert(Is<Finished>() && link_.conn() == nullptr);
  helper_key_ = FindOption(order.options, "host") + ":" + FindOption(order.options, "port");
  Take(state_.emplace<Connecting>(host_, &link_, std::move(order)).Begin());
}

void Datanode::OnLookedUp(const std::string& addresses, const std::string& error) {
  if (auto* connecting = std::get_if<Connecting>(&state_)) {
    Take(connecting->OnLookedUp(addresses, error));
  }
}

void Datanode::Take(std::optional<Connecting::Outcome> outcome) {
  if (!outcome.has_value()) {
    return;
  }
  host_->SetDeadline(slot_, kNever);
  if (auto* connected = std::get_if<Connected>(&*outcome)) {
    state_.emplace<Open>();
    link_.Watch(kOpenEvents, link_.socket());
    parameters_ = told_ = connected->parameters;
    host_->Report(std::move(*connected));
  } else {
    state_.emplace<Finished>();
    host_->Report(std::move(std::get<ConnectFailed>(*outcome)));
  }
}

// --- what the pooler runs -----------------------------------------------------------------------

void Datanode::Run(RunOrder order) {
  assert(Is<Open>());
  if (cancels_ > 0) {
    // Else it would hit the reset, or the next holder's statement.
    host_->SetDeadline(slot_, order.deadline);
    std::get<Open>(state_).waiting = std::move(order);
    return;
  }
  BeginRun(std::move(order));
}

void Datanode::BeginRun(RunOrder order) {
  host_->SetDeadline(slot_, order.deadline);
  Running& running = state_.emplace<Running>(std::move(order), link_.socket(),
                                             std::exchange(was_cancelled_, false), &parameters_);
  Take(running.Begin());
}

void Datanode::Take(std::optional<Running::End> end) {
  if (!end.has_value()) {
    link_.Change(std::get<Running>(state_).events());
    return;
  }
  host_->SetDeadline(slot_, kNever);
  state_.emplace<Open>();
  hung_up_ = hung_up_ || end->broken;  // this says as much
  link_.Change(kOpenEvents);
  if (end->done.status.ok() && parameters_ != told_) {
    end->done.parameters = told_ = parameters_;
  }
  host_->Report(std::move(end->done));
}

// --- cancelling and closing ---------------------------------------------------------------------

void Datanode::Cancel(const CancelOrder& order) {
  if (Is<Open>()) {
    last_cancel_ = order;
    host_->SetDeadline(slot_, order.deadline);
    SendCancel();
    if (cancels_ == 0) {  // it could not be sent, so nothing will strike
      host_->SetDeadline(slot_, kNever);
      host_->Report(CancelThrough{order.lease, order.number});
    }
  }
}

void Datanode::SendCancel() {
  if (PGcancel* cancel = PQgetCancel(link_.conn()); cancel != nullptr) {
    ++cancels_;
    was_cancelled_ = true;
    host_->RunCancel(slot_, helper_key_, cancel);
  }
}

void Datanode::OnCancelled() {
  assert(cancels_ > 0);
  auto* open = std::get_if<Open>(&state_);
  if (--cancels_ > 0 || open == nullptr) {
    return;
  }
  host_->SetDeadline(slot_, kNever);
  host_->Report(CancelThrough{last_cancel_.lease, last_cancel_.number});
  if (open->waiting.has_value()) {
    RunOrder order = std::move(*open->waiting);
    BeginRun(std::move(order));
  }
}

void Datanode::Close(const CloseOrder& order) {
  assert(open());
  if (order.cancel) {
    SendCancel();
  }
  // close(2) alone leaves the datanode's backend alive while another process has a copy, and at
  // PQfinish the datanode still counts the connection: its end of file tells when it is gone.
  UniqueFd duplicate(fcntl(link_.socket(), F_DUPFD_CLOEXEC, 0));
  if (!duplicate) {
    shutdown(link_.socket(), SHUT_RDWR);
  }
  link_.Free();
  if (!duplicate) {
    Finish(false);
    return;
  }
  shutdown(duplicate.get(), SHUT_WR);
  host_->SetDeadline(slot_, order.deadline);
  host_->Watch(duplicate.get(), EPOLLIN | EPOLLRDHUP, slot_);
  state_.emplace<Draining>(Draining{std::move(duplicate)});
}

void Datanode::Drain(const UniqueFd& socket) {
  char buffer[16384];
  for (int rounds = 0; rounds < 64; ++rounds) {
    const ssize_t got = recv(socket.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
    if (got > 0 || (got < 0 && errno == EINTR)) {
      continue;
    }
    if (got < 0 && errno == EAGAIN) {
      return;
    }
    Finish(false);
    return;
  }
}

void Datanode::Finish(bool timed_out) {
  if (auto* draining = std::get_if<Draining>(&state_)) {
    host_->Unwatch(draining->socket.get());
    shutdown(draining->socket.get(), SHUT_RDWR);
  }
  state_.emplace<Finished>();
  host_->SetDeadline(slot_, kNever);
  host_->Report(Closed{slot_, timed_out});
}

// --- what the worker's loop tells ---------------------------------------------------------------

void Datanode::OnEvents(std::uint32_t events) {
  if (auto* connecting = std::get_if<Connecting>(&state_)) {
    Take(connecting->OnEvents());
  } else if (auto* running = std::get_if<Running>(&state_)) {
    Take(running->OnEvents());
  } else if (auto* draining = std::get_if<Draining>(&state_)) {
    Drain(draining->socket);
  } else if (Is<Open>() && (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
    HangUp("datanode closed the connection");
  }
}

void Datanode::HangUp(const std::string& why) {
  if (!std::exchange(hung_up_, true)) {
    host_->Report(HungUp{slot_, why});
  }
}

void Datanode::OnDeadline() {
  if (auto* connecting = std::get_if<Connecting>(&state_)) {
    Take(connecting->OnDeadline());
  } else if (auto* running = std::get_if<Running>(&state_)) {
    Take(running->OnDeadline());
  } else if (Is<Draining>()) {
    Finish(true);
  } else if (auto* open = std::get_if<Open>(&state_)) {
    if (!open->waiting.has_value()) {
      HangUp(kCancelStuck);
      return;
    }
    RunOrder order = std::move(*open->waiting);
    Running& running =
        state_.emplace<Running>(std::move(order), link_.socket(), false, &parameters_);
    Take(running.GiveUp(kCancelStuck));
  }
}

}  // namespace polarx
