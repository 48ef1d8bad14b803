#!/usr/bin/env bash
# A coordinator and two datanodes at work; see --help.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=test/lib/common.sh
. "$root/test/lib/common.sh"

clients=8 rounds=3 seconds=4

usage() {
  cat <<'HELP'
usage: demo/run.sh [--keep]

Builds polarx_pooler, starts a coordinator and two datanodes in a temporary directory on free ports,
loads the tables of pgbench (scale 10, one million accounts) split over the two datanodes, and works on
them through the pool: point reads, a count over both, a transfer between accounts on two datanodes in
one transaction, one that is rolled back. Then it opens many short sessions, each for one read, through
postgres_fdw and through the pool, and compares. At the end: the pools, and what the server's log says.
Takes about two minutes.

  --keep   leave the servers running, and say how to connect and how to stop them

Works on Debian 12. Missing packages are installed when called by root or where sudo works; otherwise the
command to install them is printed. Called by root, everything else runs as the user postgres. Nothing is
installed into the machine's PostgreSQL: the servers run from a private copy of it in the temporary
directory, which is removed at the end.
HELP
}

# ---- As the caller: packages, a copy of the tree, and the rest from there.

outside() {
  local keep=$1 status
  need_packages make g++ libpq-dev "postgresql-$PG_MAJOR" "postgresql-server-dev-$PG_MAJOR"
  work=$(new_work_dir polarx_demo) || exit 1
  copy_tree "$root" "$work/tree"
  run_unprivileged "$work" bash "$work/tree/demo/run.sh" --inside "$keep"
  status=$?
  if [ "$keep" = no ] || [ $status != 0 ]; then rm -rf "$work"; fi
  return $status
}

# ---- As the unprivileged user, in the temporary directory.

heading() { printf '\n== %s\n\n' "$*"; }
# sql NODE [psql argument...]: as the superuser; app NODE [...]: as the role of the application.
sql() { psql -X -q -v ON_ERROR_STOP=1 -h "$work" -p "${port[$1]}" -U postgres -d bank "${@:2}"; }
app() { psql -X -q -v ON_ERROR_STOP=1 -h "$work" -p "${port[$1]}" -U app -d bank "${@:2}"; }
bench() { pgbench -n -h "$work" -p "${port[$1]}" -U app "${@:2}" bank; }

build() { make -s -C "$tree" -j "$(nproc)" && make -s -C "$tree" install; }

# Passwords over TCP as on real datanodes; who looks in over the Unix socket is trusted.
start_servers() {
  local name
  declare -gA port
  for name in coordinator dn1 dn2; do
    port[$name]=$(free_port)
    if [ $name = coordinator ]; then
      new_server "$work/$name" "${port[$name]}" 'max_connections = 200' \
        "shared_preload_libraries = 'polarx_pooler'" 'pooler.pool_print_stat_timeout = 2s'
    else
      new_server "$work/$name" "${port[$name]}" 'max_connections = 200'
      printf '%s\n' 'local all all trust' 'host all all 127.0.0.1/32 scram-sha-256' \
        >"$work/$name/pg_hba.conf"
    fi
    start_server "$work/$name"
    psql -X -q -h "$work" -p "${port[$name]}" -U postgres -d postgres \
      -c "CREATE ROLE app LOGIN PASSWORD 'secret'" -c 'CREATE DATABASE bank OWNER app' ||
      die "could not set up $name"
  done
}

# pgbench fills dn1; the branches 6 to 10 with their tellers and accounts move to dn2.
load() {
  local table
  bench dn1 -i -s 10 -I dtg && bench dn2 -i -I dt || return
  for table in branches tellers accounts; do
    app dn1 -c "COPY (DELETE FROM pgbench_$table WHERE bid > 5 RETURNING *) TO STDOUT" |
      app dn2 -c "COPY pgbench_$table FROM STDIN" || return
  done
  bench dn1 -i -I vp && bench dn2 -i -I vp &&
    sql coordinator -v port1="${port[dn1]}" -v port2="${port[dn2]}" -f "$tree/demo/setup.sql"
}

# The scripts of pgbench: one account, wherever it lives. :n is 1 for dn1, 2 for dn2.
write_scripts() {
  local pick='\set aid random(1, 1000000)
\set n (:aid - 1) / 500000 + 1'
  cat >"$work/pool.sql" <<SQL
$pick
SELECT abalance FROM pooler.query('dn:n',
    'SELECT abalance FROM pgbench_accounts WHERE aid = \$1', ':aid') AS t(abalance int);
SQL
  printf '%s\n' "$pick" 'SELECT abalance FROM accounts:n WHERE aid = :aid;' >"$work/fdw.sql"
  echo 'SELECT 1;' >"$work/nothing.sql"
}

