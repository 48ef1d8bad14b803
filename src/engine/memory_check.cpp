// The statements by which the memory of a datanode session is measured; constants, any thread.
#include "engine/memory_check.h"

namespace polarx {
namespace {

// Only a function of the extension is trusted: another one of that name would run with the remote
// user's rights.
constexpr const char* kQuestion =
    "SELECT CASE"
    " WHEN EXISTS (SELECT 1 FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_depend d"
    " ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid"
    " AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass"
    " AND d.objid = pg_catalog.to_regprocedure('pooler.session_memory()')"
    " WHERE e.extname = 'polarx_pooler' AND pg_catalog.has_function_privilege(d.objid, 'EXECUTE')"
    " AND pg_catalog.has_schema_privilege("
    "pg_catalog.to_regnamespace('pooler'), 'USAGE'))"
    " THEN 'function'"
    " WHEN pg_catalog.has_table_privilege("
    "pg_catalog.to_regclass('pg_catalog.pg_backend_memory_contexts'), 'SELECT')"
    " AND pg_catalog.has_function_privilege("
    "pg_catalog.to_regproc('pg_catalog.pg_get_backend_memory_contexts'), 'EXECUTE')"
    " THEN 'view' ELSE 'none' END";

}  // namespace

bool AsksForSource(MemorySource source) {
  return source == MemorySource::kUnknown || source == MemorySource::kNone;
}

std::string MeasureStatement(MemorySource source) {
  switch (source) {
    case MemorySource::kFunction:
      return "SELECT pooler.session_memory()";
    case MemorySource::kView:
      return "SELECT pg_catalog.sum(total_bytes) FROM pg_catalog.pg_backend_memory_contexts";
    case MemorySource::kUnknown:
    case MemorySource::kNone:
      break;
  }
  return kQuestion;
}

MemorySource MemorySourceOf(std::string_view answer) {
  return answer == "function" ? MemorySource::kFunction
         : answer == "view"   ? MemorySource::kView
                              : MemorySource::kNone;
}

}  // namespace polarx
