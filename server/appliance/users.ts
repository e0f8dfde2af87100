import { readFileSync } from 'node:fs';
import { execa } from 'execa';
import { StartError } from './fault.ts';

export interface User {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

export interface ServiceUsers {
  /** The API's own: no job and no daemon runs as it. */
  readonly api: User;
  readonly submit: User;
  readonly slurm: User;
  readonly munge: User;
}

const API_USER = 'jobrunner';

/** Finds the service users and makes the two that are ours when they are missing. */
export async function ensureUsers(submitName: string): Promise<ServiceUsers> {
  const [slurm, munge] = await Promise.all([packaged('slurm'), packaged('munge')]);
  const api = await ensure(API_USER);
  const submit = await ensure(submitName);
  const taken = [api, slurm, munge].find(({ uid }) => uid === submit.uid);
  if (submit.uid === 0) throw new StartError(`JR_SUBMIT_USER must not be root (${submitName} has uid 0)`);
  if (taken !== undefined) {
    throw new StartError(`JR_SUBMIT_USER must be a user of its own: ${submitName} is the service user ${taken.name}`);
  }
  return { api, submit, slurm, munge };
}

async function packaged(name: string): Promise<User> {
  const found = await lookUp(name);
  if (found === null) throw new StartError(`the user ${name} is missing: reinstall Debian's package ${name}`);
  return found;
}

async function ensure(name: string): Promise<User> {
  const found = await lookUp(name);
  if (found !== null) return found;
  const args = ['--system', '--user-group', '--no-create-home', '--home-dir', '/nonexistent'];
  const made = await execa('useradd', [...args, '--shell', '/usr/sbin/nologin', name], {
    reject: false,
    timeout: 20_000,
  });
  // Two appliances that start at once on one host both want to make it: whoever came second finds it there.
  const now = await lookUp(name);
  if (now === null) throw new StartError(`could not make the user ${name}: ${String(made.stderr).trim()}`);
  process.stderr.write(`jobrunner: made the user ${name}\n`);
  return now;
}

async function lookUp(name: string): Promise<User | null> {
  const local = parse(readFileSync('/etc/passwd', 'utf8'), name);
  if (local !== null) return local;
  // Users may come from elsewhere (LDAP, say).
  const { stdout } = await execa('getent', ['passwd', name], { reject: false, timeout: 10_000 });
  return parse(String(stdout), name);
}

function parse(passwd: string, name: string): User | null {
  for (const line of passwd.split('\n')) {
    const [login, , uid, gid] = line.split(':');
    if (login === name) return { name, uid: Number(uid), gid: Number(gid) };
  }
  return null;
}
