// The arguments that the functions for work on datanodes have in common. In a backend, on its only
// thread.
#include "core/statement.h"

#include "pg/base/text.h"
#include "pg/sql/statement_arguments.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

constexpr int kMostParameters = 65535;  // of the wire protocol

void RequireNotNull(FunctionCallInfo fcinfo, int index, const char* what) {
  if (PG_ARGISNULL(index)) {
    ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", what)));
  }
}

// Returns whether the statement is plain.
bool RefuseUnlessPossible(const char* sql) {
  const StatementKind kind = ClassifyStatement(sql);
  switch (kind) {
    case StatementKind::kTransactionControl:
      ereport(ERROR, (errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
                      errmsg("transaction control on datanodes is not possible"),
                      errdetail("Remote transactions follow the local one."),
                      errcontext("statement: %.*s", ContextLength(sql), sql)));
      break;
    case StatementKind::kCopy:
      ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                      errmsg("COPY on datanodes is not possible through SQL functions"),
                      errhint("Use the C interface, polarx_pooler.h."),
                      errcontext("statement: %.*s", ContextLength(sql), sql)));
      break;
    case StatementKind::kPlain:
    case StatementKind::kOther:
      break;
  }
  return kind == StatementKind::kPlain;
}

void ReadParameters(ArrayType* array, StatementText* statement) {
  if (ARR_NDIM(array) > 1) {
    ereport(ERROR, (errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
                    errmsg("parameters must be an array of one dimension, not %d",
                           ARR_NDIM(array))));
  }
  Datum* elements;
  bool* nulls;
  deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &statement->count);
  if (statement->count > kMostParameters) {
    ereport(ERROR, (errcode(ERRCODE_TOO_MANY_ARGUMENTS),
                    errmsg("statement has %d parameters, more than the %d that are possible",
                           statement->count, kMostParameters)));
  }
  auto** values = static_cast<const char**>(palloc0(sizeof(char*) * (statement->count + 1)));
  for (int i = 0; i < statement->count; ++i) {
    values[i] = nulls[i] ? nullptr : TextDatumGetCString(elements[i]);
  }
  statement->values = values;
}

}  // namespace

void NodeArgument(FunctionCallInfo fcinfo, int index, NodeRef* node) {
  RequireNotNull(fcinfo, index, "node");
  ClientResolveNode(NameStr(*PG_GETARG_NAME(index)), node);
}

void StatementArguments(FunctionCallInfo fcinfo, int index, bool with_parameters,
                        StatementText* statement) {
  RequireNotNull(fcinfo, index, "statement");
  statement->sql = text_to_cstring(PG_GETARG_TEXT_PP(index));
  statement->count = 0;
  statement->values = nullptr;
  statement->plain = RefuseUnlessPossible(statement->sql);
  if (with_parameters && !PG_ARGISNULL(index + 1)) {
    ReadParameters(PG_GETARG_ARRAYTYPE_P(index + 1), statement);
  }
}

Datum CommandTags(FunctionCallInfo fcinfo, const NodeRef* nodes, const RemoteRun* runs, int count) {
  InitMaterializedSRF(fcinfo, 0);
  auto* result = reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo);
  for (int i = 0; i < count; ++i) {
    Datum values[] = {DirectFunctionCall1(namein, CStringGetDatum(nodes[i].name)),
                      CStringGetTextDatum(runs[i].tag)};
    bool nulls[] = {false, false};
    tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
  }
  return 0;
}

}  // namespace polarx
