import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { parseTimeLimit } from './core/time-limit.ts';

/**
 * Every setting, in one table: the only place that knows the names, the only reader of the environment, the source of the README's
 * table (a test compares them). Secrets may also come as NAME_FILE=/path.
 */
interface Setting<T> {
  readonly schema: z.ZodType<T>;
  readonly fallback: T;
  /** As the README prints the default. */
  readonly shown: string;
  readonly help: string;
  readonly secret?: true;
}

function setting<T>(schema: z.ZodType<T>, fallback: T, shown: string, help: string, secret?: 'secret'): Setting<T> {
  return secret === undefined ? { schema, fallback, shown, help } : { schema, fallback, shown, help, secret: true };
}

const count = (what: string, min: number, max: number) =>
  z
    .string()
    .regex(/^\d{1,9}$/, `must be a whole number of ${what}`)
    .transform(Number)
    .refine((n) => n >= min && n <= max, `must be from ${min} to ${max}`);
const flag = z.enum(['0', '1'], 'must be 0 or 1').transform((value) => value === '1');
const path = z
  .string()
  .regex(/^\/[^\n\0]*$/, 'must be an absolute path')
  .refine((value) => value === '/' || !value.split('/').includes('..'), 'must not contain ".."');
const word = (pattern: RegExp, allowed: string) => z.string().regex(pattern, allowed);
const bytes = z
  .string()
  .regex(/^\d{1,15}$/, 'must be a whole number of bytes')
  .transform(Number);

export const SETTINGS = {
  JR_AUTH_TOKEN: setting(
    word(/^[\x21-\x7e]{1,512}$/, 'must be 1 to 512 visible ASCII characters without spaces').nullable(),
    null,
    'made at first start',
    'bearer token of the API. Unset, empty or `change-me`: a random one is made, kept in `JR_ROOT/token` (0600) and printed once',
    'secret',
  ),
  JR_ROOT: setting(path.nullable(), null, '`/opt/jobrunner`; `./.jobrunner` on a host', 'everything that must persist'),
  PORT: setting(count('a port', 1, 65535), 8080, '`8080`', 'port of the API'),
  JR_HOST: setting(
    word(/^[0-9A-Za-z.:_-]{1,253}$/, 'must be an address or a host name').nullable(),
    null,
    '`0.0.0.0` in the image, `127.0.0.1` on a host',
    'address that the API listens on',
  ),
  JR_NUM_GPUS: setting(count('GPUs', 0, 256).nullable(), null, 'detected', 'number of GPUs that jobs may use'),
  JR_NUM_CPUS: setting(count('CPUs', 1, 65533).nullable(), null, 'detected', 'number of CPUs that jobs may use'),
  JR_REAL_MEM_MB: setting(
    count('MiB', 64, 999_999_999).nullable(),
    null,
    'detected',
    'memory that jobs may use, in MiB',
  ),
  JR_GPU_TYPE: setting(
    word(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/, 'must be 1 to 64 letters, digits, `.`, `_` or `-`').nullable(),
    null,
    'detected',
    "name of the GPUs in Slurm's gres",
  ),
  JR_MAX_TIME: setting(
    z.string().refine((value) => parseTimeLimit(value) !== null, 'must be a time as Slurm writes it, `7-00:00:00` say'),
    '7-00:00:00',
    '`7-00:00:00`',
    "longest time limit of a job (the partition's `MaxTime`)",
  ),
  JR_USE_CGROUPS: setting(
    flag,
    false,
    '`0`',
    '`1`: Slurm tracks and confines jobs by cgroups (needs the rights to; refused with the reason where it cannot)',
  ),
  JR_SUBMIT_USER: setting(
    word(/^[a-z_][a-z0-9_-]{0,31}$/, 'must be a user name').refine((value) => value !== 'root', 'must not be root'),
    'runner',
    '`runner`',
    'the user that jobs run as; made when missing',
  ),
  JR_GPU_DEV_PREFIX: setting(path, '/dev/nvidia', '`/dev/nvidia`', 'GPU device files without their number'),
  JR_HOSTNAME: setting(
    word(
      /^[A-Za-z0-9]([A-Za-z0-9-]{0,62}[A-Za-z0-9])?$/,
      'must be a host name of at most 64 letters, digits and `-`',
    ).nullable(),
    null,
    "the host's",
    'name that the node reports',
  ),
  JR_B2_ENABLE: setting(flag, false, '`0`', '`1`: mount the bucket with s3fs'),
  JR_B2_BUCKET: setting(
    word(/^[a-z0-9A-Z][a-z0-9A-Z._-]{1,62}(:\/[^\n\0,]*)?$/, 'must be a bucket name, or `bucket:/prefix`').nullable(),
    null,
    '–',
    'bucket',
  ),
  JR_B2_ENDPOINT: setting(
    word(/^https?:\/\/[^\s,]+$/, 'must be an http(s) URL'),
    'https://s3.us-west-004.backblazeb2.com',
    '`https://s3.us-west-004.backblazeb2.com`',
    'S3 endpoint',
  ),
  JR_B2_KEY_ID: setting(
    word(/^[\x21-\x39\x3b-\x7e]+$/, 'must be visible ASCII without `:`').nullable(),
    null,
    '–',
    'access key id',
    'secret',
  ),
  JR_B2_APP_KEY: setting(word(/^[\x21-\x7e]+$/, 'must be visible ASCII').nullable(), null, '–', 'secret key', 'secret'),
  JR_B2_MOUNT: setting(path, '/mnt/b2', '`/mnt/b2`', 'mount point'),
  JR_IMPORT_ROOTS: setting(
    z
      .string()
      .transform((value) => value.split(':').filter((part) => part !== ''))
      .pipe(z.array(path)),
    [],
    'the mount',
    'folders, separated by `:`, that `POST /datasets/import_path` may read',
  ),
  JR_MAX_UPLOAD_BYTES: setting(bytes, 1_099_511_627_776, '1 TiB', 'largest upload, in bytes'),
  JR_MAX_UNPACKED_BYTES: setting(bytes, 1_099_511_627_776, '1 TiB', 'largest sum of the files of an archive, in bytes'),
  JR_MAX_UNPACK_RATIO: setting(
    count('times', 1, 1_000_000),
    200,
    '`200`',
    'how many times its own size an archive may become (small archives may become 64 MiB whatever the ratio)',
  ),
  JR_MAX_ENTRIES: setting(count('entries', 1, 100_000_000), 1_000_000, '`1000000`', 'most entries of an archive'),
  JR_MIN_FREE_BYTES: setting(bytes, 536_870_912, '512 MiB', 'space that an upload must leave free, in bytes'),
} as const satisfies Record<string, Setting<never> | object>;

