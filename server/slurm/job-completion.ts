import { type FileHandle, open } from 'node:fs/promises';
import type { JobId } from '../core/job.ts';
import { jobIdOfName } from './commands.ts';

/** Slurm's own record of an ended job: a line of the jobcomp/filetxt plugin. */
export interface CompletionRecord {
  readonly slurmId: string;
  readonly jobId: JobId;
  readonly state: string;
  /** Slurm had given it the node: it was about to start, or had. */
  readonly placed: boolean;
  readonly exitCode: number;
  readonly signal: number;
  readonly submitTime: number | null;
  readonly startTime: number | null;
  readonly endTime: number | null;
}

// The order of the fields is that of src/plugins/jobcomp/filetxt (JOB_FORMAT), the same in 22.05 and 24.11.
const LINE =
  /^JobId=(\d+) UserId=\S+ GroupId=\S+ Name=(\S+) JobState=(\S+) .*?StartTime=(\S+) EndTime=(\S+) NodeList=(\S+) .* SubmitTime=(\S+) .* ExitCode=(\d+):(\d+) ?$/;

/** Null for jobs that are not ours and for lines that make no sense. */
export function parseCompletion(line: string): CompletionRecord | null {
  const match = LINE.exec(line);
  if (match === null) return null;
  const [, slurmId, name, state, start, end, nodes, submit, exitCode, signal] = match as unknown as string[];
  const jobId = jobIdOfName(name ?? '');
  if (jobId === null || slurmId === undefined || state === undefined) return null;
  return {
    slurmId,
    jobId,
    state,
    placed: nodes !== '(null)' && nodes !== undefined,
    exitCode: Number(exitCode),
    signal: Number(signal),
    submitTime: localTime(submit),
    startTime: localTime(start),
    endTime: localTime(end),
  };
}

/** Slurm writes its local time without a zone, or what SLURM_TIME_FORMAT says; the zone is ours, since it runs beside us. */
function localTime(text: string | undefined): number | null {
  if (text === undefined) return null;
  if (/^\d{9,11}$/.test(text)) return Number(text) * 1000;
  const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$/.test(text) ? new Date(text).getTime() : Number.NaN;
  return Number.isNaN(time) ? null : time;
}

/** Follows the record file: each call hands over the whole lines that came since the last one. */
export interface CompletionTail {
  read(take: (record: CompletionRecord) => void): Promise<void>;
}

const CHUNK = 262_144;

export function createCompletionTail(path: string): CompletionTail {
  let position = 0;
  let inode = 0;
  let rest = '';
  async function readOnce(take: (record: CompletionRecord) => void): Promise<void> {
    let file: FileHandle;
    try {
      file = await open(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
      throw error;
    }
    try {
      const { ino, size } = await file.stat();
      if (ino !== inode || size < position) {
        // Another file by that name (it was rotated): from its start.
        inode = ino;
        position = 0;
        rest = '';
      }
      const buffer = Buffer.alloc(Math.min(CHUNK, Math.max(size - position, 1)));
      for (;;) {
        const { bytesRead } = await file.read(buffer, 0, buffer.length, position);
        if (bytesRead === 0) return;
        position += bytesRead;
        const lines = (rest + buffer.toString('latin1', 0, bytesRead)).split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) {
          const record = parseCompletion(line);
          if (record !== null) take(record);
        }
      }
    } finally {
      await file.close();
    }
  }
  let last: Promise<void> = Promise.resolve();
  return {
    read(take) {
      last = last.catch(() => {}).then(() => readOnce(take));
      return last;
    },
  };
}
