# shellcheck shell=bash disable=SC2154,SC2034  # run.sh sets and reads
# What is measured: one function for each measure, one round a call; to be sourced by bench/run.sh.
# `slice` is the length of a loop in seconds, `round` the number of the round.

# record VARIANT COMMAND...: runs a program that prints p50, p99, operations per second and CPU.
record() {
  local variant=$1 line figures=()
  shift
  line=$("$@" 2>"$work/log/$variant.log")
  # shellcheck disable=SC2181  # the assignment's status is that of the program
  [ $? = 0 ] && read -ra figures <<<"$line"
  [ "${#figures[@]}" = 4 ] ||
    die "measure $measure, $variant: $(tail -n 5 "$work/log/$variant.log")"
  printf '%s;%s;%s;%s;%s;%s\n' "$variant" "$round" "${figures[@]}" >>"$work/raw.csv"
}

# loop DATABASE SESSIONS SQL: a loop of polarx_bench; with CPU of the pooler worker's main thread.
loop() {
  "$bench/sql_load" loop "$coordinator dbname=$1 ${session_options:-}" "$2" "$slice" "$(worker_pid "$1")" \
    "SELECT * FROM $3"
}
# acquire DATABASE SESSIONS NODES [PAUSE_US [READ_ROW]], and the same over the socket;
# connect CONNINFO [READ_ROW]
acquire() { loop "$1" "$2" "bench_acquire('{$3}', ${5:-false}, START, SECONDS, ${4:-0})"; }
acquire_over_socket() {
  local session_options="options='-c pooler.park_leases=off'"  # nothing is parked
  acquire "$@"
}
connect() { loop bench 1 "bench_connect('$1', ${2:-false}, START, SECONDS)" | without_cpu; }
without_cpu() { awk '{ print $1, $2, $3, "-" }'; }

measure_acquire() {
  record fd_pass "$bench/fd_limit" 1 "$slice" 0
  record fd_pass_reset "$bench/fd_limit" 1 "$slice" 0 "$direct"
  record acquire acquire bench 1 dn
  record acquire_socket acquire_over_socket bench 1 dn
  record fd_pass_spaced "$bench/fd_limit" 1 "$slice" 1000
  record fd_pass_reset_spaced "$bench/fd_limit" 1 "$slice" 1000 "$direct"
  record acquire_spaced acquire bench 1 dn 1000
  record acquire_socket_spaced acquire_over_socket bench 1 dn 1000
  record retake loop bench 1 "bench_retake('dn', START, SECONDS)"
  record connect_bouncer connect "$bouncer"
  record connect_bouncer_unix connect "$bouncer_unix"
  record use_pool acquire bench 1 dn 0 true
  record use_bouncer connect "$bouncer" true
  record use_bouncer_unix connect "$bouncer_unix" true
  record connect_trust connect "$direct"
  record connect_scram connect "$direct_scram"
}

measure_throughput() {
  record fd_pass_8 "$bench/fd_limit" 8 "$slice" 0
  record fd_pass_32 "$bench/fd_limit" 32 "$slice" 0
  record fd_pass_reset_32 "$bench/fd_limit" 32 "$slice" 0 "$direct"
  record fd_pass_hollow_32 "$bench/fd_limit" 32 "$slice" 0 \
    "host=$work port=$stand_in_port user=postgres dbname=bench sslmode=disable gssencmode=disable"
  record acquire_32 acquire bench 32 dn_32
  record acquire_32_hollow acquire bench 32 hollow
  record acquire_32_socket acquire_over_socket bench 32 dn_32
  record acquire_32_hollow_socket acquire_over_socket bench 32 hollow
  record reset_32 "$bench/libpq_limit" reset "$direct" 32 "$slice" 2
}

measure_nodes() {
  record acquire_1_node acquire_over_socket bench 1 n1 1000
  record acquire_16_nodes acquire_over_socket bench 1 "$(seq -s, -f 'n%g' 16)" 1000
}

statements() {
  local node=NULL conninfo=NULL
  [ "$1" = lent ] && node="'dn_32'" || conninfo="'$1'"
  loop bench "$2" "bench_statements($node, $conninfo, $rows, START, SECONDS)" | without_cpu
}

measure_statements() {
  local sessions
  for sessions in $statement_sessions; do
    record "statements_lent_$sessions" statements lent "$sessions"
    record "statements_direct_$sessions" statements "$direct" "$sessions"
    record "statements_bouncer_$sessions" statements "$bouncer" "$sessions"
  done
}

# transactions SCRIPT [pgbench option...]: eight clients of the coordinator.
transactions() {
  local script=$1 seconds log
  shift
  seconds=$(awk "BEGIN { print int($slice + 0.999) }")
  log=$(pgbench -n -h "$work" -p "$port" -U postgres -c 8 -j 2 -T "$seconds" -D rows="$rows" \
    -f "$bench/scripts/$script.sql" "$@" bench) || return
  awk '/^number of failed/ && $5 > 0 { bad = 1 } /^tps/ { tps = $3 }
    END { if (bad || tps == "") exit 1; printf "- - %.1f -\n", tps }' <<<"$log"
}

# The first statement of a session, by the same scripts.
first_statement() {
  "$bench/sql_load" first "$coordinator dbname=bench" "$slice" \
    "$(sed -n 's/:id/5/; s/;$//; /^SELECT/p' "$bench/scripts/$1.sql")"
}

measure_short_sessions() {
  local way
  for way in pool local nothing fdw bouncer; do record "short_$way" transactions $way -C; done
  for way in pool local fdw; do record "first_$way" first_statement $way; done
}

measure_kept_sessions() {
  local way
  for way in pool fdw; do record "kept_$way" transactions $way; done
}