type Value<S> = S extends Setting<infer T> ? T : never;
export type Settings = { readonly [K in keyof typeof SETTINGS]: Value<(typeof SETTINGS)[K]> };

/** Folders that `import_path` may read; relative paths are below the first, the bucket's mount. */
export function importRootsOf({ JR_IMPORT_ROOTS, JR_B2_MOUNT }: Settings): readonly string[] {
  return [JR_B2_MOUNT, ...JR_IMPORT_ROOTS.filter((root) => root !== JR_B2_MOUNT)];
}

export class ConfigError extends Error {}

/** Reads and checks the environment. Throws ConfigError with one line that names the variable, its fault and what is allowed. */
export function readSettings(env: NodeJS.ProcessEnv): {
  readonly settings: Settings;
  readonly warnings: readonly string[];
} {
  const values: Record<string, unknown> = {};
  for (const [name, definition] of Object.entries(SETTINGS) as [string, Setting<unknown>][]) {
    const text = textOf(env, name, definition.secret === true);
    if (text === undefined || text === '') {
      values[name] = definition.fallback;
      continue;
    }
    const parsed = definition.schema.safeParse(text);
    if (!parsed.success) {
      const shown = definition.secret ? '' : ` (it is ${JSON.stringify(text)})`;
      throw new ConfigError(`${name} ${parsed.error.issues[0]?.message ?? 'is not allowed'}${shown}`);
    }
    values[name] = parsed.data;
  }
  if (values.JR_AUTH_TOKEN === 'change-me') values.JR_AUTH_TOKEN = null;
  return { settings: values as Settings, warnings: unknownNames(env) };
}

function textOf(env: NodeJS.ProcessEnv, name: string, secret: boolean): string | undefined {
  const file = secret ? env[`${name}_FILE`] : undefined;
  if (file === undefined || file === '') return env[name];
  if (env[name]) throw new ConfigError(`${name} and ${name}_FILE are both set: give one of them`);
  try {
    return readFileSync(file, 'utf8').replace(/\r?\n$/, '');
  } catch (error) {
    throw new ConfigError(
      `${name}_FILE: cannot read ${file} (${(error as NodeJS.ErrnoException).code ?? 'unknown error'})`,
    );
  }
}

/** Names that start like ours and are none: most likely a typing error. `JR_BASE_URL` belongs to the acceptance script. */
function unknownNames(env: NodeJS.ProcessEnv): string[] {
  const secrets = Object.entries(SETTINGS as Record<string, Setting<unknown>>).flatMap(([name, s]) =>
    s.secret ? [`${name}_FILE`] : [],
  );
  const known = new Set([...Object.keys(SETTINGS), ...secrets, 'JR_BASE_URL']);
  return Object.keys(env)
    .filter((name) => name.startsWith('JR_') && !known.has(name))
    .map((name) => `${name} is set but JobRunner knows no such variable`);
}
