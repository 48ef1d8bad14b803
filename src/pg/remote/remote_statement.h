// One statement is sent to one or several datanodes and its results are read, row by row. In a
// backend, on its only thread.
#pragma once

#include "pg/session/client.h"
#include "pg/remote/remote_error.h"

namespace polarx {

// A statement and its parameters in text form (NULL: null), the same for all nodes.
struct StatementText {
  const char* sql;
  int count;
  const char* const* values;
  bool plain;  // it leaves nothing behind in the remote session, as far as its first word tells
};

// Takes the rows. `take` is called with each row (one tuple), and once with a result of no tuple
// after the last: in the order of the runs, a run's rows together. May ereport.
struct RowSink {
  void (*take)(RowSink* sink, const PolarxLease* lease, const pg_result* result);
};

enum class RunState {
  kStale,      // reads results of batches that were sent without awaiting
  kPrefix,     // reads results of the commands in front of the statement
  kStatement,  // reads the statement's results
  kEnd,        // reads what follows them, up to the point where the connection is in sync
  kDone,       // in sync
  kFailed,     // the statement has failed; in sync, or the lease is broken
  kLost,       // the connection is lost; the lease is broken
};

// A statement under way on one lease. Plain data, palloc'd.
struct RemoteRun {
  PolarxLease* lease;
  const char* sql;
  RunState state;
  int prefix;          // commands in front of the statement whose results are not read
  bool pipeline;
  bool unsent;
  bool held;           // lease->result waits to be taken by the sink
  RemoteError* error;  // of kFailed and kLost
  char tag[64];        // command tag of kDone
};

// Queues a command without parameters in the pipeline. False: broken.
bool RemoteQueue(PolarxLease* lease, const char* command);

// Sends the statement, behind `prefix` queued commands if the lease is in pipeline mode. No wait; a
// failure to send is a kLost.
void RemoteStart(RemoteRun* run, PolarxLease* lease, int prefix, const StatementText* text);

// Reads all runs to their end, waiting interruptibly for whichever has something to say. `sink`
// NULL drops the rows. `raise`: the first run that fails becomes an error at once, the others are
// then still under way. Else the runs tell.
void RemoteFinish(RemoteRun* runs, int count, RowSink* sink, bool raise);

// Cancels what an error has left under way and reads on, without rows and not interruptibly, for at
// most `limit_ms`. The runs tell how far it came.
void RemoteSettle(RemoteRun* runs, int count, int limit_ms);

}  // namespace polarx
