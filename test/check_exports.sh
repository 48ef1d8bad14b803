#!/usr/bin/env bash
# Checks with nm that the shared library shows the symbols that PostgreSQL and other extensions
# call, all of them and nothing else.
#   test/check_exports.sh [polarx_pooler.so]
# shellcheck disable=SC2086  # lists of symbols
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
library=${1:-$root/polarx_pooler.so}

# The C functions that the SQL script names, each with its description for the server.
sql=$(sed 's/--.*//' "$root"/sql/polarx_pooler--*.sql | tr '\n' ' ')
unnamed=$(grep -oE "'MODULE_PATHNAME' *[^, ]" <<<"$sql" | wc -l)
functions=$(grep -oE "'MODULE_PATHNAME' *, *'[a-z0-9_]+'" <<<"$sql" | sed "s/.*'\(.*\)'/\1/" | sort -u)
# The C interface of other extensions.
interface=$(sed 's,//.*,,' "$root/include/polarx_pooler.h" | grep -oE '\bpolarx_pooler_[a-z0-9_]+ *\(' |
  tr -d ' (' | sort -u)

expected=$({
  printf '%s\n' Pg_magic_func _PG_init polarx_launcher_main polarx_worker_main
  printf '%s\n' $functions $interface
  printf 'pg_finfo_%s\n' $functions
} | sort -u)
exported=$(nm -D --defined-only "$library" | awk '{ print $NF }' | sort -u)

status=0
complain() { printf 'check_exports: %s\n' "$*" >&2; status=1; }
[ "$unnamed" = 0 ] || complain "$unnamed functions of the SQL script name no C symbol"
[ -n "$functions" ] || complain "the SQL script names no C function"
[ -n "$interface" ] || complain "polarx_pooler.h declares no function"
for symbol in $(comm -13 <(echo "$expected") <(echo "$exported")); do
  complain "exported, but nobody calls it: $(c++filt "$symbol")"
done
for symbol in $(comm -23 <(echo "$expected") <(echo "$exported")); do
  complain "not exported: $symbol"
done
# A source file that the Makefile leaves out is missed at the server's start only, or later.
for symbol in $(nm -DC --undefined-only "$library" | awk '{ print $2 }' | grep '^polarx' || true); do
  complain "used, but in no object of the Makefile: $symbol"
done
[ $status != 0 ] || echo "check_exports: $(wc -l <<<"$exported") symbols, all wanted"
exit $status
