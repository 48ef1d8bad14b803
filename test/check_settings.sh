#!/usr/bin/env bash
# Checks that the parameters which src/pg defines and those of README.md's parameter table are the
# same ones.
set -eu
cd "$(dirname "$0")/.."
defined=$(grep -rhoE '"pooler\.[a-z_]+"' src/pg | tr -d '"' | sort -u)
# shellcheck disable=SC2016
documented=$(grep -oE '^\| *`pooler\.[a-z_]+`' README.md | grep -oE 'pooler\.[a-z_]+' | sort -u)
status=0
complain() { printf 'check_settings: %s\n' "$*" >&2; status=1; }
[ "$(wc -w <<<"$defined")" -ge 14 ] || complain "fewer than fourteen parameters found in src/pg"
for name in $(comm -23 <(echo "$defined") <(echo "$documented")); do
  complain "$name has no row in README.md"
done
for name in $(comm -13 <(echo "$defined") <(echo "$documented")); do
  complain "README.md has a row for $name, which src/pg does not define"
done
[ $status != 0 ] || echo "check_settings: $(wc -w <<<"$defined") parameters, all in README.md"
exit $status
