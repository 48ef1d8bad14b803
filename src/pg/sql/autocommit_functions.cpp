// The SQL functions exec_autocommit and exec_all_autocommit: statements that cannot run in a
// transaction, on leases of their own. In a backend, on its only thread.
#include "pg/remote/autocommit.h"
#include "pg/sql/statement_arguments.h"
#include "pg/prelude.h"

using namespace polarx;

// exec_autocommit(node name, sql text) text
POLARX_FUNCTION(polarx_exec_autocommit) {
  NodeRef node;
  StatementText statement;
  StatementArguments(fcinfo, 1, false, &statement);
  NodeArgument(fcinfo, 0, &node);
  const RemoteRun* run = AutocommitRun(&node, 1, &statement);
  PG_RETURN_TEXT_P(cstring_to_text(run->tag));
}

// exec_all_autocommit(sql text) TABLE(node name, command_tag text)
POLARX_FUNCTION(polarx_exec_all_autocommit) {
  int count;
  StatementText statement;
  StatementArguments(fcinfo, 0, false, &statement);
  const NodeRef* nodes = ClientAllNodes(&count);
  return CommandTags(fcinfo, nodes, AutocommitRun(nodes, count, &statement), count);
}
