// A datanode connection from the name lookup to the end of the login; on its worker thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/datanode_host.h"
#include "engine/login_relay.h"
#include "engine/orders.h"
#include "engine/startup_guard.h"

namespace polarx {

// The value of that keyword; "": the options have none.
std::string FindOption(const Options& options, const char* keyword);

// Carries out one ConnectOrder. Each call returns the outcome as soon as there is one; then no
// other may follow. With Connected the link has a PGconn past its startup, which is not watched,
// and nothing of what the datanode sent is left in it; with ConnectFailed it has none.
class Connecting {
 public:
  using Outcome = std::variant<Connected, ConnectFailed>;

  Connecting(DatanodeHost* host, DatanodeLink* link, ConnectOrder order);

  std::optional<Outcome> Begin();
  // Of the host's name: addresses in text form, comma separated, or why there are none.
  std::optional<Outcome> OnLookedUp(const std::string& addresses, const std::string& error);
  std::optional<Outcome> OnEvents();
  std::optional<Outcome> OnDeadline();

 private:
  std::optional<Outcome> Start();
  std::optional<Outcome> LogIn();
  std::optional<Outcome> Polled(PostgresPollingStatusType state);
  std::optional<Outcome> Succeed();
  Outcome Fail(Status status, bool pool_limit = false);
  Outcome FailFor(const char* sqlstate, const std::string& why);
  void ShareTime();
  bool TryNextAddress();
  bool OpensAgain();
  void GiveUp();

  DatanodeHost* const host_;
  DatanodeLink* const link_;
  const ConnectOrder order_;
  const std::string server_;  // tells it from others, by all that leads to it
  bool looking_up_ = false;
  std::vector<std::string> addresses_;  // where the host's name was looked up; those still to try
  std::size_t address_ = 0;             // the one under way; their number: none yet
  StartupGuard guard_;
  std::optional<LoginRelay> relay_;  // during the login
  bool timeout_off_ = false;         // the one under way goes without time-outs of transactions
};

}  // namespace polarx
