#!/usr/bin/env bash
# Runs a server with the extension under valgrind's memcheck, and a short scenario on it; see --help.
# shellcheck disable=SC2317  # the steps are called by name
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=test/lib/common.sh
. "$root/test/lib/common.sh"

usage() {
  cat <<'HELP'
usage: test/valgrind.sh [--keep]

Starts a coordinator under valgrind (every process of it) and a plain server as its datanode, walks
through statements, transactions, errors, killed sessions, parked leases, administration, a worker's
restart and the removal of the extension, stops the server, and shows what memcheck says about code of
the extension: errors, and memory that is definitely lost. What has no frame of the extension is the server's own
affair (it is not built for valgrind) and is only counted. Takes some minutes. Not part of test/run.sh.

  --keep   leave the temporary directory with all logs, and say where it is

The exit status is 0 if the scenario went through and nothing was found.
HELP
}

outside() {
  local status
  need_packages make g++ libpq-dev valgrind "postgresql-$PG_MAJOR" "postgresql-server-dev-$PG_MAJOR"
  work=$(new_work_dir polarx_valgrind) || exit 1
  copy_tree "$root" "$work/tree"
  run_unprivileged "$work" bash "$work/tree/test/valgrind.sh" --inside
  status=$?
  if [ "$1" = yes ]; then say "kept: $work"; else rm -rf "$work"; fi
  return $status
}

sql() { psql -X -q -At -v ON_ERROR_STOP=1 -d "${database:-postgres}" "$@"; }
# until_true QUERY: waits for it.
until_true() {
  for _ in $(seq 600); do
    [ "$(sql -c "$1")" != t ] || return 0
    sleep 0.2
  done
  die "did not come true: $1"
}
worker_ready="SELECT state = 'ready' FROM pooler.workers WHERE datname = 'postgres'"

statements() {
  sql <<SQL
CREATE EXTENSION polarx_pooler;
CREATE EXTENSION polarx_pooler_example;
CREATE SERVER dn1 FOREIGN DATA WRAPPER polarx_pooler
  OPTIONS (host '127.0.0.1', port '$1', dbname 'postgres');
CREATE SERVER dn2 FOREIGN DATA WRAPPER polarx_pooler
  OPTIONS (host 'localhost', port '$1', dbname 'second', max_pool_size '3');
CREATE USER MAPPING FOR postgres SERVER dn1 OPTIONS (user 'postgres');
CREATE USER MAPPING FOR postgres SERVER dn2 OPTIONS (user 'postgres');
SELECT * FROM pooler.query('dn1', 'SELECT \$1::int, \$2', '7', NULL) AS t(a int, b text);
SELECT pooler.exec_all('CREATE TABLE IF NOT EXISTS t (id int, at timestamptz)');
SELECT pooler.exec('dn1', 'INSERT INTO t SELECT g, now() FROM generate_series(1, 2000) g');
SELECT count(*), max(at) < now() FROM pooler.query_all('TABLE t') AS t(node name, id int, at timestamptz);
SELECT pooler.exec_autocommit('dn1', 'VACUUM t');
SELECT pooler.set_param('work_mem', '5MB'), pooler.set_param('search_path', 'pg_catalog, public');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pooler.exec('dn1', 'INSERT INTO t VALUES (-1)');
SAVEPOINT a;
SELECT pooler.exec('dn1', 'INSERT INTO t VALUES (-2)');
SELECT pooler.exec('dn2', 'DELETE FROM t WHERE id = -2');
ROLLBACK TO a;
SELECT pooler.set_param('statement_timeout', '9s', true);
SELECT count(*) FROM pooler.query('dn1', 'SELECT id FROM t WHERE id < 0') AS t(id int);
COMMIT;
SELECT pooler.reset_params();
DISCARD ALL;
SELECT * FROM example_two_nodes('dn1', 'dn2');
SELECT pooler.exec('dn2', 'CREATE TABLE copied (n int)');
SELECT example_pipeline('dn1', 50), example_cancel('dn1'), example_copy('dn2', 'copied', 500);
SELECT format('SELECT example_leave(%L, %L, %s)', 'dn1', state, kind)
FROM unnest('{idle,transaction,failed,copy,pipeline,busy}'::text[]) state, generate_series(0, 3) kind
\\gexec
SQL
}

