#!/usr/bin/env bash
# Builds the fuzz targets and runs them; see --help.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=test/lib/common.sh
. "$root/test/lib/common.sh"

usage() {
  cat <<'HELP'
usage: test/fuzz/run.sh [SECONDS | --runs N] [--jobs N] [--build DIR] [--corpus DIR] [TARGET...]

Builds the fuzz targets of test/fuzz with clang++, libFuzzer, AddressSanitizer and
UndefinedBehaviorSanitizer, and runs each (or those named) over its first inputs and what it makes
of them. Prints one line for each: inputs run, code covered, inputs kept, crashes. For a run of
hours see long.sh.

  SECONDS       how long each target runs; default 10
  --runs N      as many inputs for each instead (and those that it begins with)
  --jobs N      so many targets at a time; default: as many as there are processors
  --build DIR   where to build, to be kept; default: a temporary directory
  --corpus DIR  inputs that lead to new places are kept in DIR/TARGET, and are the first of the next
                run; default: forgotten

First inputs are the files in test/fuzz/corpus/TARGET and what fuzz_seeds writes. A crash, a leak,
a hang of ten seconds or a broken promise ends a target; its input, made smaller, is shown and kept,
and the exit status is 1. To run one input again: DIR/test/fuzz/fuzz_TARGET FILE.
HELP
}

# Prints NAME's line; $work/NAME.failed appears if it failed.
fuzz() {
  local name=$1 log=$work/$1.log first=("$kept/$1") status cov corpus input text
  local arguments=(-print_final_stats=1 -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$work/$1-")
  case $name in
    frames | conversation | client_stream | session_stream) arguments+=(-max_len=20000) ;;
    *) arguments+=(-max_len=2000) ;;
  esac
  mkdir -p "$kept/$name"
  [ ! -d "$work/seeds/$name" ] || first+=("$work/seeds/$name")
  [ ! -d "$here/corpus/$name" ] || first+=("$here/corpus/$name")
  "$build/test/fuzz/fuzz_$name" "${arguments[@]}" "${limit[@]}" "${first[@]}" >"$log" 2>&1
  status=$?
  text=$(sed -nE 's/^#[0-9]+.* cov: ([0-9]+) .*corp: ([0-9]+).*/\1 \2/p' "$log" | tail -n 1)
  read -r cov corpus <<<"$text"
  printf '%-16s runs %10s  edges %5s  inputs %5s  crashes %s\n' "$name" \
    "$(sed -nE 's/^stat::number_of_executed_units: *//p' "$log")" "${cov:-0}" "${corpus:-0}" \
    $((status != 0))
  [ $status != 0 ] || return 0
  touch "$work/$name.failed"
  input=$(find "$work" -maxdepth 1 -name "$name-*" | head -n 1)
  grep -aE '^not so:|ERROR:|SUMMARY:|runtime error:|ALARM' "$log" | sort -u
  if [ -z "$input" ]; then
    tail -n 20 "$log"
    return
  fi
  "$build/test/fuzz/fuzz_$name" -minimize_crash=1 -max_total_time=20 \
    -exact_artifact_path="$work/$name-smallest" "$input" >"$work/$name.minimize.log" 2>&1
  [ ! -e "$work/$name-smallest" ] || input=$work/$name-smallest
  grep -aE '^ +#[0-9]+ .* in polarx' "$log" | head -n 8
  printf 'input: %s\n' "$input"
  base64 "$input" | head -n 20
}

limit=(-max_total_time=10) jobs=$(nproc) build='' kept='' targets=()
while [ $# -gt 0 ]; do
  case $1 in
    --runs) limit=(-runs="$2"); shift ;;
    --jobs) jobs=$2; shift ;;
    --build) build=$2; shift ;;
    --corpus) kept=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    [0-9]*) limit=(-max_total_time="$1") ;;
    -*) usage >&2; exit 2 ;;
    *) targets+=("$1") ;;
  esac
  shift
done
need_packages make clang libclang-rt-dev cmake pkg-config libpq-dev
here=$root/test/fuzz
work=$(mktemp -d "${TMPDIR:-/tmp}/polarx_fuzz.XXXXXX") || exit 1
build=${build:-$work/build} kept=${kept:-$work/kept}
trap 'rm -rf "$work"' EXIT
trap 'kill $(jobs -p) 2>/dev/null; exit 143' INT TERM

quietly "$work/cmake.log" cmake -S "$root" -B "$build" -DCMAKE_CXX_COMPILER=clang++ -DPOLARX_FUZZ=ON
quietly "$work/build.log" cmake --build "$build" -j "$jobs" --target fuzz
"$build/test/fuzz/fuzz_seeds" "$work/seeds" || die "could not write the seeds"
if [ ${#targets[@]} = 0 ]; then
  for source in "$here"/*_fuzz.cpp; do targets+=("$(basename "$source" _fuzz.cpp)"); done
fi
for name in "${targets[@]}"; do
  [ -x "$build/test/fuzz/fuzz_$name" ] || die "no such target: $name"
done

# Each line whole, in the order in which the targets end.
running=0
for name in "${targets[@]}"; do
  if [ "$running" -ge "$jobs" ]; then
    wait -n
    running=$((running - 1))
  fi
  { text=$(fuzz "$name"); say "$text"; } </dev/null &
  running=$((running + 1))
done
wait
if compgen -G "$work/*.failed" >/dev/null; then
  trap - EXIT
  say "inputs and logs: $work"
  exit 1
fi
