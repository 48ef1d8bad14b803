// The SQL functions query, exec, query_all and exec_all: statements on datanodes within the local
// transaction. In a backend, on its only thread.
#include "pg/sql/row_store.h"
#include "pg/sql/statement_arguments.h"
#include "pg/remote/transaction.h"
#include "pg/prelude.h"

using namespace polarx;

// query(node name, sql text, VARIADIC params text[]) SETOF record
POLARX_FUNCTION(polarx_query) {
  NodeRef node;
  StatementText statement;
  StatementArguments(fcinfo, 1, true, &statement);
  NodeArgument(fcinfo, 0, &node);
  RowStore* store = RowStoreBegin(fcinfo, statement.sql, false);
  RowStoreEnd(store, TransactionRun(&node, 1, &statement, store), 1);
  return 0;
}

// exec(node name, sql text, VARIADIC params text[]) text
POLARX_FUNCTION(polarx_exec) {
  NodeRef node;
  StatementText statement;
  StatementArguments(fcinfo, 1, true, &statement);
  NodeArgument(fcinfo, 0, &node);
  const RemoteRun* run = TransactionRun(&node, 1, &statement, nullptr);
  PG_RETURN_TEXT_P(cstring_to_text(run->tag));
}

// query_all(sql text, VARIADIC params text[]) SETOF record
POLARX_FUNCTION(polarx_query_all) {
  int count;
  StatementText statement;
  StatementArguments(fcinfo, 0, true, &statement);
  const NodeRef* nodes = ClientAllNodes(&count);
  RowStore* store = RowStoreBegin(fcinfo, statement.sql, true);
  RowStoreEnd(store, TransactionRun(nodes, count, &statement, store), count);
  return 0;
}

// exec_all(sql text, VARIADIC params text[]) TABLE(node name, command_tag text)
POLARX_FUNCTION(polarx_exec_all) {
  int count;
  StatementText statement;
  StatementArguments(fcinfo, 0, true, &statement);
  const NodeRef* nodes = ClientAllNodes(&count);
  return CommandTags(fcinfo, nodes, TransactionRun(nodes, count, &statement, nullptr), count);
}
