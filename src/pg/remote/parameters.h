// Parameters that this session wants on its datanode connections, and that follow its transactions
// as SET does. In a backend, on its only thread.
#pragma once

#include "pg/prelude.h"

namespace polarx {

// One parameter of one role.
struct SessionParameter {
  Oid role;
  char* name;
  // The value for the rest of the session; NULL: only local_value counts.
  char* value;
  // The number of the change that brought `value`.
  uint64 change;
  // The value until the local transaction ends; NULL: there is none.
  char* local_value;
  SessionParameter* next;
};

// Returns the list as the current (sub)transaction sees it, what was set last comes last; NULL if
// it is empty.
const SessionParameter* SessionParameters();
// Returns another number after every change and after every rollback of one; 0 while there are no
// parameters.
uint64 SessionParametersVersion();
// Returns whether the current role has any, local ones included or not.
bool SessionParametersAny(bool with_local);

// Sets a parameter for the current role; undone if the (sub)transaction is rolled back.
void SessionParametersSet(const char* name, const char* value, bool is_local);
// Forgets all parameters of `role`, or of every role (InvalidOid); undone likewise.
void SessionParametersForget(Oid role);

// --- for the callback of module.cpp; no ereport --------------------------------------------------

// The local transaction has ended.
void SessionParametersAfterEnd(bool committed) noexcept;
// The subtransaction of that nest level has been committed, or rolled back.
void SessionParametersAfterLevel(int level, bool committed) noexcept;

}  // namespace polarx
