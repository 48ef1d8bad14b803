// The PGconns that this backend keeps for the datanode connections that it will be lent. On its
// only thread.
#pragma once

#include "engine/shells.h"

namespace polarx {

// Makes, in the postmaster while it loads the library, what the first acquire of a session would
// have to make, where that leaves descriptors enough.
void ClientMakeSpares() noexcept;

// Whoever has them take or give up a PGconn calls ClientCountShells afterwards, which tells the
// server's own count of descriptors.
Shells* ClientShells();
void ClientCountShells() noexcept;

}  // namespace polarx
