import { END_STATUSES, type EndStatus, type Outcome } from '../core/job.ts';
import type { CompletionRecord } from './job-completion.ts';
import type { EndNote } from './witness.ts';

/** How Slurm says that a job ended: in its completion record, or in a row of squeue. */
export type End = Pick<CompletionRecord, 'slurmId' | 'state' | 'exitCode' | 'signal' | 'startTime' | 'endTime'>;

/** Slurm's word and the script's own note, as one outcome. Pure. */
export function outcomeOf(end: End, note: EndNote | null): Outcome {
  if (note !== null && endedBefore(note, end)) return byNote(note);
  const word = end.state.replace(/\+.*$/, '').replace(/^CANCELLED.*$/, 'CANCELLED');
  const status = (END_STATUSES as readonly string[]).includes(word) ? (word as EndStatus) : 'FAILED';
  const signal = end.signal === 0 ? null : end.signal;
  // For a job that was killed Slurm's record says 0:0 or 0:15; the script knows the command's own code.
  const own = status === 'COMPLETED' || status === 'FAILED' ? end.exitCode : (note?.exitCode ?? null);
  return { status, exitCode: signal === null ? own : (note?.exitCode ?? null), signal, reason: reasonOf(status, end) };
}

/**
 * The script had come to its own end before Slurm ended the job: a slurmctld that had forgotten the end met it again and failed or
 * cancelled it. Slurm's times are whole seconds, rounded down.
 */
function endedBefore(note: EndNote, { state, exitCode, signal, endTime }: End): boolean {
  const spoilt =
    /^(NODE_FAIL|BOOT_FAIL|CANCELLED)/.test(state) ||
    (/^FAILED/.test(state) && (exitCode !== note.exitCode || signal !== 0));
  return spoilt && endTime !== null && endTime > note.at;
}

function reasonOf(status: EndStatus, { exitCode, signal, state }: End): string {
  switch (status) {
    case 'COMPLETED':
      return '';
    case 'FAILED':
      return signal > 0 ? `killed by signal ${signal}` : exitReason(exitCode);
    case 'CANCELLED':
      return 'cancelled, not through this API';
    case 'TIMEOUT':
      return 'ran longer than its time limit';
    case 'OUT_OF_MEMORY':
      return 'used more memory than it asked for';
    case 'NODE_FAIL':
    case 'BOOT_FAIL':
      return 'the node failed under it';
    default:
      return `Slurm says ${state}`;
  }
}

function exitReason(exitCode: number): string {
  if (exitCode === 0) return '';
  return exitCode > 128 && exitCode <= 192
    ? `exit code ${exitCode}: the command was killed by signal ${exitCode - 128}`
    : `exit code ${exitCode}`;
}

/** What the script itself noted, where Slurm knows nothing or nothing true. */
export function byNote({ exitCode }: EndNote): Outcome {
  const status = exitCode === 0 ? 'COMPLETED' : 'FAILED';
  const reason = [exitReason(exitCode), 'by its own note, since Slurm lost its end'].filter(Boolean).join('; ');
  return { status, exitCode, signal: null, reason };
}
