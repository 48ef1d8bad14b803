#!/usr/bin/env bash
# Runs the fuzz targets by turns until so many inputs have been run in all; see --help.
set -u
here=$(cd "$(dirname "$0")" && pwd)

usage() {
  cat <<'HELP'
usage: test/fuzz/long.sh DIR [INPUTS [SECONDS [JOBS]]]

Runs every fuzz target for SECONDS (default 60), JOBS at a time (default 1), and begins anew until
all together have run INPUTS inputs (default 10,000,000). Each goes on from the inputs that it kept
in the turn before. A target that fails is left out from then on.

DIR keeps the build (DIR/build), what the targets found (DIR/corpus) and the lines of all turns
(DIR/log), and says at the end how many inputs each has run; the next call with DIR goes on from
there. The exit status is 1 if a target has failed. Interrupted it ends as if it were through.
HELP
}

count() { awk '$2 == "runs" { sum += $3 } END { printf "%d", sum }' "$dir/log"; }
report() {
  awk '$2 == "runs" { runs[$1] += $3; sum += $3; edges[$1] = $5; inputs[$1] = $7; failed[$1] += $9 }
    END { for (name in runs)
            printf "%-16s runs %10d  edges %5d  inputs %5d  crashes %d\n", name, runs[name],
                   edges[name], inputs[name], failed[name] | "sort"
          close("sort")
          printf "%-16s runs %10d\n", "all", sum }' "$dir/log"
  ! awk '$2 == "runs" && $9 > 0 { found = 1 } END { exit !found }' "$dir/log"
}

case ${1:---help} in
  -h | --help) usage; exit 0 ;;
esac
dir=$1 wanted=${2:-10000000} seconds=${3:-60} jobs=${4:-1}
mkdir -p "$dir" && touch "$dir/log" || exit 1
targets=()
for source in "$here"/*_fuzz.cpp; do targets+=("$(basename "$source" _fuzz.cpp)"); done
trap 'kill $turn 2>/dev/null; wait $turn; report; exit $?' INT TERM
while [ "$(count)" -lt "$wanted" ] && [ ${#targets[@]} -gt 0 ]; do
  before=$(wc -l <"$dir/log")
  "$here/run.sh" "$seconds" --jobs "$jobs" --build "$dir/build" --corpus "$dir/corpus" \
    "${targets[@]}" >>"$dir/log" 2>&1 &
  turn=$!
  wait $turn
  lines=$(tail -n +$((before + 1)) "$dir/log")
  if ! grep -q ' runs ' <<<"$lines"; then
    printf '%s\n' "$lines" >&2
    exit 1
  fi
  for name in "${!targets[@]}"; do
    ! grep -qE "^${targets[name]} .* crashes 1" <<<"$lines" || unset "targets[name]"
  done
done
report
