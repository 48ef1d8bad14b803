// The arguments that the functions for work on datanodes have in common. In a backend, on its only
// thread.
#pragma once

#include "pg/remote/run.h"
#include "pg/prelude.h"

namespace polarx {

// Reads argument `index`, the node. Raises 22004 if it is NULL, and the errors of
// ClientResolveNode.
void NodeArgument(FunctionCallInfo fcinfo, int index, NodeRef* node);

// Reads arguments `index`, the statement, and `index` + 1, its parameters, if the function has
// them. Raises 22004 for a NULL statement, 2D000 for transaction control, 0A000 for COPY, 2202E for
// parameters in more than one dimension.
void StatementArguments(FunctionCallInfo fcinfo, int index, bool with_parameters,
                        StatementText* statement);

// Puts (node, command tag) of each run into the function's result. The runs' leases may be gone.
Datum CommandTags(FunctionCallInfo fcinfo, const NodeRef* nodes, const RemoteRun* runs, int count);

}  // namespace polarx
