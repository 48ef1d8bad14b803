// The PGconns that this backend keeps, or gets from the postmaster; on its only thread.
#include <sys/resource.h>

#include <chrono>
#include <new>

#include "pg/session/shells.h"
#include "pg/prelude.h"

namespace polarx {

void ClientMakeSpares() noexcept {
  constexpr int kSpares = 4;            // nodes that many sessions are content with
  constexpr rlim_t kEnoughFiles = 256;  // the server starts only if it can have 58 to itself
  rlimit limit{};
  if (max_files_per_process >= static_cast<int>(kEnoughFiles) &&
      ::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur >= kEnoughFiles) {
    Shells::MakeSpares(kSpares, std::chrono::seconds(1));
  }
}

Shells* ClientShells() {
  alignas(Shells) static char memory[sizeof(Shells)];
  static Shells* const shells = new (memory) Shells;  // never destroyed: the process ends first
  return shells;
}

void ClientCountShells() noexcept {
  static size_t counted = 0;
  for (const size_t held = ClientShells()->descriptors(); counted != held;) {
    if (counted < held) {
      ReserveExternalFD();
      ++counted;
    } else {
      ReleaseExternalFD();
      --counted;
    }
  }
}

}  // namespace polarx
