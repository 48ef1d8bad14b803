#!/usr/bin/env bash
# All tests with one command; see --help.
# shellcheck disable=SC2317  # the steps are called by name
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=test/lib/common.sh
. "$root/test/lib/common.sh"

usage() {
  cat <<'HELP'
usage: test/run.sh [quick] [--keep]

Builds polarx_pooler and runs its tests: checks of the sources and of the exported symbols (and by
clang-format, clang-tidy and cppcheck), unit tests (plain, with ThreadSanitizer, with AddressSanitizer and
UndefinedBehaviorSanitizer), half a minute of fuzzing, pg_regress, and the multi-server tests of test/tap.

  quick    unit tests without sanitizers, pg_regress, and test/tap/00*.pl
  --keep   leave the temporary directory with all logs, and say where it is

Works on Debian 12. Missing packages are installed when called by root or where sudo works; otherwise the
command to install them is printed. Called by root, everything else runs as the user postgres. Nothing is
installed into the machine's PostgreSQL: the tests use a private copy of it in a temporary directory,
which is removed at the end. The exit status is 0 if everything passed.
HELP
}

# ---- As the caller: packages, a copy of the tree, and the rest from there.

# Root alone can give the tests a process of another user; it says by which socket it is told what to do.
other_user() {
  local socket=$work/other_user
  (ulimit -n 8192  # one user's queue may take that many
    exec env -i PATH=/usr/bin:/bin perl "$root/test/lib/other_user.pl" "$socket" postgres nobody) \
    </dev/null &
  other=$!
  trap 'kill "$other" 2>/dev/null' EXIT
  until [ -S "$socket" ]; do
    kill -0 "$other" 2>/dev/null || { rm -rf "$work"; die "could not start a process of another user"; }
    sleep 0.1
  done
  environment=("POLARX_OTHER_USER=$socket")
}

end_other_user() {
  kill "$other" 2>/dev/null
  wait "$other" 2>/dev/null
  rm -f "$work/other_user"
  trap - EXIT
}

outside() {
  local keep=$1 mode=$2 status other='' environment=()
  need_packages make g++ clang libclang-rt-dev cmake pkg-config libpq-dev libgtest-dev perl libipc-run-perl \
    "postgresql-$PG_MAJOR" "postgresql-server-dev-$PG_MAJOR"
  [ "$mode" = quick ] || need_packages clang-format clang-tidy cppcheck
  work=$(new_work_dir polarx_test) || exit 1
  copy_tree "$root" "$work/tree"
  [ "$(id -u)" != 0 ] || other_user
  run_unprivileged "$work" env "${environment[@]}" bash "$work/tree/test/run.sh" --inside "$mode"
  status=$?
  [ -z "$other" ] || end_other_user
  if [ "$keep" = yes ]; then say "kept: $work"; else rm -rf "$work"; fi
  return $status
}

# ---- As the unprivileged user, in the temporary directory.

failed=()
# step NAME COMMAND...: runs it with its output in a log, of which the end is shown if it fails.
step() {
  local name=$1 log="$work/log/$1.log" start=$SECONDS
  shift
  printf '%-14s' "$name"
  if ("$@") >"$log" 2>&1; then
    say "ok      $((SECONDS - start)) s"
  else
    say "FAILED  $((SECONDS - start)) s"
    failed+=("$name")
    grep -vE '^ *Start +[0-9]+:|Passed +[0-9.]+ sec$|^\[ *[0-9]+%\]|^-- ' "$log" | tail -n 100 |
      sed 's/^/    /'
    return 1
  fi
}

jobs=$(nproc)
module() { make -s -C "$tree" -j "$jobs" && make -s -C "$tree" install; }
checks() {
  local check status=0
  for check in exports boundary settings; do "$tree/test/check_$check.sh" || status=1; done
  return $status
}
# The sanitizers' builds compile core and engine with clang++, this one the rest.
clang() {
  local objects=(src/pg/*.cpp src/pg/*/*.cpp)
  make -s -C "$tree" -B -j "$jobs" CXX=clang++ COPT=-fsyntax-only "${objects[@]/%cpp/o}"
}
example() { make -s -C "$tree/test/example" install; }

tools() { "$tree/test/check_tools.sh"; }
# Half a minute over all targets, two at a time.
fuzz() { "$tree/test/fuzz/run.sh" 6 --jobs 2 --build "$work/fuzz"; }

