#!/usr/bin/env bash
# Measures which lines of src/core and src/engine their unit tests run; see --help.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=test/lib/common.sh
. "$root/test/lib/common.sh"

usage() {
  cat <<'HELP'
usage: test/coverage.sh [--build DIR] [TEST...]

Builds core and engine for gcov, runs core_test and engine_test, and prints for each file of
src/core, src/engine and their headers how many lines there are, how many were run, and the functions
and the lines that were not. What a forked process runs that leaves by _exit does not count.

  --build DIR   where to build, to be kept; default: a temporary directory
  TEST          core_test or engine_test alone
HELP
}

build='' tests=()
while [ $# -gt 0 ]; do
  case $1 in
    --build) build=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) tests+=("$1") ;;
  esac
  shift
done
[ ${#tests[@]} != 0 ] || tests=(core_test engine_test)
need_packages make g++ cmake pkg-config libpq-dev libgtest-dev perl
work=$(mktemp -d "${TMPDIR:-/tmp}/polarx_coverage.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
build=$(realpath -m "${build:-$work/build}")

quietly "$work/cmake.log" cmake -S "$root" -B "$build" -DCMAKE_CXX_COMPILER=g++ \
  -DCMAKE_CXX_FLAGS=--coverage
quietly "$work/build.log" cmake --build "$build" -j "$(nproc)"
find "$build" -name '*.gcda' -delete
for name in "${tests[@]}"; do
  (cd "$work" && quietly "$work/$name.log" "$build/$name") || die "$name fails"
  say "$name: $(tail -n 1 "$work/$name.log")"
done

# One object each: gcov answers with a line of JSON, here without the files of the system. A line
# counts as run if any object has run it.
find "$build" -name '*.gcda' | while read -r counts; do
  gcov --json-format --stdout --relative-only --source-prefix "$root" "$counts" 2>/dev/null
done | perl -MJSON::PP -e '
  my ($root) = @ARGV;
  my (%runs, %functions);
  while (my $text = <STDIN>) {
    for my $file (@{decode_json($text)->{files}}) {
      (my $name = $file->{file}) =~ s,^\Q$root\E/,,;
      next unless $name =~ m,^src/(core|engine)/,;
      $runs{$name}{$_->{line_number}} += $_->{count} for @{$file->{lines}};
      for my $function (@{$file->{functions}}) {
        my $place = $functions{$name}{$function->{start_line}} //= {runs => 0};
        $place->{runs} += $function->{execution_count};
        $place->{name} = $function->{demangled_name} =~ s/\bpolarx:://gr;
      }
    }
  }
  my ($all, $run) = (0, 0);
  for my $name (sort keys %runs) {
    my @lines = sort { $a <=> $b } keys %{$runs{$name}};
    my @missed = grep { !$runs{$name}{$_} } @lines;
    $all += @lines;
    $run += @lines - @missed;
    printf "%-48s %5d lines %5.1f %%\n", $name, scalar @lines, 100 * (@lines - @missed) / @lines;
    for my $line (sort { $a <=> $b } keys %{$functions{$name}}) {
      my $function = $functions{$name}{$line};
      print "    never called: $line $function->{name}\n" if !$function->{runs};
    }
    # Lines without code between two missed ones do not part them.
    my @ranges;
    my %position = map { $lines[$_] => $_ } 0 .. $#lines;
    for my $line (@missed) {
      if (@ranges && $position{$line} == $position{$ranges[-1][1]} + 1) { $ranges[-1][1] = $line }
      else { push @ranges, [$line, $line] }
    }
    print "    not run: ", join(", ", map { $_->[0] == $_->[1] ? $_->[0] : "$_->[0]-$_->[1]" } @ranges),
      "\n" if @ranges;
  }
  printf "%-48s %5d lines %5.1f %%\n", "all", $all, $all ? 100 * $run / $all : 0;
' "$root"