# at_nodes FUNCTION: one statement of ten milliseconds.
at_nodes() {
  "$bench/sql_load" time "$coordinator dbname=eight" "$sleep_loops" "SELECT count(*) FROM $1"
}

measure_query_all() {
  local text="'SELECT 1 FROM pg_sleep(0.01)'"
  record query_1_node at_nodes "pooler.query('n1', $text) AS t(x int)"
  record query_all_8_nodes at_nodes "pooler.query_all($text) AS t(node name, x int)"
}

# open_pool SQL [STATES COLUMN]: until the last of 200 can be lent, or is in one of the states, since
# that column's time.
open_pool() {
  "$bench/sql_load" until "$coordinator dbname=opening" "$1" \
    "SELECT count(*) >= 200, extract(epoch FROM max(${3:-created_at}) - \$1::timestamptz) * 1e6
     FROM pooler.connections WHERE node = 'many' AND state IN (${2:-'idle', 'warming'})"
}

# close_pool NODE: all of its connections in the database opening.
close_pool() {
  alter_pool opening "$1" 0
  sql opening -c "SELECT pooler.clean('$1')" >/dev/null
  await opening "SELECT coalesce(sum(total), 0) = 0 FROM pooler.pools WHERE node = '$1'"
}

# alter_pool DATABASE NODE MINIMUM
alter_pool() { sql "$1" -c "ALTER SERVER $2 OPTIONS (SET min_pool_size '$3')"; }

# Hand-outs of another node while 200 connections are opened, for about as long as that took.
acquire_while_opening() {
  local slice=$1 opener
  { sleep 0.25 && alter_pool opening many 200; } &
  opener=$!
  acquire_over_socket opening 1 other 1000
  wait $opener
}

measure_opening() {
  local length
  close_pool many
  sql opening -c 'SELECT pooler.stop()' >/dev/null
  record open_200_libpq "$bench/libpq_limit" open "$direct" 200 8
  alter_pool opening many 200
  record open_200_pool open_pool 'SELECT pooler.start()'
  close_pool many
  sql opening -c 'SELECT pooler.stop()' >/dev/null
  alter_pool opening many 200
  record open_200_warm open_pool 'SELECT pooler.start()' "'idle'" state_since
  length=$(awk -F ';' '$1 == "open_200_warm" { us = $3 } END { print us / 1e6 }' "$work/raw.csv")
  close_pool many
  alter_pool opening other 10
  await opening "SELECT sum(idle) >= 10 FROM pooler.pools WHERE node = 'other'"
  record acquire_quiet acquire_over_socket opening 1 other 1000
  record acquire_opening acquire_while_opening "$length"
  open_pool 'SELECT 1' >/dev/null || die 'the pool has not opened its 200 connections'
  close_pool many
  close_pool other
}

# CPU and wake-ups of a pooler worker that nobody uses.
idle_cost() {
  local pid=$1 seconds=$2
  cost_so_far() {
    cat /proc/"$pid"/task/*/schedstat /proc/"$pid"/task/*/status |
      awk 'NF == 3 && /^[0-9]/ { ns += $1 } /^voluntary/ { n += $2 }
        END { printf "%.0f %d\n", ns, n }'
  }
  { cost_so_far && sleep "$seconds" && cost_so_far; } |
    awk -v s="$seconds" 'NR == 1 { ns = $1; n = $2 }
      END { printf "- - %.3f %.6f\n", ($2 - n) / s, ($1 - ns) / s / 1e7 }'
}

measure_idle() {
  await small 'SELECT sum(idle) = 10 AND sum(total) = 10 FROM pooler.pools' || die 'no idle pool'
  sleep 5  # what follows the start is not idleness
  record idle idle_cost "$(worker_pid small)" "$idle_seconds"
}

# Heap and stacks. Pages of libraries and shared memory count as private, too, in smaps_rollup, until
# another process maps them.
own_kb() { awk '/^Anonymous:/ { print $2 }' "/proc/$1/smaps_rollup"; }

# per_piece KB_BEFORE KB_AFTER PIECES
per_piece() { awk "BEGIN { printf \"%.3f - - -\\n\", ($2 - $1) / $3 }"; }

# A pooler worker with many sessions and connections beside one with few; all rounds in one call.
measure_scale() {
  local pid before attached opened holder call="pooler.query('dn', 'SELECT 1') AS t(x int)"
  say "  opening $scale_connections connections, attaching $scale_sessions sessions"
  pid=$(worker_pid large)
  before=$(own_kb "$pid")
  alter_pool large dn "$scale_connections"
  await large "SELECT sum(idle) >= $scale_connections FROM pooler.pools" ||
    die "the pool has not opened its $scale_connections connections"
  opened=$(own_kb "$pid")
  mkfifo "$work/hold"
  "$bench/sql_load" hold "$coordinator dbname=large" "$scale_sessions" \
    "SELECT count(*) FROM $call" <"$work/hold" >"$work/hold.out" 2>&1 &
  holder=$!
  exec 9>"$work/hold"
  until grep -q ready "$work/hold.out"; do
    kill -0 $holder 2>/dev/null || die "could not attach the sessions: $(cat "$work/hold.out")"
    sleep 0.1
  done
  attached=$(own_kb "$pid")
  round=1
  record memory_connection per_piece "$before" "$opened" $((scale_connections - 10))
  record memory_session per_piece "$opened" "$attached" "$scale_sessions"
  for round in $(seq "$rounds"); do
    record acquire_few acquire_over_socket small 1 dn
    record acquire_many acquire_over_socket large 1 dn
  done
  exec 9>&-
  wait $holder
  rm "$work/hold"
  alter_pool large dn 10
  sql large -c 'SELECT pooler.clean()' >/dev/null
}
