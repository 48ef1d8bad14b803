// Notices and warnings of datanodes become local ones: kept while libpq reads, which nothing may
// jump out of, and reported when it has returned. In a backend, on its only thread.
#pragma once

#include "pg/session/leases.h"

namespace polarx {

// A NoticeReceiver that keeps a bounded number of them; `lease`: a PolarxLease. No ereport.
void NoticesKeep(void* lease, const pg_result* result) noexcept;

// Reports what was kept since the last time, of this lease. Interruptible: the client may not read.
void NoticesReport(const PolarxLease* lease);

// Forgets what an error has left unreported. No ereport.
void NoticesDrop() noexcept;

}  // namespace polarx
