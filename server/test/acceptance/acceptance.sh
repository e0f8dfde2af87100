#!/usr/bin/env bash
# Runs the acceptance blocks of reference.md as they are printed there, against the appliance at JR_BASE_URL (token JR_AUTH_TOKEN).
# Needs bash, curl, grep, sed, jq, tar, xz and sha256sum. Two things are filled in, because every appliance has its own: the address
# and the token; and on a machine without GPUs (as /health tells) gpus=1 becomes gpus=0, and is said.
set -euo pipefail

: "${JR_BASE_URL:?set JR_BASE_URL to the appliance\'s address, http://localhost:8080 say}"
: "${JR_AUTH_TOKEN:?set JR_AUTH_TOKEN to its token}"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
passed=0

ok() {
  passed=$((passed + 1))
  printf 'ok %d - %s\n' "$passed" "$1"
}
fail() {
  printf 'not ok - %s\n' "$1" >&2
  exit 1
}
# The Nth bash block of the document, made to speak to this appliance.
block() {
  awk -v want="$1" '/^```bash$/ { n++; inside = 1; next } /^```$/ { inside = 0 } inside && n == want' "$here/reference.md" |
    JR_GPUS=$gpus awk '{
      while ((i = index($0, "http://localhost:8080")) > 0) $0 = substr($0, 1, i - 1) ENVIRON["JR_BASE_URL"] substr($0, i + 21)
      while ((i = index($0, "super-secret")) > 0) $0 = substr($0, 1, i - 1) ENVIRON["JR_AUTH_TOKEN"] substr($0, i + 12)
      if (ENVIRON["JR_GPUS"] == "0") sub("gpus=1", "gpus=0")
      print
    }'
}
api() { curl -sS -H "Authorization: Bearer $JR_AUTH_TOKEN" "$@"; }

health=$(curl -sS "$JR_BASE_URL/health") || fail "nothing answers at $JR_BASE_URL/health"
jq -e '.ok == true and .slurm == true' <<<"$health" >/dev/null || fail "the appliance is not ready: $health"
ok 'health: ok and slurm are true'
gpus=$(jq -r '.gpus.total // 0' <<<"$health")
[ "$gpus" != 0 ] || echo '# this appliance has no GPU: the blocks run with gpus=0'

block 1 >1.sh
bash -eu 1.sh >1.out 2>1.err || fail "block 1: $(cat 1.err)"
grep -q 'HTTP/1.1 401' 1.out || fail 'block 1: no 401 without a token'
grep -qi '^www-authenticate: *bearer' 1.out || fail 'block 1: no WWW-Authenticate'
ok 'block 1: health needs no token, everything else answers 401 without one'

# Blocks 2 to 4 share their variables, as they do for somebody who pastes them into one shell. The polling loop ends only with
# COMPLETED, so a watch beside it ends the run when the job ends otherwise.
{
  echo 'set -eo pipefail'
  block 2
  echo 'printf "%s" "$sha" >sha'
  block 3 | sed 's/^jid=.*/&; printf "%s" "$jid" >jid/'
  block 4
} >2.sh
timeout 300 bash 2.sh >2.out 2>2.err &
blocks=$!
while kill -0 "$blocks" 2>/dev/null; do
  if [ -s jid ]; then
    now=$(api "$JR_BASE_URL/jobs/$(cat jid)" || true)
    if jq -e '.done and .status != "COMPLETED"' <<<"$now" >/dev/null 2>&1; then
      kill "$blocks" 2>/dev/null || true
      api "$JR_BASE_URL/jobs/$(cat jid)/log" >&2 || true
      fail "job $(cat jid) ended as $now"
    fi
  fi
  sleep 0.5
done
wait "$blocks" || fail "blocks 2 to 4: $(tail -n 5 2.err) $(tail -n 20 2.out)"
sha=$(cat sha)
jid=$(cat jid)
grep -q '"exists": true' 2.out || fail 'block 2: the dataset does not exist after its upload'
ok 'block 2: an uploaded tar.xz exists under its SHA-256'
grep -q '^Status: COMPLETED$' 2.out || fail 'block 3: the job did not complete'
grep -q 'JOB_START' 2.out && grep -q 'JOB_END' 2.out || fail 'block 3: the log lacks JOB_START or JOB_END'
ok 'block 3: pytorch_example completes and its log can be read'
[ -s model.pth ] && [ "$(head -c 2 model.pth)" = PK ] || fail "block 4: model.pth is no PyTorch file: $(head -c 300 model.pth)"
ok "block 4: results are listed and model.pth is downloaded ($(stat -c %s model.pth) bytes)"
api "$JR_BASE_URL/jobs/$jid/result" | jq -e '.ok == true and has("cuda_available") and has("device_count") and has("params")' >/dev/null ||
  fail 'result.json lacks ok, cuda_available, device_count or params'
ok 'result.json says what the training saw'

# The rest of the reference's commands: the simple template, output by path, a page by experiment, a cancel.
job=$(api -F "dataset_sha=$sha" -F command_key=echo_params -F 'params_json={"experimentId":"acceptance","lr":0.1}' \
  -F gpus=0 -F cpus=1 -F mem_gb=1 -F time_limit=00:05:00 "$JR_BASE_URL/jobs" | jq -r .job_id)
for _ in $(seq 120); do
  state=$(api "$JR_BASE_URL/jobs/$job" | jq -r 'if .done then .status else "" end')
  [ -z "$state" ] || break
  sleep 0.5
done
[ "${state:-}" = COMPLETED ] || fail "echo_params ended as ${state:-nothing}: $(api "$JR_BASE_URL/jobs/$job/log")"
api "$JR_BASE_URL/jobs/$job/result" | jq -e '.ok == true and .params.lr == 0.1' >/dev/null || fail 'echo_params lost its parameters'
ok 'echo_params gives its parameters back'
api "$JR_BASE_URL/outputs?experiment_id=acceptance" | jq -e '.outputs | length > 0' >/dev/null || fail 'no outputs under the experiment'
api "$JR_BASE_URL/outputs/download_by_job?job_id=$jid&rel_path=weights/model.pth" | cmp -s - model.pth || fail 'the download by path differs'
[ "$(api -o part -w '%{http_code}' -r 0-1 "$JR_BASE_URL/outputs/download_by_job?job_id=$jid&rel_path=weights/model.pth")" = 206 ] &&
  [ "$(cat part)" = PK ] || fail 'a Range request was not honoured'
ok 'outputs are found by experiment and by path, and in parts'
[ "$(api -o /dev/null -w '%{http_code}' -X POST "$JR_BASE_URL/jobs/$job/cancel")" = 409 ] || fail 'a job that has ended can be cancelled'
[ "$(api -o /dev/null -w '%{http_code}' "$JR_BASE_URL/jobs/999999999")" = 404 ] || fail 'an unknown job is no 404'
ok 'an ended job is not cancelled (409), an unknown one is not found (404)'
printf '%d passed, 0 failed\n' "$passed"
