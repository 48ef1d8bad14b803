// Parameters that this session wants on its datanode connections, and that follow its transactions
// as SET does. In a backend, on its only thread.
#pragma once

#include "pg/prelude.h"

namespace polarx {

// One parameter of one role.
struct SessionParameter {
  Oid role;
  char* name;
  char* value;        // for the rest of the session; NULL: only local_value counts
  uint64 change;      // number of the change that brought `value`
  char* local_value;  // until the local transaction ends; NULL: none
  SessionParameter* next;
};

// The list as the current (sub)transaction sees it, what was set last comes last; NULL: empty.
const SessionParameter* SessionParameters();
// Another one after every change and after every rollback of one; 0 while there are none.
uint64 SessionParametersVersion();
// Has the current role any, local ones included or not?
bool SessionParametersAny(bool with_local);

// For the current role. Undone if the (sub)transaction is rolled back.
void SessionParametersSet(const char* name, const char* value, bool is_local);
// Likewise; all of `role`, or, InvalidOid, of every role.
void SessionParametersForget(Oid role);

// --- for the callback of module.cpp; no ereport --------------------------------------------------

// The local transaction has ended.
void SessionParametersAfterEnd(bool committed) noexcept;
// The subtransaction of that nest level has been committed, or rolled back.
void SessionParametersAfterLevel(int level, bool committed) noexcept;

}  // namespace polarx
