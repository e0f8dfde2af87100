import { accessSync, constants, cpSync, existsSync, mkdirSync, realpathSync, rmSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { pathsIn } from '../storage/paths.ts';
import { SYSTEM_PATH } from './facts.ts';
import { StartError } from './fault.ts';

/** The longest thing that we put below JR_ROOT and connect to: slurmstepd's socket. A socket's path has at most 107 bytes (unix(7)). */
const LONGEST_SOCKET = '/slurm/spool/node0x000000_67043328.4294967291';
const MAX_ROOT_BYTES = 107 - LONGEST_SOCKET.length;

/** What slurm.conf takes as a path without a way to quote it. */
const PLAIN_PATH = /^\/[A-Za-z0-9._/@+~-]+$/;

/**
 * Where everything that persists goes: what JR_ROOT says, /opt/jobrunner in the image, `.jobrunner` in the checkout on a host – or
 * /opt/jobrunner there too, when other users cannot reach the checkout (a clone below /root).
 */
export function choosePlace(asked: string | null, app: string, say: (line: string) => void): string {
  const checkout = dirname(app);
  const isImage = !existsSync(join(checkout, 'server'));
  let root = asked ?? (isImage ? '/opt/jobrunner' : join(checkout, '.jobrunner'));
  if (asked === null && !isImage && problemOf(root) !== null) {
    say(`${root} cannot be used (${problemOf(root)}): everything goes to /opt/jobrunner instead`);
    root = '/opt/jobrunner';
  }
  const problem = problemOf(root);
  if (problem !== null)
    throw new StartError(`JR_ROOT must be a folder that works for all service users: ${root} ${problem}`);
  try {
    mkdirSync(root, { recursive: true });
    accessSync(root, constants.W_OK);
  } catch (error) {
    throw new StartError(`JR_ROOT: cannot write ${root} (${(error as NodeJS.ErrnoException).code})`);
  }
  return realpathSync(root);
}

/** Null when all service users can work below this folder. Symbolic links are followed first, as far as the path exists. */
function problemOf(root: string): string | null {
  let real = root;
  for (let rest: string[] = []; ; ) {
    try {
      real = join(realpathSync(real), ...rest);
      break;
    } catch {
      rest = [basename(real), ...rest];
      real = dirname(real);
    }
  }
  if (real === '/') return 'is the root of the file system';
  if (!PLAIN_PATH.test(real))
    return 'has characters that slurm.conf cannot hold (allowed: letters, digits and . _ - + ~ @)';
  if (Buffer.byteLength(real) > MAX_ROOT_BYTES) {
    return `is ${Buffer.byteLength(real)} bytes long, at most ${MAX_ROOT_BYTES} are allowed (the limit of Unix sockets)`;
  }
  const closed = closedFolder(dirname(real));
  return closed === null ? null : `lies in ${closed}, which only its owner may enter`;
}

/** The first folder on the way that others may not pass through, or null. */
function closedFolder(path: string): string | null {
  const parts = path.split('/').filter((part) => part !== '');
  for (let n = 0; n <= parts.length; n++) {
    const folder = `/${parts.slice(0, n).join('/')}`;
    if (!existsSync(folder)) return null;
    if ((statSync(folder).mode & 0o001) === 0) return folder;
  }
  return null;
}

/**
 * PATH for jobs: the one that we were started with, so that an image's own Python (conda's, say) is theirs too, without the folders
 * that they may not enter; then the system's.
 */
export function pathForJobs(path: string): string {
  const usable = path
    .split(':')
    .filter((folder) => PLAIN_PATH.test(folder) && existsSync(folder) && closedFolder(folder) === null);
  return [...new Set([...usable, ...SYSTEM_PATH.split(':')])].join(':');
}

/** Programs where the service users can read them: as they are, or copied to JR_ROOT/app. */
export function reachablePrograms(root: string, app: string): { readonly app: string; readonly nodeBinary: string } {
  const copies = pathsIn(root).app;
  const node = realpathSync(process.execPath);
  const mayRead = (file: string) => closedFolder(dirname(file)) === null && (statSync(file).mode & 0o004) !== 0;
  const appFine = mayRead(realpathSync(join(app, 'api.mjs')));
  const nodeFine = mayRead(node) && (statSync(node).mode & 0o001) !== 0;
  if (!appFine || !nodeFine) mkdirSync(copies, { recursive: true, mode: 0o755 });
  if (!appFine) {
    rmSync(join(copies, 'dist'), { recursive: true, force: true });
    cpSync(realpathSync(app), join(copies, 'dist'), { recursive: true, mode: constants.COPYFILE_FICLONE });
  }
  if (!nodeFine) {
    const copy = join(copies, 'node');
    const same =
      existsSync(copy) &&
      statSync(copy).size === statSync(node).size &&
      statSync(copy).mtimeMs >= statSync(node).mtimeMs;
    if (!same) {
      rmSync(copy, { force: true });
      cpSync(node, copy, { mode: constants.COPYFILE_FICLONE });
    }
  }
  return {
    app: appFine ? realpathSync(app) : join(copies, 'dist'),
    nodeBinary: nodeFine ? node : join(copies, 'node'),
  };
}