# A million steps, and a world of more than 10,000 slots; those of the unit tests are not optimized,
# and fewer.
simulation() {
  (cd "$tree" && g++ -std=c++20 -O2 -Isrc -Itest/core src/core/*.cpp test/core/simulation_test.cpp \
    -lgtest_main -lgtest -pthread -o "$work/simulation_test") &&
    POLARX_SIM_STEPS=1000000 POLARX_SIM_CLIENTS=9000 "$work/simulation_test"
}

# unit NAME COMPILER SANITIZERS
unit() {
  local fixed_addresses=()
  # ThreadSanitizer cannot place its memory under strong address randomization.
  if [ "$3" = thread ] && setarch -R true 2>/dev/null; then fixed_addresses=(setarch -R); fi
  cmake -S "$tree" -B "$work/$1" -DCMAKE_CXX_COMPILER="$2" -DPOLARX_SANITIZE="$3" &&
    cmake --build "$work/$1" -j "$jobs" &&
    "${fixed_addresses[@]}" ctest --test-dir "$work/$1" -j "$jobs" --output-on-failure
}

regress() {
  local port
  port=$(free_port)
  new_server "$work/regress" "$port" "shared_preload_libraries = 'polarx_pooler'" 'fsync = off'
  start_server "$work/regress"
  PGHOST=$work PGPORT=$port PGUSER=postgres make -C "$tree" installcheck && return
  cat "$tree/regress/regression.diffs"
  say "server log:"
  tail -n 15 "$work/regress.log"
  return 1
}

# The main ones, and those whose matter differs most between versions of the server: what a process
# waits for, shared memory, ends of processes, rights, settings that a reset undoes.
main_files() {
  tap test/tap/00*.pl test/tap/{101,106,109,222,231,232,233,243,251,252,305,311,313,324}_*.pl
}
# With the datanodes' programs from a folder of another version, as versions.sh lays it out.
other_datanodes() {
  export POLARX_DATANODE_HOME=$1
  tap test/tap/00*.pl test/tap/{101,222,231,232,233,243,251,305}_*.pl
}

# The names of those in a log of prove.
failed_files() { sed -nE 's,^test/tap/(.*)\.pl .*Wstat.*,\1,p' "$1"; }

tap() {
  local status test log
  mkdir -p "$work/tap"
  rm -rf "$work/tap/tmp_check"
  # The two latter are what servers from 16 on look at.
  TESTDIR=$work/tap TESTDATADIR=$work/tap/tmp_check TESTLOGDIR=$work/tap/tmp_check/log \
    prove --timer -j "$jobs" -I test/tap "$@" | tee "$work/prove.log"
  status=${PIPESTATUS[0]}
  failed_files "$work/prove.log" | while read -r test; do
    printf '\n---- %s\n' "$test"
    grep -A 4 '#   Failed test' "$work/tap/tmp_check/log/regress_log_$test" | head -n 30
    tail -n 5 "$work/tap/tmp_check/log/regress_log_$test"
    for log in "$work/tap/tmp_check/log/$test"_*.log; do
      printf -- '-- %s\n' "$(basename "$log")" && grep -vE 'LOG:  (statement|execute)' "$log" | tail -n 8
    done
  done
  return $status
}

# What failed in a step, in few lines: the first tests of each file with what they found.
failures() {
  local log="$work/log/$1.log" test found=
  case $1 in
    tap*)
      found=$(failed_files "$log" | while read -r test; do
        say "$test"
        failed_tests "$work/tap/tmp_check/log/regress_log_$test" | sed 's/^/  /'
      done) ;;
    unit-*) found=$(sed '1,/^The following tests FAILED:/d' "$log" | grep -E '^\s+[0-9]+ - ' | head -n 10) ;;
    regress) found=$(grep -F ' ... FAILED' "$log" | head -n 5) ;;
  esac
  say "${found:-$(tail -n 5 "$log")}" | cut -c 1-200
}

# The first five in a log of Test::More, or how it ended.
failed_tests() {
  local found
  found=$(awk '{ sub(/^\[[0-9:.]+\]\([0-9.]+s\) /, "") }
    /^#   Failed test/ { tests++; room = 4 }
    !/^#/ { room = 0 }
    tests <= 5 && room > 0 && !/^#   at .* line [0-9]+\.$/ { print; room-- }' "$1")
  say "${found:-$(tail -n 5 "$1")}"
}

# The runners' own closing lines, as they stand in the logs; then what failed, for those who see the
# end of all this only.
summaries() {
  local log name
  for log in "$work"/log/{unit-*,regress,tap*}.log; do
    name=$(basename "$log" .log)
    [ -e "$log" ] || continue
    say "---- ${name/tap/prove}"
    case $name in
      unit-*) grep -E 'tests? passed|^Total Test time' "$log" ;;
      regress) grep -E '^# All|tests? (passed|failed)|All [0-9]+ tests' "$log" | tail -n 3 ;;
      tap*) grep -E '^(All tests successful|Files=|Result:|Failed [0-9])' "$log" ;;
    esac
  done
  for name in "${failed[@]}"; do
    say "---- failed: $name"
    failures "$name"
  done
}

inside() {
  local mode=$1 server
  work=$PWD tree=$PWD/tree
  trap 'stop_servers "$work"' EXIT
  trap 'exit 143' TERM
  mkdir -p "$work/log"
  private_server "$work/server"
  cd "$tree" || exit 1

  step module module || exit 1
  if [ "$mode" = full ] || [ "$mode" = quick ]; then
    step checks checks
    step unit-plain unit unit-plain g++ ''
  fi
  if [ "$mode" = full ]; then
    step simulation simulation
    step clang clang
    step tools tools
    step unit-thread unit unit-thread clang++ thread
    step unit-address unit unit-address clang++ address,undefined
    step fuzz fuzz
  fi
  step example example
  [ "$mode" = datanodes ] || step regress regress
  case $mode in
    full) step tap tap test/tap/[0-9]*.pl ;;
    quick) step tap tap test/tap/00*.pl ;;
    coordinator) step tap main_files ;;
    datanodes)
      for server in "$work"/datanode-*; do
        step "tap-${server##*-}" other_datanodes "$server"
      done ;;
  esac
  say
  [ ${#failed[@]} = 0 ] || say "FAILED: ${failed[*]}"
  summaries
  exit $((${#failed[@]} > 0))
}

mode=full keep=no
for argument in "$@"; do
  case $argument in
    quick) mode=quick ;;
    --keep) keep=yes ;;
    --inside) inside "${@: -1}" ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
outside $keep $mode
