// What the transaction callback of module.cpp does for CREATE EXTENSION. In a backend, on its only
// thread.
#pragma once

namespace polarx {

// The local transaction has ended: where it has installed the extension, and was committed, the
// launcher is asked for a pooler worker of this database. No ereport.
void WorkerStartAfterEnd(bool committed) noexcept;

}  // namespace polarx
