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
  int prefix;  // commands in front of the statement whose results are not read
  bool pipeline;
  bool unsent;
  bool held;           // lease->result waits to be taken by the sink
  RemoteError* error;  // of kFailed and kLost
  char tag[64];        // command tag of kDone
};

// --- leases --------------------------------------------------------------------------------------

// Makes an idle lease ready for statements: non-blocking, its notices forwarded, and in pipeline
// mode if `pipeline`. Returns false if the lease is broken. No ereport.
bool LeaseTakeUp(PolarxLease* lease, bool pipeline) noexcept;

// Sends the commands without awaiting them; ++unread_batches. A lease on which they cannot be sent
// at once is broken. No ereport.
void LeasePost(PolarxLease* lease, const char* const* commands, int count) noexcept;

// --- runs ----------------------------------------------------------------------------------------

// Queues a statement in the pipeline, in front of the one that RemoteStart sends. False: broken.
bool RemoteQueue(PolarxLease* lease, const StatementText* text);
bool RemoteQueue(PolarxLease* lease, const char* command);  // without parameters

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
// Waits until the run can go on. False: `deadline` has come.
bool RemoteWait(const RemoteRun* run, TimePoint deadline, bool interruptible);

inline bool RemoteEnded(const RemoteRun* run) { return run->state >= RunState::kDone; }

}  // namespace polarx
