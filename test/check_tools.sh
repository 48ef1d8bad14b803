#!/usr/bin/env bash
# Checks the sources with clang-format, cppcheck and clang-tidy: their layout, and mistakes that a
# compiler does not tell. Needs the packages clang-format, clang-tidy and cppcheck, and what a build
# needs. Some three minutes on two processors, nearly all of it clang-tidy's.
#   test/check_tools.sh [format] [cppcheck] [tidy] [analyzer]
# Without an argument all but analyzer: clang-tidy with the checks that follow each path through a
# function (some ten minutes).
# shellcheck disable=SC2086,SC2046  # lists of file names without blanks
set -eu
export LC_ALL=C.UTF-8
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
status=0
complain() { printf 'check_tools: %s\n' "$*" >&2; status=1; }

# Not by clang-format: src/pg, which breaks calls of ereport by hand, and the C files, which are in
# PostgreSQL's own style.
format() {
  local files
  files=$(find include src/core src/engine test/core test/engine test/fake test/fuzz bench \
    -name '*.cpp' -o -name '*.h' ! -name samples.h)
  clang-format --dry-run -Werror $files || complain "clang-format -i would change these lines"
  echo "check_tools: clang-format saw $(wc -w <<<"$files") files"
}

# What is not here is what cppcheck cannot know of the server: that ereport(ERROR, …) does not return.
check_cpp() {
  cppcheck --quiet -j "$(nproc)" --std=c++20 --language=c++ --library=posix \
    --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
    --suppress=missingIncludeSystem --suppress=nullPointerRedundantCheck:src/pg/* \
    --template='{file}:{line}: {severity}: {message} [{id}]' -Iinclude -Isrc src ||
    complain "cppcheck found something"
  echo "check_tools: cppcheck saw src"
}

# tidy_file FILE [CHECKS]: with the include paths of its layer, as in the Makefile.
tidy_file() {
  local includes=(-Isrc) server log
  case $1 in
    src/engine/*) includes+=(-isystem "$(pg_config --includedir)") ;;
    src/pg/*)
      for server in --includedir-server --pkgincludedir --includedir; do
        server=$(pg_config $server)
        includes+=(-isystem "$server" -isystem "$server/internal")
      done
      includes+=(-Iinclude)
      ;;
  esac
  # Only what is found counts: the rest of its words are numbers of suppressed warnings.
  log=$(clang-tidy --quiet ${2:+"--checks=$2"} "$1" -- -std=c++20 -Wall -Wextra -Wthread-safety \
    -D_GNU_SOURCE "${includes[@]}" 2>&1) && return
  grep -vE '^[0-9]+ (warnings?|errors?) |^Suppressed |^Error while ' <<<"$log"
  return 1
}

# tidy [CHECKS]
tidy() {
  local files
  files=$(ls -S src/core/*.cpp src/engine/*.cpp src/pg/*.cpp src/pg/*/*.cpp)  # the longest first
  xargs -P "$(nproc)" -n 1 bash "$0" --file "${1:-}" <<<"$files" ||
    complain "clang-tidy found something; .clang-tidy says what it looks for"
  echo "check_tools: clang-tidy${1:+ ($1)} saw $(wc -w <<<"$files") files"
}

if [ "${1:-}" = --file ]; then
  tidy_file "$3" "$2"
  exit
fi
[ $# -gt 0 ] || set -- format cppcheck tidy
for check in "$@"; do
  case $check in
    format) format ;;
    cppcheck) check_cpp ;;
    tidy) tidy ;;
    analyzer) tidy '-*,clang-analyzer-*,-clang-analyzer-alpha*' ;;
    *) complain "no such check: $check" ;;
  esac
done
exit $status
