// Rows of datanodes become rows of a set-returning function, kept in a tuplestore. In a backend, on
// its only thread.
#pragma once

#include "pg/remote/run.h"
#include "pg/prelude.h"

namespace polarx {

// A RowSink that stores; palloc'd.
struct RowStore : RowSink {
  const char* sql;
  Tuplestorestate* rows;
  TupleDesc columns;
  AttInMetadata* input;
  MemoryContext row_context;  // reset after every row
  Datum* values;
  bool* nulls;
  int first;                  // 1 if the first column is the node's name, else 0
  const PolarxLease* lease;   // whose rows are being taken
  int column;                 // being read from its text, -1: none
  ErrorContextCallback context;
};

// Prepares the function's result as its column definition list says; 42601 without one.
// `with_node`: the first column, name or text, is the node's name. Until RowStoreEnd an error that
// arises while a value is read names the column, the node and the statement.
RowStore* RowStoreBegin(FunctionCallInfo fcinfo, const char* sql, bool with_node);
void RowStoreEnd(RowStore* store);

}  // namespace polarx