# Each fails as it should.
errors() {
  local text
  for text in "SELECT pooler.exec('dn1', 'SELECT 1/0')" \
    "SELECT pooler.exec('nowhere', 'SELECT 1')" "SELECT pooler.exec('dn1', 'COMMIT')" \
    "SELECT pooler.exec('dn1', 'COPY t TO STDOUT')" \
    "SELECT pooler.exec_all('SELECT 1; SELECT 2')" \
    "SELECT * FROM pooler.query('dn1', 'SELECT 1, 2') AS t(a int)" \
    "SELECT pooler.exec('dn1', 'SELECT pg_terminate_backend(pg_backend_pid())')" \
    "SET statement_timeout = '2s'; SELECT pooler.exec('dn1', 'SELECT pg_sleep(60)')" \
    "ALTER SERVER dn2 OPTIONS (SET port '1', ADD prot 'x')"; do
    if sql -c "$text" >>"$work/errors.log" 2>&1; then die "no error: $text"; fi
  done
}

# More sessions than connections, one of which is killed while it holds one.
sessions() {
  local session pids=()
  for session in 1 2 3 4 5 6; do
    sql -c "SET pooler.queue_timeout = '200s'" \
      -c "SELECT pooler.exec('dn2', 'SELECT pg_sleep(1)')" >"$work/session$session.log" 2>&1 &
    pids+=($!)
  done
  sql -c "SELECT pooler.exec('dn1', 'SELECT pg_sleep(600)')" >"$work/killed.log" 2>&1 &
  until_true "SELECT count(pg_terminate_backend(pid)) > 0 FROM pg_stat_activity
    WHERE query LIKE '%(600)%' AND wait_event_type = 'Extension' AND pid <> pg_backend_pid()"
  wait $!
  for session in "${pids[@]}"; do wait "$session" || die "a session failed: $(cat "$work"/session*)"; done
}

# A session keeps its connections parked while others end them, take them back or end the session, and
# keeps what it borrows them with while they are not parked.
parking() {
  sql <<'SQL' || return 1
SET pooler.queue_timeout = '200s';
SELECT pg_backend_pid() AS me \gset
\setenv ME :me
SELECT 'SELECT pooler.exec_all(''SELECT 1'')' FROM generate_series(1, 5) \gexec
SELECT count(*) AS parked FROM pooler.connections WHERE state = 'parked' AND session_pid = :me \gset
SELECT 1 / (:parked = 2)::int;
SELECT pooler.clean();
SELECT pooler.exec_all('SELECT 1');
\! psql -X -q -At -c "SELECT pooler.clean()"
SELECT pooler.exec_all('SELECT 1');
ALTER SERVER dn2 OPTIONS (SET max_pool_size '1');
SELECT pooler.exec('dn2', 'SELECT 1');
\! psql -X -q -At -c "SET pooler.queue_timeout = '200s'" -c "SELECT pooler.exec('dn2', 'SELECT 2')"
SELECT pooler.exec('dn2', 'SELECT 1');
ALTER SERVER dn2 OPTIONS (SET max_pool_size '3');
SELECT pooler.exec_all('SELECT 1');
RESET ALL;
SELECT parking_park('dn1', 'SELECT 1', ending) FROM unnest('{done,unread,pipeline,dressed,done}'::text[]) ending;
SET pooler.park_leases = off;
SELECT format('SELECT pooler.exec(%L, %L)', node, 'SELECT 1')
FROM generate_series(1, 3), unnest('{dn1,dn2}'::text[]) node \gexec
SELECT * FROM pooler.query_all('SELECT generate_series(1, 3000)') AS t(node name, n int) OFFSET 5999;
SET pooler.park_leases = on;
SELECT pooler.exec_all('SELECT 1');
SQL
  # The pooler worker ends, then the session itself: what becomes of the statement after that is not asked.
  sql <<'SQL' >>"$work/parking.log" 2>&1
SELECT pooler.exec_all('SELECT 1');
\! psql -X -q -At -c "SELECT pg_terminate_backend(pid, 200000) FROM pooler.workers WHERE datname = 'postgres'"
SELECT pooler.exec_all('SELECT 1');
SELECT pg_backend_pid() AS me \gset
\setenv ME :me
\! psql -X -q -At -c "SELECT pg_terminate_backend($ME, 200000)"
SELECT pooler.exec_all('SELECT 1');
SQL
  until_true "$worker_ready AND NOT EXISTS (SELECT FROM pooler.connections WHERE state <> 'idle')"
}

