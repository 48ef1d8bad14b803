// The PGconns that a session keeps while nothing is lent to it: a descriptor is put under one of
// them and taken away again, which costs a fraction of making one. In a backend, on its only
// thread.
#pragma once

#include <libpq-fe.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/parameter_sets.h"
#include "core/status.h"
#include "core/time.h"
#include "engine/unique_fd.h"

namespace polarx {

// What is lent, beside its descriptor.
struct Lent {
  std::uint64_t attachment = 0;  // slots and pools are numbered anew by each pooler worker
  std::uint64_t slot = 0;
  std::uint64_t pool = 0;
  std::int32_t backend_pid = 0;
  SharedParameters parameters;
};

// Its end is libpq's end of conn, which would say so to a datanode that is still under it.
struct Shell {
  Shell() = default;
  ~Shell();
  Shell(const Shell&) = delete;
  Shell& operator=(const Shell&) = delete;

  PGconn* conn = nullptr;
  Lent lent;               // what is under it, or was last
  bool as_new = false;     // of MakeFit: the last borrower has left nothing in it
  bool unchanged = false;  // of Shells::Changed, for the MakeFit that follows it
};

class Shells {
 public:
  Shells() = default;
  ~Shells();
  Shells(const Shells&) = delete;
  Shells& operator=(const Shells&) = delete;

  // Before this process forks: makes `count` PGconns (16 at most), within `limit` each. They are
  // had by every child, whose first adoptions that find none kept use them instead of making one.
  // What cannot be made is left out. Each takes a descriptor of every child, used or not.
  static void MakeSpares(int count, Duration limit) noexcept;

  // A PGconn that speaks over `fd`, as AdoptConnection describes it: one that has been kept, if it
  // was last used for the same pool, or a spare one, else a new one, within `limit`. It is the
  // caller's until Detach. Nothing of the last borrower is left in a kept one: unless it served the
  // same slot and still looks as it was lent, libpq itself is led through an empty query whose
  // answer carries the new process id and parameter values. Who often takes turns among a few slots
  // gets one for each.
  Result<Shell*> Adopt(UniqueFd fd, Lent lent, Duration limit);

  // Takes the descriptor away, so that nothing libpq says reaches the datanode any more; `shell` is
  // no longer the caller's. `keep`: it is in sync, outside COPY, with nothing unread. What a
  // borrower may have set on it (notice receiver and processor, trace, verbosity, non-blocking
  // mode) is taken back; one that is in no state to be used again is ended.
  void Detach(Shell* shell, bool keep) noexcept;

  // Values that the datanode has reported since it was lent, and that it was not lent with. Nothing
  // is read between this and Detach or MakeFit, which need not compare again.
  static protocol::Parameters Changed(Shell* shell);

  // Takes back what a borrower may have set on it; false: it is in no state to be used again.
  // Afterwards as_new tells whether it is as it was lent.
  static bool MakeFit(Shell* shell) noexcept;

  // Ends all that are kept.
  void Clear() noexcept;

  // How many descriptors are held: those of the kept ones, and two while there were any
  // since the last Clear.
  std::size_t descriptors() const { return kept_.size() + (outside_ ? 2 : 0); }

 private:
  std::unique_ptr<Shell> TakeOne(const Lent& lent);
  std::unique_ptr<Shell> TakeSpare();
  std::unique_ptr<Shell> TakeKept(const Lent& lent);
  bool MayMakeAnother(std::uint64_t pool);
  bool Renew(Shell* shell, const Lent& lent);
  bool RunEmpty(PGconn* conn, std::int32_t backend_pid, const protocol::Parameters& parameters);
  bool Open() noexcept;
  void End(std::unique_ptr<Shell> shell) noexcept;
  static std::size_t Drain(const UniqueFd& end) noexcept;

  std::vector<std::unique_ptr<Shell>> kept_;  // the last one used at the back
  int renewals_ = 0;                          // since another one was made instead
  UniqueFd inside_;                           // under every kept one
  UniqueFd outside_;                          // its other end
};

}  // namespace polarx
