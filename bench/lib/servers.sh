# shellcheck shell=bash disable=SC2154,SC2034  # run.sh sets and reads
# The servers of the benchmark: a coordinator, one datanode that all nodes lead to, PgBouncer in
# front of it; to be sourced by bench/run.sh.

# How many idle sessions and pooled connections the machine's memory and descriptors allow. A
# session takes two connections' processes with it, of at most 3.5 MB each.
choose_scale() {
  local memory_mb limit
  memory_mb=$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)
  limit=$(ulimit -n)
  scale_sessions=$((memory_mb / 2 * 2 / 21))
  [ "$limit" = unlimited ] || [ $scale_sessions -le $(((limit - 300) / 4)) ] ||
    scale_sessions=$(((limit - 300) / 4))
  [ $scale_sessions -le "$1" ] || scale_sessions=$1
  scale_connections=$((scale_sessions * 2))
}

start_coordinator() {
  port=$(free_port)
  new_server "$work/coordinator" "$port" "max_connections = $((scale_sessions + 100))" \
    "shared_preload_libraries = 'polarx_pooler'" 'max_worker_processes = 16' 'fsync = off' \
    'max_wal_senders = 0' 'pooler.pool_print_stat_timeout = -1'
  start_server "$work/coordinator"
  coordinator="host=$work port=$port user=postgres"
}

start_datanode() {
  datanode_port=$(free_port)
  new_server "$work/datanode" "$datanode_port" "max_connections = $((scale_connections + 600))" \
    'fsync = off' 'max_wal_senders = 0'
  printf '%s\n' 'local all all trust' 'host all scram 127.0.0.1/32 scram-sha-256' \
    'host all all 127.0.0.1/32 trust' >"$work/datanode/pg_hba.conf"
  start_server "$work/datanode"
  psql -X -q -h "$work" -p "$datanode_port" -U postgres -d postgres -v ON_ERROR_STOP=1 \
    -v rows="$rows" -f "$bench/datanode.sql" || die 'could not set up the datanode'
  local common="port=$datanode_port dbname=bench sslmode=disable gssencmode=disable"
  direct="host=127.0.0.1 user=postgres $common"
  direct_scram="host=127.0.0.1 user=scram password=secret $common"
}

# Its input is held open as long as this shell lives.
start_stand_in() {
  stand_in_port=$(free_port)
  mkfifo "$work/stand_in.input"
  "$bench/stand_in" "$work" "$stand_in_port" <"$work/stand_in.input" >"$work/log/stand_in.log" 2>&1 &
  exec 8>"$work/stand_in.input"
}

start_pgbouncer() {
  bouncer_port=$(free_port)
  echo '"postgres" ""' >"$work/userlist"
  cat >"$work/pgbouncer.ini" <<INI
[databases]
bench = host=127.0.0.1 port=$datanode_port dbname=bench
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $bouncer_port
unix_socket_dir = $work
auth_type = trust
auth_file = $work/userlist
pool_mode = session
default_pool_size = 64
max_client_conn = 1000
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
logfile = $work/pgbouncer.log
pidfile = $work/pgbouncer.pid
INI
  quietly "$work/pgbouncer.start.log" /usr/sbin/pgbouncer -q -d "$work/pgbouncer.ini"
  local common="port=$bouncer_port user=postgres dbname=bench sslmode=disable gssencmode=disable"
  bouncer="host=127.0.0.1 $common"
  bouncer_unix="host=$work $common"
  for _ in $(seq 100); do
    psql -X -q -At -d "$bouncer" -c 'SELECT 1' >/dev/null 2>&1 && return
    sleep 0.1
  done
  die "pgbouncer does not answer: $(tail -n 5 "$work/pgbouncer.log")"
}

# sql DATABASE [psql argument...]: on the coordinator.
sql() { psql -X -q -At -v ON_ERROR_STOP=1 -d "$coordinator dbname=$1" "${@:2}"; }

# node DATABASE NAME OPTION...: a node, with a mapping for the superuser.
node() {
  local options="host '127.0.0.1', port '$datanode_port', dbname 'bench'"
  [ $# = 2 ] || options="$options, $3"
  printf '%s\n' "CREATE SERVER $2 FOREIGN DATA WRAPPER polarx_pooler OPTIONS ($options);" \
    "CREATE USER MAPPING FOR postgres SERVER $2 OPTIONS (user 'postgres');" | sql "$1"
}

# fdw NAME PORT: the table item through postgres_fdw, as item_NAME.
fdw() {
  printf '%s\n' "CREATE SERVER $1 FOREIGN DATA WRAPPER postgres_fdw
      OPTIONS (host '127.0.0.1', port '$2', dbname 'bench', sslmode 'disable', gssencmode 'disable');" \
    "CREATE USER MAPPING FOR postgres SERVER $1 OPTIONS (user 'postgres');" \
    "CREATE FOREIGN TABLE item_$1 (id int, value int) SERVER $1 OPTIONS (table_name 'item');" |
    sql bench
}

# One database for each arrangement of nodes: each has a pooler worker of its own.
set_up_coordinator() {
  local database i
  for database in bench eight small large opening; do
    psql -X -q -d "$coordinator dbname=postgres" -c "CREATE DATABASE $database" &&
      sql $database -c 'CREATE EXTENSION polarx_pooler' -c 'CREATE EXTENSION polarx_bench' || return
  done
  node bench dn &&
    node bench dn_32 "max_pool_size '32', min_pool_size '16', min_free_size '0'" &&
    node bench hollow "max_pool_size '32', min_pool_size '16', min_free_size '0'" &&
    sql bench -c "ALTER SERVER hollow OPTIONS (SET host '$work', SET port '$stand_in_port')" || return
  for i in $(seq 16); do node bench "n$i" "min_pool_size '3', min_free_size '2'" || return; done
  for i in $(seq 8); do node eight "n$i" || return; done
  node small dn "min_pool_size '10', min_free_size '0'" &&
    node large dn "min_pool_size '10', min_free_size '0', max_pool_size '$((scale_connections * 2))'" &&
    node opening many "min_pool_size '0', min_free_size '0', max_pool_size '400'" &&
    node opening other "min_pool_size '0', min_free_size '0'" &&
    sql bench -c 'CREATE EXTENSION postgres_fdw' &&
    psql -X -q -d "$coordinator dbname=bench" -v ON_ERROR_STOP=1 -v rows="$rows" -f "$bench/item.sql" &&
    fdw direct "$datanode_port" && fdw bouncer "$bouncer_port"
}

worker_pid() { sql "$1" -c "SELECT pid FROM pooler.workers WHERE datname = '$1'"; }

# await DATABASE CONDITION: until it is true, at most three minutes.
await() { "$bench/sql_load" until "$coordinator dbname=$1" 'SELECT 1' "$2" >/dev/null; }

stop_all() {
  local pid
  if pid=$(cat "$work/pgbouncer.pid" 2>/dev/null); then kill "$pid" 2>/dev/null; fi
  exec 8>&-
  stop_servers "$work"
}
