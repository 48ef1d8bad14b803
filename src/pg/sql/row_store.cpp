// Rows of datanodes become rows of a set-returning function, kept in a tuplestore. In a backend, on
// its only thread.
#include <libpq-fe.h>

#include "pg/base/text.h"
#include "pg/sql/row_store.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

void DescribeColumn(void* arg) {
  const auto* store = static_cast<const RowStore*>(arg);
  if (store->column >= 0) {
    errcontext("column \"%s\" of the result of datanode \"%s\"",
               NameStr(TupleDescAttr(store->columns, store->column)->attname),
               store->lease->node_name);
    AddStatementContext(store->lease->node_name, store->sql);
  }
}

void CheckWidth(const RowStore* store, const PGresult* result) {
  const int declared = store->columns->natts - store->first;
  if (PQnfields(result) != declared) {
    ereport(ERROR,
            (errcode(ERRCODE_DATATYPE_MISMATCH),
             errmsg_plural("result of datanode \"%s\" has %d column, but %d are declared",
                           "result of datanode \"%s\" has %d columns, but %d are declared",
                           static_cast<unsigned long>(PQnfields(result)), store->lease->node_name,
                           PQnfields(result), declared),
             (AddStatementContext(store->lease->node_name, store->sql), 0)));
  }
}

// Returns whether values of that type could be read wrongly in another style than ours.
bool DependsOnStyle(Oid type) {
  char category;
  bool preferred;
  get_type_category_preferred(type, &category, &preferred);
  return strchr("ACDRT", category) != nullptr;  // arrays, composites, dates, ranges, intervals
}

// The remote session begins with styles that every setting here reads, but SET may change them.
void CheckStyle(const RowStore* store) {
  const char* dates = PQparameterStatus(store->lease->conn, "DateStyle");
  const char* intervals = PQparameterStatus(store->lease->conn, "IntervalStyle");
  const bool dates_changed = dates != nullptr && strncmp(dates, "ISO", 3) != 0;
  const bool intervals_changed = intervals != nullptr && strcmp(intervals, "postgres") != 0;
  for (int i = store->first; (dates_changed || intervals_changed) && i < store->columns->natts;
       ++i) {
    if (DependsOnStyle(TupleDescAttr(store->columns, i)->atttypid)) {
      ereport(ERROR,
              (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
               errmsg("session on datanode \"%s\" has %s set to \"%s\"", store->lease->node_name,
                      dates_changed ? "DateStyle" : "IntervalStyle",
                      MakeValid(pstrdup(dates_changed ? dates : intervals))),
               errdetail("Column \"%s\" of type %s could be read wrongly.",
                         NameStr(TupleDescAttr(store->columns, i)->attname),
                         format_type_be(TupleDescAttr(store->columns, i)->atttypid)),
               errhint("Leave DateStyle ISO and IntervalStyle postgres there, or declare the "
                       "column as text."),
               (AddStatementContext(store->lease->node_name, store->sql), 0)));
    }
  }
}

// The first column of all rows of one node.
void ReadNodeName(RowStore* store) {
  if (store->values[0] != 0) {
    pfree(DatumGetPointer(store->values[0]));
  }
  store->values[0] =
      TupleDescAttr(store->columns, 0)->atttypid == NAMEOID
          ? DirectFunctionCall1(namein, CStringGetDatum(store->lease->node_name))
          : CStringGetTextDatum(store->lease->node_name);
}

void ReadValue(RowStore* store, const PGresult* result, int field, int encoding) {
  const int column = field + store->first;
  char* text = nullptr;
  store->column = column;
  if (PQgetisnull(result, 0, field) == 0) {
    // Verifies too: a datanode might answer anything.
    text = pg_any_to_server(PQgetvalue(result, 0, field), PQgetlength(result, 0, field), encoding);
  }
  store->nulls[column] = text == nullptr;
  store->values[column] =
      InputFunctionCall(&store->input->attinfuncs[column], text,
                        store->input->attioparams[column], store->input->atttypmods[column]);
  store->column = -1;
}

void Take(RowSink* sink, const PolarxLease* lease, const PGresult* result) {
  auto* store = static_cast<RowStore*>(sink);
  if (store->lease != lease) {
    store->lease = lease;
    if (store->first == 1) {
      ReadNodeName(store);
    }
    CheckStyle(store);
  }
  CheckWidth(store, result);
  if (PQntuples(result) == 0) {
    return;
  }
  const MemoryContext previous = MemoryContextSwitchTo(store->row_context);
  const int encoding = PQclientEncoding(lease->conn);
  for (int field = 0; field < PQnfields(result); ++field) {
    ReadValue(store, result, field, encoding);
  }
  tuplestore_putvalues(store->rows, store->columns, store->values, store->nulls);
  MemoryContextSwitchTo(previous);
  MemoryContextReset(store->row_context);
}

void CheckNodeColumn(TupleDesc columns) {
  const Oid type = TupleDescAttr(columns, 0)->atttypid;
  if (type != NAMEOID && type != TEXTOID) {
    ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
                    errmsg("first declared column must be of type name or text, not %s",
                           format_type_be(type)),
                    errdetail("It receives the name of the node.")));
  }
}

}  // namespace

RowStore* RowStoreBegin(FunctionCallInfo fcinfo, const char* sql, bool with_node) {
  auto* result = reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo);
  if (result != nullptr && IsA(result, ReturnSetInfo) && result->expectedDesc == nullptr) {
    ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR),
                    errmsg("a column definition list is required"),
                    errhint("Call the function in FROM, as in: SELECT * FROM pooler.query(...) "
                            "AS t(id int, name text).")));
  }
  InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
  auto* store = static_cast<RowStore*>(palloc0(sizeof(RowStore)));
  store->take = Take;
  store->sql = sql;
  store->rows = result->setResult;
  store->columns = result->setDesc;
  if (with_node) {
    CheckNodeColumn(store->columns);
    store->first = 1;
  }
  store->input = TupleDescGetAttInMetadata(store->columns);
  store->row_context =
      AllocSetContextCreate(CurrentMemoryContext, "polarx_pooler row", ALLOCSET_DEFAULT_SIZES);
  store->values = static_cast<Datum*>(palloc0(sizeof(Datum) * store->columns->natts));
  store->nulls = static_cast<bool*>(palloc0(sizeof(bool) * store->columns->natts));
  store->column = -1;
  store->context = {error_context_stack, DescribeColumn, store};
  error_context_stack = &store->context;
  return store;
}

void RowStoreEnd(RowStore* store, const RemoteRun* runs, int count) {
  error_context_stack = store->context.previous;
  MemoryContextDelete(store->row_context);
  for (int i = 0; i < count; ++i) {
    // The statement itself may have changed it; the datanode says so when the statement is over.
    store->lease = runs[i].lease;
    CheckStyle(store);
  }
}

}  // namespace polarx