point_reads() {
  quietly "$work/reads.log" bench coordinator -c 1 -t 500 -l --log-prefix="$work/reads" \
    -f "$work/pool.sql"
  cat "$work"/reads.[0-9]* | sort -n -k 3 | awk '{ us[NR] = $3 } END {
    printf "%d point reads: median %.2f ms, 95 %% under %.2f ms, 99 %% under %.2f ms\n",
      NR, us[int(NR * .5)] / 1e3, us[int(NR * .95)] / 1e3, us[int(NR * .99)] / 1e3 }'
}

# Sessions that were opened in the datanodes' database bank so far; the look goes another way.
datanode_logins() {
  local name
  for name in dn1 dn2; do
    sql $name -d postgres -At -c "SELECT sessions FROM pg_stat_database WHERE datname = 'bank'"
  done | awk '{ sum += $1 } END { print sum }'
}

# Short sessions: connect to the coordinator, read one account, disconnect.
churn() {
  local way before
  for _ in $(seq $rounds); do
    for way in fdw pool nothing; do
      before=$(datanode_logins)
      quietly "$work/churn.log" bench coordinator -C -c $clients -j 2 -T $seconds -f "$work/$way.sql"
      awk -v logins=$(($(datanode_logins) - before)) '
        /^number of transactions actually/ { split($NF, n, "/"); sessions = n[1] }
        /^number of failed/ && $5 > 0 { print "pgbench: " $0 > "/dev/stderr" }
        /^tps/ { printf "%.1f %d %d\n", $3, sessions, logins }' "$work/churn.log" >>"$work/churn.$way"
    done
  done
  printf '%-26s %12s %14s %12s %18s\n' '' sessions/s 'ms per session' sessions 'datanode logins'
  for way in fdw pool nothing; do
    sort -n "$work/churn.$way" | awk -v way=$way -v clients=$clients '
      BEGIN { name["fdw"] = "postgres_fdw"; name["pool"] = "pooler.query"
              name["nothing"] = "SELECT 1, no datanode" }
      { tps[NR] = $1; sessions += $2; logins += $3 }
      END { median = tps[int((NR + 1) / 2)]
            printf "%-26s %12.0f %14.2f %12d %18d\n", name[way], median, clients * 1000 / median,
              sessions, logins }'
  done
  paste <(sort -n "$work/churn.fdw") <(sort -n "$work/churn.pool") |
    awk -v middle=$(((rounds + 1) / 2)) 'NR == middle {
      printf "\nThe pool serves %.1f times as many short sessions as postgres_fdw.\n", $4 / $1 }'
}

# The last line that tells of requests, and the lines of the pools below it.
stat_lines() {
  local log="$work/coordinator.log"
  timeout 15 bash -c "until grep -q 'client_request_conn_total=[1-9]' '$log'; do sleep 0.2; done" ||
    die "no stat line in $log"
  grep -A 2 'client_request_conn_total=[1-9]' "$log" | tail -n 3 | sed 's/.*\(\[pooler stat\]\)/\1/'
}

leave() {
  [ $? = 0 ] || tail -v -n 15 "$work"/{coordinator,dn1,dn2}.log >&2 2>/dev/null
  stop_servers "$work"
}

stay() {
  cat >"$work/stop" <<SCRIPT
#!/usr/bin/env bash
# Stops the servers of the demo and removes its directory.
[ "\$(id -u)" != 0 ] || exec ${AS_POSTGRES[*]} bash "\$0"
for name in coordinator dn1 dn2; do "$(command -v pg_ctl)" -D "$work/\$name" -m fast stop; done
rm -rf "$work"
SCRIPT
  heading 'The servers are running'
  say "connect:  psql -h $work -p ${port[coordinator]} -U app bank         (or -U postgres)"
  say "          datanodes: ports ${port[dn1]} and ${port[dn2]}, same directory"
  say "log:      $work/coordinator.log"
  say "stop:     bash $work/stop"
}

inside() {
  local keep=$1
  work=$PWD tree=$PWD/tree
  trap leave EXIT
  trap 'exit 143' TERM
  say 'building, starting a coordinator and two datanodes'
  private_server "$work/server"
  quietly "$work/build.log" build
  start_servers
  say 'loading one million accounts'
  quietly "$work/load.log" load
  write_scripts

  heading 'Work through the pool'
  app coordinator -e -f "$tree/demo/work.sql" || exit 1
  say
  point_reads
  heading "Short sessions: $clients clients, $rounds rounds of $seconds s each, medians"
  churn
  heading 'pooler.pools'
  sql coordinator -c 'SELECT node, remote_user, total, idle, leased, waiting, max_size, acquired, hits,
    connects, acquire_p50_us, acquire_p99_us FROM pooler.pools ORDER BY node'
  heading 'The stat lines in the log of the coordinator'
  stat_lines
  if [ "$keep" = yes ]; then
    stay
    trap - EXIT
  fi
}

keep=no
for argument in "$@"; do
  case $argument in
    --keep) keep=yes ;;
    --inside) inside "${@: -1}"; exit ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
outside $keep
