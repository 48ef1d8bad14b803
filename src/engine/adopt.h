// Wraps a lent descriptor in a PGconn with public libpq functions only; in a backend, on its only
// thread.
#pragma once

#include <libpq-fe.h>

#include <cstdint>

#include "core/protocol.h"
#include "core/status.h"
#include "core/time.h"
#include "engine/unique_fd.h"

namespace polarx {

// A new PGconn as AdoptConnection makes it, but with nobody at its other end; the caller's.
Result<PGconn*> StartConnection(std::int32_t backend_pid, const protocol::Parameters& parameters,
                                Duration limit);

// A new PGconn that speaks over `fd`: CONNECTION_OK, idle, blocking mode, with `parameters` and
// `backend_pid` as the datanode's own. Works like this: libpq connects to a listener of this
// function's own (abstract name of 128 random bits, peers of another pid turned away), which plays
// the server's part of the startup; then `fd` is put over the PGconn's socket, close-on-exec.
// Takes at most `limit` (it talks to itself; the limit is for a process that is starved).
// On failure `fd` is closed; 53000 if descriptors (three more than `fd`, for a moment) are used up.
// Makes `fd` non-blocking, as libpq needs it; that holds for all copies of it.
Result<PGconn*> AdoptConnection(UniqueFd fd, std::int32_t backend_pid,
                                const protocol::Parameters& parameters, Duration limit);

// Puts `fd`, which stays the caller's, over the PGconn's socket, close-on-exec. False: one of them
// is closed; errno says which error.
bool PutUnder(PGconn* conn, int fd);

// Puts a placeholder over the PGconn's socket, so that nothing libpq says reaches the datanode any
// more, and the datanode's descriptor is closed in this process. Afterwards PQfinish is safe. To be
// called before the lease is given back. It cannot fail, save by somebody having closed the
// placeholder and used up the descriptors: then the connection is shut down for everybody.
void DetachConnection(PGconn* conn);

// Does `conn` report these values and no others? `values` as ReportedParameters made them.
bool ReportsStill(const PGconn* conn, const protocol::Parameters& values);

// Parameter values of `conn` that differ from `lent`, or are reported and were not in it.
protocol::Parameters ChangedParameters(const PGconn* conn, const protocol::Parameters& lent);

// Parameters that a server reports (of all versions we know).
inline constexpr const char* kReportedParameters[] = {"server_version",
                                                      "client_encoding",
                                                      "standard_conforming_strings",
                                                      "DateStyle",
                                                      "TimeZone",
                                                      "IntervalStyle",
                                                      "integer_datetimes",
                                                      "server_encoding",
                                                      "is_superuser",
                                                      "session_authorization",
                                                      "application_name",
                                                      "default_transaction_read_only",
                                                      "in_hot_standby",
                                                      "scram_iterations",
                                                      "search_path"};

// The values of kReportedParameters that `conn` has.
protocol::Parameters ReportedParameters(const PGconn* conn);

}  // namespace polarx
