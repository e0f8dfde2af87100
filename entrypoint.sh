#!/bin/bash
# Starts the whole appliance in the foreground: installs what is missing, builds what is stale, prepares JR_ROOT, then becomes the
# supervisor (s6-svscan). In the image nothing is missing and nothing is built. Stop it with SIGTERM or Ctrl-C.
set -euo pipefail
export LC_ALL=C.UTF-8
export PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

say() { printf 'jobrunner: %s\n' "$*"; }
fail() {
  printf 'jobrunner: %s\n' "$*" >&2
  exit 1
}

[ "$(id -u)" = 0 ] || fail 'must be run as root: it starts daemons of several users (try: sudo ./entrypoint.sh)'
here="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)"

# What is needed and the package that has it, so that a second start asks no package manager.
missing_packages() {
  local command package
  while read -r command package; do
    command -v "$command" >/dev/null 2>&1 || printf '%s\n' "$package"
  done <<'NEEDS'
slurmctld slurmctld
slurmd slurmd
sbatch slurm-client
munged munge
s6-svscan s6
s3fs s3fs
jq jq
curl curl
xz xz-utils
zstd zstd
bzip2 bzip2
gzip gzip
python3 python3
setpriv util-linux
flock util-linux
useradd passwd
ps procps
NEEDS
  # Slurm has room for 63 characters of a host name; this library tells it a shorter one.
  local host
  host="$(uname -n)"
  host="${host%%.*}"
  [ "${#host}" -lt 64 ] || ldconfig -p | grep -q libnss_wrapper || printf 'libnss-wrapper\n'
  [ -e /etc/ssl/certs/ca-certificates.crt ] || printf 'ca-certificates\n'
}

install_packages() {
  local packages=("$@") guard=/usr/sbin/policy-rc.d guarded=no status=0
  command -v apt-get >/dev/null 2>&1 || fail "missing: ${packages[*]} (no apt-get here: Debian or Ubuntu is needed)"
  say "installing ${packages[*]}"
  # Debian starts services when it installs them; ours run under JR_ROOT, and the host's stay as they were.
  if [ ! -e "$guard" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$guard"
    chmod 755 "$guard"
    guarded=yes
  fi
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -qq && apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends "${packages[@]}"; } </dev/null >&2 || status=$?
  [ "$guarded" = no ] || rm -f "$guard"
  [ "$status" = 0 ] || fail "apt-get could not install ${packages[*]}"
}

node_is_new_enough() {
  local version
  version="$(node --version 2>/dev/null)" || return 1
  version="${version#v}"
  [ "${version%%.*}" -ge 20 ] 2>/dev/null
}

ensure_packages() {
  local packages
  mapfile -t packages < <(missing_packages | sort -u)
  [ "${#packages[@]}" = 0 ] || install_packages "${packages[@]}"
  node_is_new_enough && return
  local candidate
  candidate="$(apt-cache policy nodejs 2>/dev/null | sed -n 's/^ *Candidate: *\([0-9]*\)\..*/\1/p')"
  [ "${candidate:-0}" -ge 20 ] || fail 'Node.js 20 or newer is needed (https://nodejs.org/en/download)'
  install_packages nodejs npm
  node_is_new_enough || fail 'Node.js 20 or newer is needed (https://nodejs.org/en/download)'
}

# SQLite's addon comes compiled, from where its makers keep it; where that cannot be reached, it is compiled here.
install_npm_packages() {
  local install=(npm --prefix "$here" ci --no-audit --no-fund --loglevel=error)
  if command -v make >/dev/null 2>&1 && command -v g++ >/dev/null 2>&1; then
    "${install[@]}" >&2 || fail 'npm ci failed'
  elif ! "${install[@]}" >"$here/.build.log" 2>&1; then
    say 'npm ci failed without a compiler: trying again with one'
    install_packages make g++
    "${install[@]}" >&2 || fail 'npm ci failed'
  fi
  rm -f "$here/.build.log"
}

# A checkout has sources; the image has only dist/.
ensure_build() {
  [ -d "$here/server" ] || return 0
  local lock
  exec 8>"$here/.build.lock"
  flock 8
  if [ ! -L "$here/node_modules" ]; then
    lock="$(cksum <"$here/package-lock.json")"
    if [ "$(cat "$here/node_modules/.jobrunner-lock" 2>/dev/null)" != "$lock" ]; then
      say 'installing the npm packages'
      install_npm_packages
      printf '%s\n' "$lock" >"$here/node_modules/.jobrunner-lock"
    fi
  fi
  if [ ! -e "$here/dist/prepare.mjs" ] || [ -n "$(find "$here/server" "$here/slurm-conf" "$here/package.json" \
    -path "$here/server/test" -prune -o -newer "$here/dist/prepare.mjs" -print -quit)" ]; then
    say 'building'
    (cd "$here" && node server/build.mjs) >&2 || fail 'the build failed'
  fi
  exec 8>&-
}

ensure_packages
ensure_build
# Only what a first start would install and build.
[ "${1:-}" != --setup ] || exit 0

# Prints the supervisor's folder. All else that it says goes to stderr.
services="$(node "$here/dist/prepare.mjs" $$)" || exit 1
cd /
if [ -t 0 ]; then
  # At a terminal Ctrl-C goes to the whole process group, and s6 would end the daemons at once: only the supervisor is to hear of it.
  setsid s6-svscan "$services" &
  supervisor=$!
  trap 'kill -TERM "$supervisor" 2>/dev/null' INT TERM HUP QUIT
  status=0
  while kill -0 "$supervisor" 2>/dev/null; do
    status=0
    wait "$supervisor" || status=$?
  done
  exit "$status"
fi
# A signal to our whole process group (timeout(1) does that) must not reach the single supervisors either.
read -r stat </proc/$$/stat
read -r _ _ group _ <<<"${stat##*) }"
[ "$group" = $$ ] || exec setsid s6-svscan "$services"
exec s6-svscan "$services"
