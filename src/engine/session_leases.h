// What sessions are lent: grants go out here, and leases come back; on the main thread.
#pragma once

#include <deque>
#include <span>
#include <vector>

#include "core/pool_book.h"
#include "core/protocol.h"
#include "engine/questions.h"
#include "engine/session_server.h"

namespace polarx {

// Knows which leases are a session's own: no session can give back another's. An acquire is
// answered once, by Grant, by Reject, or by what takes a Granted's place.
class SessionLeases : public LeaseEvents {
 public:
  // Both outlive this object.
  SessionLeases(PoolBook* book, SessionServer* sessions) : book_(book), sessions_(sessions) {}

  // --- what sessions ask for. What returns text says what broke the protocol; null: nothing ------
  [[nodiscard]] const char* Acquire(Session* session, const protocol::Acquire& acquire,
                                    TimePoint now);
  // Gives up a request that waits; what was granted meanwhile the session throws away unseen, so it
  // is taken back as it was lent.
  void Withdraw(Session* session, const protocol::Withdraw& withdraw, TimePoint now);
  [[nodiscard]] const char* Release(Session* session, const protocol::Release& release,
                                    TimePoint now);
  // The slot of a lease of that session; null: it has been given back.
  Slot* SlotOf(const Session& session, LeaseId lease);
  // How many of the session's leases are in use.
  int CountUsed(const Session& session);
  // The session has ended: gives up its request and takes back its leases. In which state it left
  // them nobody knows, apart from those that have not gone out. Returns whether there were any.
  bool End(Session* session, TimePoint now);

  // Takes back what was withdrawn while it was going out. In every turn.
  void TakeBackLate(TimePoint now);
  bool NextLongLease(polarx::LongLease* lease);  // false: there is no more

  // Tells the holder of the lease, if it is still lent, that its cancel is through.
  void TellCancelled(LeaseId lease, std::uint32_t number);

  // --- LeaseEvents -----------------------------------------------------------------------------
  void Grant(const Ticket& ticket, std::span<Slot* const> slots) override;
  void Reject(const Ticket& ticket, const Status& status) override;
  void Recall(const Slot& slot) override;
  void Taken(const Slot& slot) override;
  void LongLease(const Slot& slot, Duration held) override;

 private:
  // A grant that was withdrawn when some of its descriptors had gone out: the rest follows first.
  struct LateWithdrawal {
    SessionId session = 0;
    std::uint32_t request = 0;
    std::vector<LeaseId> leases;
  };
  void TakeBack(Session* session, std::span<const LeaseId> leases, TimePoint now);

  PoolBook* const book_;
  SessionServer* const sessions_;
  std::vector<LateWithdrawal> late_;
  std::deque<polarx::LongLease> long_leases_;
};

}  // namespace polarx
