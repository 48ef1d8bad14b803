// One statement is sent to one or several datanodes and its results are read, row by row. In a
// backend, on its only thread.
#pragma once

#include "core/time.h"

#include "pg/session/leases.h"
#include "pg/remote/errors.h"

namespace polarx {

// A statement and its parameters in text form (NULL: null), the same for all nodes.
struct StatementText {
  const char* sql;
  int count;
  const char* const* values;
  // The statement leaves nothing behind in the remote session, as far as its first word tells.
  bool plain;
};

// Takes the rows. `take` is called with each row (one tuple), and once with a result of no tuple
// after the last: in the order of the runs, a run's rows together. It may ereport.
struct RowSink {
  void (*take)(RowSink* sink, const PolarxLease* lease, const pg_result* result);
};

enum class RunState {
  kStale,      // the run reads results of batches that were sent without awaiting
  kPrefix,     // it reads results of the commands in front of the statement
  kStatement,  // it reads the statement's results
  kEnd,        // it reads what follows them, up to the point where the connection is in sync
  kDone,       // the statement has succeeded, the connection is in sync
  kFailed,     // the statement has failed; the connection is in sync, or the lease is broken
  kLost,       // the connection is lost, the lease is broken
};

// A statement under way on one lease. Plain data, palloc'd.
struct RemoteRun {
  PolarxLease* lease;
  const char* sql;
  RunState state;
  // How many commands in front of the statement have results that are not read.
  int prefix;
  // The connection is in pipeline mode.
  bool pipeline;
  // libpq has bytes that the socket did not take.
  bool unsent;
  // lease->remote.result waits until the sink may take it.
  bool held;
  // Why the run is kFailed or kLost.
  RemoteError* error;
  // The command tag of a run that is kDone.
  char tag[64];
};

// --- leases --------------------------------------------------------------------------------------

// Makes an idle lease ready for statements: non-blocking, its notices forwarded, and in pipeline
// mode if `pipeline`. Returns false if the lease is broken. No ereport.
bool LeaseTakeUp(PolarxLease* lease, bool pipeline) noexcept;

// Sends the commands without awaiting them; ++unread_batches. A lease on which they cannot be sent
// at once is broken. No ereport.
void LeasePost(PolarxLease* lease, const char* const* commands, int count) noexcept;

// --- runs ----------------------------------------------------------------------------------------

// Queues a statement in the pipeline, in front of the one that RemoteStart sends. Returns false if
// the lease is broken. The second one is for a command without parameters.
bool RemoteQueue(PolarxLease* lease, const StatementText* text);
bool RemoteQueue(PolarxLease* lease, const char* command);

// Sends the statement, behind `prefix` queued ones if the lease is in pipeline mode. It does not
// wait; a failure to send is a kLost.
void RemoteStart(RemoteRun* run, PolarxLease* lease, int prefix, const StatementText* text);

// Reads all runs to their end, waiting interruptibly for whichever has something to say. `sink`
// NULL drops the rows. `raise`: the first run that fails becomes an error at once, the others are
// then still under way; else the runs tell. Returns false if `deadline` came before their end.
bool RemoteFinish(RemoteRun* runs, int count, RowSink* sink, bool raise,
                  TimePoint deadline = kNever);

// For stop.cpp: takes what has come of one run, without rows; returns whether it has ended.
bool RemoteAdvance(RemoteRun* run);
// Waits, without interrupts, until the run can go on. Returns false if `deadline` has come.
bool RemoteWait(const RemoteRun* run, TimePoint deadline);

inline bool RemoteEnded(const RemoteRun* run) { return run->state >= RunState::kDone; }

}  // namespace polarx
