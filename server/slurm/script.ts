import { quote } from 'shell-quote';
import type { JobId } from '../core/job.ts';
import type { GpuFacts } from '../core/node.ts';
import type { TemplateEntry } from '../core/template.ts';

export interface ScriptOptions {
  readonly jobId: JobId;
  readonly entry: TemplateEntry;
  readonly datasetDir: string;
  readonly resultDir: string;
  /** The parameters as JSON, in a file that only the job's user may read. */
  readonly paramsFile: string;
  readonly witnessStarted: string;
  readonly witnessEnded: string;
  /** What prepare wrote with `gpuTable`. Read when the job runs: a queued job may meet other GPUs than it was submitted to. */
  readonly gpuTableFile: string;
  readonly cpus: number;
  readonly gpus: number;
}

/** Exit codes of a script that did not run its command. Of sysexits.h: EX_IOERR and EX_TEMPFAIL. */
export const EXIT_NO_CLAIM = 74;
export const EXIT_CLAIMED_BY_ANOTHER = 75;

const THREAD_COUNTS = [
  'OMP_NUM_THREADS',
  'MKL_NUM_THREADS',
  'OPENBLAS_NUM_THREADS',
  'NUMEXPR_NUM_THREADS',
  'RAYON_NUM_THREADS',
];

/**
 * The batch script, for bash 4.4 or newer. Pure. No value of a user's stands in it: the parameters are read from a file. It starts no
 * process but the command, so that nothing stands between the job's start and its first instruction.
 */
export function renderScript(options: ScriptOptions): string {
  const { jobId, entry, cpus } = options;
  const q = (text: string) => quote([text]);
  return `#!/bin/bash
# Job ${jobId} of JobRunner. Written by it; a job cannot change it.
set -euo pipefail
umask 0027
export DATASET_DIR=${q(options.datasetDir)}
export RESULT_DIR=${q(options.resultDir)}
export JR_JOB_ID=${jobId}
export PYTHONUNBUFFERED=1
export ${THREAD_COUNTS.map((name) => `${name}=${cpus}`).join(' ')}
unset HOME && HOME=~ && [[ -d $HOME && -w $HOME ]] || HOME=/tmp
export HOME
jr_started=${q(options.witnessStarted)}
jr_ended=${q(options.witnessEnded)}

${gpuPart(options.gpus, q(options.gpuTableFile))}

JR_PARAMS=$(<${q(options.paramsFile)})
export JR_PARAMS
if [[ -z $JR_PARAMS ]]; then
  echo 'the parameters of this job are missing' >&2
  exit ${EXIT_NO_CLAIM}
fi

# The claim: the file can be made only once, so that the command runs only once, whatever happened to Slurm in between.
read -r jr_stat </proc/self/stat
read -ra jr_stat <<<"\${jr_stat##*) }"
read -r jr_boot </proc/sys/kernel/random/boot_id
set -o noclobber
if ! { exec {jr_claim}>"$jr_started"; } 2>/dev/null; then
  if [[ -e $jr_started ]]; then exit ${EXIT_CLAIMED_BY_ANOTHER}; fi
  echo 'the start of this job could not be noted; is the disk full?' >&2
  exit ${EXIT_NO_CLAIM}
fi
set +o noclobber
if ! printf 'slurm_id=%s\\npid=%s\\nticks=%s\\nboot=%s\\nat_us=%s\\ngpus=%s\\n.\\n' "\${SLURM_JOB_ID:-}" "$$" "\${jr_stat[19]}" \\
  "$jr_boot" "\${EPOCHREALTIME/[.,]/}" "$jr_gpus" >&"$jr_claim"; then
  rm -f -- "$jr_started"
  echo 'the start of this job could not be noted; is the disk full?' >&2
  exit ${EXIT_NO_CLAIM}
fi
exec {jr_claim}>&-

jr_end() {
  local code=$?
  trap - EXIT
  TZ=UTC0 printf 'JOB_END %(%Y-%m-%dT%H:%M:%SZ)T\\n' -1 || :
  printf 'exit_code=%s\\nat_us=%s\\n.\\n' "$code" "\${EPOCHREALTIME/[.,]/}" >"$jr_ended" || :
  exit "$code"
}
trap jr_end EXIT

TZ=UTC0 printf 'JOB_START %(%Y-%m-%dT%H:%M:%SZ)T\\n' -1
printf 'DATASET_DIR=%s\\nRESULT_DIR=%s\\n' "$DATASET_DIR" "$RESULT_DIR"
cd "$DATASET_DIR"

# Waited for, not in the foreground: so a signal for the script alone reaches the command at once, and its exit code is kept.
${quote([entry.interpreter, entry.file])} &
jr_child=$!
trap 'jr_signalled=1; kill -TERM "$jr_child" 2>/dev/null || :' TERM
while :; do
  jr_signalled= jr_code=0
  wait "$jr_child" || jr_code=$?
  if [[ -z $jr_signalled ]]; then break; fi
done
exit "$jr_code"
`;
}

/** Without cgroups nothing but these variables keeps a job from GPUs that it was not given; and Slurm unsets them for a job without GPUs. */
function gpuPart(gpus: number, table: string): string {
  if (gpus === 0) return `export CUDA_VISIBLE_DEVICES= ROCR_VISIBLE_DEVICES=\njr_gpus=`;
  return `export CUDA_DEVICE_ORDER=PCI_BUS_ID
# Slurm counts GPUs by its own list, CUDA in an order of its own: the UUID means the same to both.
jr_gpus=\${SLURM_JOB_GPUS:-\${CUDA_VISIBLE_DEVICES:-}}
if [[ -r ${table} ]]; then
  mapfile -t jr_table <${table}
  IFS=, read -ra jr_indexes <<<"$jr_gpus"
  jr_uuids=
  for jr_index in "\${jr_indexes[@]}"; do
    jr_uuid=\${jr_table[jr_index]:-}
    if [[ -z $jr_uuid ]]; then jr_uuids= && break; fi
    jr_uuids+=\${jr_uuids:+,}$jr_uuid
  done
  if [[ -n $jr_uuids ]]; then export CUDA_VISIBLE_DEVICES=$jr_uuids; fi
fi`;
}

/** `run/gpu-uuids`: line n is the UUID of the GPU with Slurm's index n, empty where it is not known. */
export function gpuTable(gpus: readonly GpuFacts[]): string {
  const lines: string[] = [];
  for (const { index, uuid } of gpus) lines[index] = uuid ?? '';
  return Array.from(lines, (line) => `${line ?? ''}\n`).join('');
}
