#!/usr/bin/env bash
# Checks the arrows src/pg -> src/engine -> src/core: by what the files include, and by asking the
# Makefile's own rules to compile a forbidden include. Also the length of lines, functions, files.
#   test/check_boundary.sh [make argument...]
# shellcheck disable=SC2086,SC2046,SC2044  # lists of file names without blanks
set -eu
export LC_ALL=C.UTF-8
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
status=0
complain() { printf 'check_boundary: %s\n' "$*" >&2; status=1; }

# includes FILE...: "file:line: <name>" or "file:line: "name"" for each include.
includes() { grep -nHE '^[ \t]*#[ \t]*include' "$@" | sed -E 's/[ \t]*#[ \t]*include[ \t]*/ /'; }
forbid() {
  local reason=$1 line
  while read -r line; do complain "$line: $reason"; done
}

core=$(find src/core -name '*.h' -o -name '*.cpp')
engine=$(find src/engine -name '*.h' -o -name '*.cpp')
pg=$(find src/pg -name '*.h' -o -name '*.cpp')
threads='<(atomic|barrier|condition_variable|future|latch|mutex|semaphore|shared_mutex|stop_token|thread)>'

forbid 'core includes only the standard library and core' < <(includes $core |
  grep -vE ': (<[a-z_0-9]+>|"core/[a-z_0-9]+\.h")' || true)
# parking.h has the words that two processes share.
forbid 'core has no threads' < <(includes $core | grep -E "$threads" |
  grep -vE 'core/parking\.h:[0-9]+: <atomic>' || true)
forbid 'engine includes only core, engine, libpq and the system' < <(includes $engine |
  grep -vE ': (<[^>]+>|"(core|engine)/[a-z_0-9]+\.h")' || true)
forbid 'no such file' < <(includes $core $engine | grep -E ': "[^"]+"' |
  while read -r line; do
    name=${line#*\"}
    [ -e "src/${name%%\"*}" ] || echo "$line"
  done)
forbid 'a server header outside of src/pg' < <(includes $core $engine include/*.h |
  grep -E '[<"](([0-9]+/)?server/|postgres|c\.h|fmgr|miscadmin|utils/|storage/|catalog/|lib/|access/)' || true)

# In src/pg the server's headers come from prelude.h alone, after everything else.
forbid 'only prelude.h includes server headers' < <(includes $pg | grep -v '^src/pg/prelude.h:' |
  while read -r line; do
    name=$(sed -E 's/^[^ ]* ["<]([^">]*)[">].*/\1/' <<<"$line")
    case $line in
      *'<'*) [ ! -e "$(pg_config --includedir-server)/$name" ] || echo "$line" ;;
      *) [ -e "include/$name" ] || [ -e "src/$name" ] || echo "$line" ;;
    esac
  done)
forbid 'only compat.h knows versions of the server' < <(grep -nHE 'PG_VERSION_NUM|PG_MAJORVERSION|PG_WAIT_EXTENSION' $pg |
  grep -v '^src/pg/compat.h:' || true)
for file in $(find src/pg -name '*.cpp'); do
  last=$(includes "$file" | tail -n 1)
  grep -qE '"pg/prelude\.h"' <<<"$last" || complain "$file: prelude.h is not the last include"
done

# The rooms of src/pg: what each may include besides itself, core and engine. module.cpp sees all.
room_sees() {
  case $1 in
    base) echo ;;
    shared) echo base ;;
    launcher | worker) echo shared base ;;
    session) echo shared base ;;
    remote) echo session shared base ;;
    sql) echo remote session shared base ;;
    *) complain "src/pg/$1 is no room of the house" ;;
  esac
}
for folder in src/pg/*/; do
  room=$(basename "$folder")
  seen=$(room_sees "$room" | tr ' ' '|')
  forbid "src/pg/$room may not include that room" < <(includes "$folder"* |
    grep -E '"pg/[a-z]+/' | grep -vE "\"pg/($room${seen:+|$seen})/" || true)
done

# A lease has one struct per owner: others write by the owner's functions. Parking ends the borrower,
# and a reset what remote/ has applied.
written_outside() {
  grep -rnE "(lease|leases\[i\])->$2(\.[a-z_]+)? ([-+|&]?=)( |\$)" src/pg --include='*.cpp' |
    grep -vE "^src/pg/$1/" || true
}
forbid 'the members of a lease are written by their owner' < <(
  written_outside session '(hold|connection|parking)'
  written_outside remote remote | grep -v 'lease\.cpp:.*remote\.applied = nullptr;'
  written_outside sql borrower | grep -v 'session/park\.cpp:.*borrower = {};'
)

# The compile rules: each of these must fail for want of the header, and the last ones must pass.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch"/src/{core,engine,pg}
cp Makefile "$scratch/"
compiles() {
  printf '#include "%s"\n' "$2" >"$scratch/src/$1/probe.cpp"
  make -C "$scratch" "${@:3}" -B "src/$1/probe.o" >"$scratch/log" 2>&1
}
for probe in 'core postgres.h' 'core libpq-fe.h' 'core server/postgres.h' 'engine postgres.h' \
  'engine fmgr.h'; do
  if compiles "${probe% *}" "${probe#* }" "$@"; then
    complain "the rule for src/${probe% *} compiles #include \"${probe#* }\""
  elif ! grep -q 'No such file\|file not found' "$scratch/log"; then
    complain "the rule for src/${probe% *} fails otherwise: $(head -n 3 "$scratch/log")"
  fi
done
compiles core vector "$@" || complain "the rule for src/core compiles nothing: $(cat "$scratch/log")"
compiles engine libpq-fe.h "$@" || complain "the rule for src/engine does not find libpq"
for language in c c++; do
  "${CC:-cc}" -x $language -Wall -Wextra -Werror -fsyntax-only -Iinclude \
    -isystem "$(pg_config --includedir)" - <<<'#include "polarx_pooler.h"' 2>"$scratch/log" ||
    complain "polarx_pooler.h is no $language on its own: $(head -n 3 "$scratch/log")"
done

# Lengths. A function begins at column one and ends with '}' at column one.
sources=$(find src include test bench -name '*.cpp' -o -name '*.h' -o -name '*.c' 2>/dev/null || true)
scripts=$(find test demo bench -name '*.sh' -o -name '*.p[lm]' 2>/dev/null || true)
forbid 'over 450 lines' < <(wc -l $sources $scripts | awk '$1 > 450 && $2 != "total" { print $2 " " $1 }')
forbid 'over 100 columns' < <(grep -nHE '.{101}' $sources | cut -d: -f1,2 || true)
forbid 'a function over 60 lines' < <(awk '
  FNR == 1 || /^}/ { if (open && FNR - open > 60) print FILENAME ":" open " " FNR - open " " name
                     open = begin = 0 }
  !open && /^[A-Za-z].*\(/ && !/^(namespace|extern "C" \{|struct|class|enum|union)/ { begin = FNR; name = $0 }
  !open && begin && /\{$/ { open = begin }
  !open && /;$/ { begin = 0 }' $(find src include -name '*.cpp' -o -name '*.h'))

[ $status != 0 ] || echo "check_boundary: $(wc -w <<<"$sources") files keep to the house"
exit $status
