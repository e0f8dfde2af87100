#!/usr/bin/env bash
# With JR_BASE_URL and JR_AUTH_TOKEN: the acceptance, against an appliance that is already running anywhere (bash, curl, jq, tar, xz).
# Without: installs what the tests need and runs everything that this machine can test, on appliances of its own (own roots, own ports).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if [ -n "${JR_BASE_URL:-}" ]; then
  exec server/test/acceptance/acceptance.sh
fi
if [ "$(id -u)" != 0 ]; then
  echo 'run_tests.sh: must run as root, because the appliances under test start daemons and jobs as other users' >&2
  exit 1
fi

# What the appliance itself needs is the entrypoint's to know; these are what only the tests use.
./entrypoint.sh --setup
missing=()
for package in curl iproute2 jq procps python3-torch tar unzip zip; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
  echo "run_tests.sh: installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

npx tsc
npx biome check .
# Live tests start whole appliances: two files at a time are what a small machine bears.
mapfile -t files < <(find server/test -name '*.test.ts' | sort)
exec node --import tsx --test --test-concurrency=2 "${files[@]}"
