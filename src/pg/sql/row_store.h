// Rows of datanodes become rows of a set-returning function, kept in a tuplestore. In a backend, on
// its only thread.
#pragma once

#include "pg/remote/run.h"
#include "pg/prelude.h"

namespace polarx {

// A RowSink that stores; palloc'd. Its functions write it.
struct RowStore : RowSink {
  const char* sql;
  Tuplestorestate* rows;
  TupleDesc columns;
  AttInMetadata* input;
  // A context that is reset after every row.
  MemoryContext row_context;
  Datum* values;
  bool* nulls;
  // The number of the first column that the datanode fills: 1 behind the node's name, else 0.
  int first;
  // The lease whose rows are being taken.
  const PolarxLease* lease;
  // The column that is being read from its text, -1: none.
  int column;
  ErrorContextCallback context;
};

// Prepares the function's result as its column definition list says; raises 42601 without one.
// `with_node`: the first column, name or text, is the node's name. Until RowStoreEnd an error that
// arises while a value is read names the column, the node and the statement. RowStoreEnd, with the
// runs that the rows came from, refuses what may have been read wrongly (0A000).
RowStore* RowStoreBegin(FunctionCallInfo fcinfo, const char* sql, bool with_node);
void RowStoreEnd(RowStore* store, const RemoteRun* runs, int count);

}  // namespace polarx
