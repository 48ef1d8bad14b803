// Takes the pooler worker out of the way of statements that need a database for themselves: DROP
// DATABASE, ALTER DATABASE RENAME and SET TABLESPACE, CREATE DATABASE; in a backend.
#pragma once

namespace polarx {

// _PG_init while preloading: chains the ProcessUtility hook.
void InstallUtilityHook();
// The local transaction has ended: databases that were blocked are not any more. No ereport.
void UtilityHookAfterEnd() noexcept;
// A subtransaction has ended: if it is undone, those that it has blocked are not any more. No
// ereport.
void UtilityHookAfterLevel(int level, bool committed) noexcept;

}  // namespace polarx
