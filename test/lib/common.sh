# shellcheck shell=bash
# Shell helpers that test/run.sh and demo/run.sh share; to be sourced by bash.
#
# Both scripts work in the same way: as the caller they install packages, copy the source tree into
# a new temporary directory and start themselves again from that copy, as the user postgres where
# the caller is root. All that follows happens inside that directory: the builds, a private copy of
# the server's installation with the extension in it, the servers. The machine's own PostgreSQL
# directories, its clusters and the source tree stay as they are.

PG_MAJOR=${PG_MAJOR:-15}
PG_HOME=/usr/lib/postgresql/$PG_MAJOR

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# need_packages NAME...: installs the missing ones as root or with sudo, or says what to install.
need_packages() {
  local missing=() package
  command -v dpkg-query >/dev/null ||
    die "this script knows Debian's packages only; it needs: $*"
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
      missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0

  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
      as_root=(sudo)
    else
      die "packages are missing; as root call: apt-get install --no-install-recommends ${missing[*]}"
    fi
  fi
  say "installing: ${missing[*]}"
  "${as_root[@]}" bash -c "$(declare -f install_packages); install_packages \"\$@\"" _ \
    "${missing[@]}" </dev/null || die "could not install the packages: ${missing[*]}"
}

# The server's package creates and starts a cluster at its first installation unless told not to.
install_packages() {
  local config=/etc/postgresql-common/createcluster.d log status new_directory=
  local policy=/usr/sbin/policy-rc.d new_policy=
  log=$(mktemp)
  [ -d $config ] || new_directory=$config
  mkdir -p $config
  echo 'create_main_cluster = false' >$config/polarx_pooler.conf
  # No service is to start by being installed.
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
    new_policy=$policy
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq >"$log" 2>&1
  apt-get install -y -qq --no-install-recommends "$@" >>"$log" 2>&1
  status=$?
  [ $status = 0 ] || tail -n 20 "$log" >&2
  rm -f $config/polarx_pooler.conf "$log" ${new_policy:+"$new_policy"}
  [ -z "$new_directory" ] || rmdir --ignore-fail-on-non-empty $new_directory
  return $status
}

AS_POSTGRES=(setpriv --reuid=postgres --regid=postgres --init-groups)

# new_work_dir NAME: prints a new directory that the unprivileged user can reach.
new_work_dir() {
  local parent=${TMPDIR:-/tmp} dir
  [ "$(id -u)" != 0 ] || "${AS_POSTGRES[@]}" test -x "$parent" || parent=/tmp
  dir=$(mktemp -d "$parent/$1.XXXXXX") && chmod 755 "$dir" && say "$dir"
}

# copy_tree FROM TO: the sources without what was built there and without the history.
copy_tree() {
  mkdir -p "$2"
  tar -C "$1" -c --exclude=./.git --exclude='./build*' --exclude='*.o' --exclude='*.d' \
    --exclude='*.so' . | tar -C "$2" -x --no-same-owner
}

# run_unprivileged WORK COMMAND...: runs it in a clean environment and a session of its own, as the
# user postgres when called by root. A signal to this shell is handed on to the command's process
# group, and the shell waits until the command has cleaned up.
run_unprivileged() {
  local work=$1 as_user=() child status
  shift
  mkdir -p "$work/tmp"
  if [ "$(id -u)" = 0 ]; then
    chown -R postgres "$work"
    as_user=("${AS_POSTGRES[@]}")
  fi
  "${as_user[@]}" setsid env -i --default-signal --chdir="$work" HOME="$work" TMPDIR="$work/tmp" \
    LANG=C.UTF-8 PATH="$PG_HOME/bin:/usr/local/bin:/usr/bin:/bin" TERM="${TERM:-dumb}" \
    PG_MAJOR="$PG_MAJOR" "$@" </dev/null &
  child=$!
  trap 'kill -TERM -- "-$child" 2>/dev/null' INT TERM HUP
  wait $child
  status=$?
  while kill -0 $child 2>/dev/null; do
    wait $child
    status=$?
  done
  trap - INT TERM HUP
  return $status
}

# private_server DIR: copies the server's installation below DIR and puts its programs first in PATH.
# PostgreSQL finds its files relative to the running program, so that the copy is complete in itself
# and 'make install DESTDIR=DIR' adds an extension to it. Only the JIT's bitcode is left out.
private_server() {
  local home=$1$PG_HOME
  mkdir -p "$home/lib" "$1/usr/share/postgresql" "$1/usr/include"
  cp -a "$PG_HOME/bin" "$home/"
  tar -C "$PG_HOME/lib" -c --exclude=./bitcode . | tar -C "$home/lib" -x
  cp -a "/usr/share/postgresql/$PG_MAJOR" "$1/usr/share/postgresql/"
  cp -a /usr/include/postgresql "$1/usr/include/"
  export PATH="$home/bin:$PATH"
}

# free_port: prints a TCP port on which nobody listens, below the range of outgoing connections.
free_port() {
  local port
  for _ in $(seq 200); do
    port=$((10240 + RANDOM % 20000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      say $port
      return
    fi
  done
  die "no free TCP port found"
}

# new_server DIR PORT LINE...: a cluster in DIR, listening on PORT (loopback and a socket in DIR's
# parent) with the given lines in its postgresql.conf; superuser postgres, trusted.
new_server() {
  local dir=$1 port=$2
  shift 2
  initdb -D "$dir" -U postgres -A trust -N --locale=C.UTF-8 --encoding=UTF8 >"$dir.initdb.log" ||
    die "initdb failed: $(tail -n 3 "$dir.initdb.log")"
  {
    printf "port = %s\nlisten_addresses = '127.0.0.1'\n" "$port"
    printf "unix_socket_directories = '%s'\n" "$(dirname "$dir")"
    printf '%s\n' "$@"
  } >>"$dir/postgresql.conf"
}

start_server() {
  pg_ctl -D "$1" -l "$1.log" -w -t 60 start >"$1.start.log" 2>&1 && return
  tail -n 20 "$1.log" >&2
  die "could not start the server in $1"
}

# stop_servers DIR: stops every server whose data directory lies below DIR.
stop_servers() {
  local file
  find "$1" -name postmaster.pid 2>/dev/null | while read -r file; do
    pg_ctl -D "$(dirname "$file")" -m immediate -w -t 20 stop >/dev/null 2>&1
  done
}

# quietly LOG COMMAND...: runs it; if it fails shows the end of its output and leaves.
quietly() {
  local log=$1
  shift
  ("$@") >"$log" 2>&1 && return
  tail -n 40 "$log" >&2
  die "failed: $*"
}