administration() {
  sql <<'SQL' >"$work/administration.log"
SELECT * FROM pooler.ping();
SELECT * FROM pooler.workers, pooler.nodes;
SELECT * FROM pooler.pools;
SELECT * FROM pooler.connections;
SELECT pooler.pause('dn1'), pooler.resume('dn1'), pooler.check(), pooler.reload();
SELECT pooler.clean(), pooler.reset_stats(), pooler.session_memory();
ALTER SERVER dn2 OPTIONS (SET max_pool_size '2');
SELECT pooler.exec('dn2', 'SELECT 1');
SELECT pooler.stop();
SELECT pooler.start();
SELECT pooler.exec('dn1', 'SELECT 1');
ALTER SYSTEM SET pooler.max_pool_size = 20;
SELECT pg_reload_conf();
SQL
  local pid
  pid=$(sql -c "SELECT pid FROM pooler.workers WHERE datname = 'postgres'")
  # A session outlives the worker it was attached to.
  sql -c "SELECT pooler.exec('dn1', 'SELECT 1')" -c "SELECT pg_terminate_backend($pid)" \
    -c "SELECT pooler.exec('dn1', 'SELECT 1')" >>"$work/administration.log" 2>&1
  until_true "$worker_ready AND pid <> $pid"
  sql -c "SELECT pooler.exec_all('SELECT 1')" >>"$work/administration.log"
  sql -c 'CREATE DATABASE other'
  database=other sql -c 'CREATE EXTENSION polarx_pooler'
  sql -c 'DROP DATABASE other'
}

# From a log of memcheck: the blocks with a frame of the extension, and how many have none.
ours() {
  awk -v own=0 -v file="$(basename "$1")" '
    { sub(/^==[0-9]+== ?/, "") }
    function finish() {
      if (block ~ /\(in |at 0x|by 0x/) {
        if (block ~ /polarx::|polarx_pooler\.so|\.cpp:[0-9]/) { print file ":\n" block; own++ } else others++
      }
      block = ""
    }
    /^ *$/ { finish(); next }
    { block = block "  " $0 "\n" }
    END { finish(); print own + 0, others + 0 >"/dev/stderr" }' "$1"
}

inside() {
  local port datanode status=0
  work=$PWD tree=$PWD/tree
  trap 'stop_servers "$work"' EXIT
  trap 'exit 143' TERM
  private_server "$work/server"
  quietly "$work/make.log" make -s -C "$tree" -j "$(nproc)" install
  quietly "$work/example.log" make -s -C "$tree/test/example" install
  datanode=$(free_port)
  new_server "$work/datanode" "$datanode" "fsync = off"
  start_server "$work/datanode"
  createdb -h "$work" -p "$datanode" -U postgres second || die "could not create a database"
  port=$(free_port)
  # Processes are some thirty times slower: limits of the product are raised by that.
  new_server "$work/coordinator" "$port" "shared_preload_libraries = 'polarx_pooler'" 'fsync = off' \
    'autovacuum = off' 'jit = off' 'pooler.pooler_connect_timeout = 200s' \
    'pooler.pooler_dn_set_timeout = 200s' 'pooler.pool_maintenance_timeout = 1s' \
    'pooler.pool_print_stat_timeout = 5s' 'pooler.min_pool_size = 2' 'pooler.min_free_size = 1'
  # The server writes its cache of system tables with padding; the C library keeps what it has read
  # of resolv.conf.
  cat >"$work/suppressions" <<'SUPPRESSIONS'
{
  cache_of_system_tables
  Memcheck:Param
  write(buf)
  ...
  fun:RelationCacheInitializePhase3
}
{
  resolv_conf
  Memcheck:Leak
  ...
  fun:__resolv_conf_load
}
SUPPRESSIONS
  valgrind --quiet --trace-children=yes --suppressions="$work/suppressions" \
    --leak-check=full --show-leak-kinds=definite --num-callers=40 --fair-sched=yes \
    --log-file="$work/memcheck.%p" \
    postgres -D "$work/coordinator" >"$work/coordinator.log" 2>&1 &
  export PGHOST=$work PGPORT=$port PGUSER=postgres
  for _ in $(seq 300); do if pg_isready -q; then break; fi; sleep 0.5; done
  say "statements"; (statements "$datanode" >"$work/statements.log") || die "a statement failed"
  say "errors"; (errors) || exit 1
  say "sessions"; (sessions) || exit 1
  say "parking"; (parking >"$work/parking.log") || die "a statement with parked leases failed"
  say "administration"; (administration) || exit 1
  sql -c 'DROP EXTENSION polarx_pooler CASCADE' 2>"$work/drop.log"
  pg_ctl -D "$work/coordinator" -m fast -w -t 200 stop >"$work/stop.log" 2>&1 || die "did not stop"
  wait
  for log in "$work"/memcheck.*; do ours "$log"; done >"$work/found" 2>"$work/counts"
  cat "$work/found"
  awk '{ own += $1; others += $2 }
    END { printf "valgrind: %d findings in the extension, %d elsewhere, %d processes\n", own, others, NR
          exit own > 0 }' "$work/counts" || status=1
  exit $status
}

keep=no
for argument in "$@"; do
  case $argument in
    --keep) keep=yes ;;
    --inside) inside ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
outside $keep
