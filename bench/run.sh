#!/usr/bin/env bash
# The benchmark with one command; see --help.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=test/lib/common.sh
. "$root/test/lib/common.sh"

all_measures=(acquire throughput nodes statements short_sessions kept_sessions query_all opening scale
  idle)

usage() {
  cat <<HELP
usage: bench/run.sh [option...]

Builds polarx_pooler, starts a coordinator, a datanode and PgBouncer in a temporary directory on free
ports, and measures: the pool, the same work without it, and the limit of the machine. All variants of a
measure run one after the other in each round; medians of the rounds count. Prints the figures, and the
ratios with their targets. Takes about ten minutes; bench/README.md says what the rows mean.

  --short          under two minutes after the build: shorter loops, one round; the exit status
                   is 1 where a ratio misses its floor (bench/targets)
  --measure NAME   only this one; may be given several times. Names:
                   ${all_measures[*]}
  --rounds N       rounds of each measure (5; short: 1)
  --output DIR     writes variants.csv, ratios.csv, raw.csv, report.txt and the charts (SVG) into DIR
  --save           the same into bench/results, which README shows
  --keep           leave the temporary directory with all logs, and say where it is

Works on Debian 12. Missing packages, pgbouncer and gnuplot among them, are installed when called by root
or where sudo works; otherwise the command to install them is printed. Called by root, everything else
runs as the user postgres. Nothing is installed into the machine's PostgreSQL; the temporary directory is
removed at the end. The figures mean something on a machine that does nothing else.
HELP
}

# ---- As the caller: packages, a copy of the tree, and the rest from there.

outside() {
  local status
  need_packages make g++ pgbouncer gnuplot-nox libpq-dev "postgresql-$PG_MAJOR" \
    "postgresql-server-dev-$PG_MAJOR"
  work=$(new_work_dir polarx_bench) || exit 1
  copy_tree "$root" "$work/tree"
  run_unprivileged "$work" bash "$work/tree/bench/run.sh" --inside "$short" "$rounds" "${measures[@]}"
  status=$?
  if [ -n "$output" ] && [ -f "$work/results/ratios.csv" ]; then
    mkdir -p "$output" && cp "$work/results/"* "$output/" && say "written: $output"
  fi
  if [ "$keep" = yes ]; then say "kept: $work"; else rm -rf "$work"; fi
  return $status
}

# ---- As the unprivileged user, in the temporary directory.

# Without the debugger's tables: the same code, built faster.
build() {
  make -s -C "$tree" -j "$(nproc)" COPT=-g0 && make -s -C "$tree" install COPT=-g0 &&
    make -s -C "$bench" -j "$(nproc)" all programs && make -s -C "$bench" install
}

# The lengths of the loops, and what they work on.
choose_lengths() {
  rows=100000 slice=2 sleep_loops=100 idle_seconds=30 statement_sessions='1 8 32'
  choose_scale 1000
  if [ "$short" = yes ]; then
    slice=0.4 sleep_loops=10 idle_seconds=4 statement_sessions='1 8'
    choose_scale 60
  fi
}

machine() {
  local cpu
  cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
  say "$(date -u +%Y-%m-%d), $(nproc) x ${cpu:-unknown processor}, Linux $(uname -r)," \
    "$(awk '/^MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo) GB," \
    "$(postgres --version | sed 's/ (Debian.*//'), $(/usr/sbin/pgbouncer --version | head -n 1)"
  say "load of the machine before: $(cut -d ' ' -f 1-3 /proc/loadavg); $rounds rounds of $slice s loops;" \
    "scale: $scale_sessions sessions, $scale_connections connections"
}

# All measures one after the other in each round; the scale does its rounds by itself.
measure_all() {
  local round
  for round in $(seq "$rounds"); do
    for measure in "${measures[@]}"; do
      [ "$measure" = scale ] || [ "$measure" = idle ] || "measure_$measure"
    done
    say "  round $round of $rounds done, $SECONDS s"
  done
  round=1
  for measure in "${measures[@]}"; do
    if [ "$measure" = scale ] || [ "$measure" = idle ]; then "measure_$measure"; fi
  done
}

inside() {
  local status
  short=$1 rounds=$2
  shift 2
  measures=("$@")
  work=$PWD tree=$PWD/tree bench=$PWD/tree/bench results=$PWD/results
  # shellcheck source=bench/lib/servers.sh
  . "$bench/lib/servers.sh"
  # shellcheck source=bench/lib/measures.sh
  . "$bench/lib/measures.sh"
  mkdir -p "$work/log" "$results"
  trap stop_all EXIT
  trap 'exit 143' TERM
  ulimit -S -n "$(ulimit -H -n)"
  say 'building'
  private_server "$work/server"
  quietly "$work/build.log" build
  choose_lengths
  say "starting the servers, $SECONDS s"
  start_datanode
  start_coordinator
  start_pgbouncer
  start_stand_in
  quietly "$work/setup.log" set_up_coordinator
  machine | tee "$results/report.txt"
  say
  measure_all
  say | tee -a "$results/report.txt"
  awk -v out="$results" -v short="$([ "$short" = yes ] && echo 1)" \
    -f "$bench/lib/report.awk" "$bench/targets" "$work/raw.csv" >"$work/table"
  status=$?
  tee -a "$results/report.txt" <"$work/table"
  cp "$work/raw.csv" "$results/"
  gnuplot -e "in='$results/variants.csv'; out='$results'" "$bench/lib/charts.gp" ||
    die 'gnuplot could not draw the charts'
  [ $status != 3 ] || say $'\nUNDER THE FLOOR, see above'
  exit $((status > 0))
}

short=no rounds='' output='' keep=no measures=()
while [ $# -gt 0 ]; do
  case $1 in
    --short) short=yes ;;
    --keep) keep=yes ;;
    --save) output=$root/bench/results ;;
    --output) output=${2:?--output needs a directory}; shift ;;
    --rounds) rounds=${2:?--rounds needs a number}; shift ;;
    --measure)
      [[ " ${all_measures[*]} " == *" ${2:-} "* ]] || die "unknown measure: ${2:-}; see --help"
      measures+=("$2"); shift ;;
    --inside) shift; inside "$@" ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done
[ ${#measures[@]} -gt 0 ] || measures=("${all_measures[@]}")
[ -n "$rounds" ] || { [ $short = yes ] && rounds=1 || rounds=5; }
[[ $rounds =~ ^[1-9][0-9]*$ ]] || die "not a number of rounds: $rounds"
[ -z "$output" ] || output=$(realpath -m "$output")
outside
