import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ConfigError, readSettings, type Settings } from '../config.ts';
import { gpuTable } from '../slurm/script.ts';
import { pathsIn } from '../storage/paths.ts';
import { bucketOf } from './bucket.ts';
import { addBucketService } from './bucket-service.ts';
import { claim, endLeftovers } from './claim.ts';
import { configureSlurm } from './configure.ts';
import { type ApplianceFacts, factsFile, runPaths } from './facts.ts';
import { StartError } from './fault.ts';
import { choosePlace, pathForJobs, reachablePrograms } from './place.ts';
import { ensureListenable } from './ports.ts';
import { writeServices } from './services.ts';
import { ensureTree, writeSecret } from './tree.ts';
import { ensureUsers, type ServiceUsers } from './users.ts';

/** Once at every start, as root: makes JR_ROOT ready for the supervisor, whose folder it prints on stdout. The rest is for people, on stderr. */
async function prepare(entrypointPid: number): Promise<void> {
  const { settings, warnings } = readSettings(process.env);
  for (const warning of warnings) say(warning);
  const bucket = bucketOf(settings);
  const bundled = dirname(fileURLToPath(import.meta.url));
  const isImage = !existsSync(join(dirname(bundled), 'server'));
  const root = choosePlace(settings.JR_ROOT, bundled, say);
  await claim(root, entrypointPid);
  await endLeftovers(root);

  const host = settings.JR_HOST ?? (isImage ? '0.0.0.0' : '127.0.0.1');
  await ensureListenable(host, settings.PORT);
  const users = await ensureUsers(settings.JR_SUBMIT_USER);
  ensureTree(root, users);
  const secrets = ensureSecrets(root, users, settings);
  const programs = reachablePrograms(root, bundled);
  const { machine, node, ports } = await configureSlurm({ root, app: programs.app, settings });

  const facts: ApplianceFacts = {
    root,
    ...programs,
    jobPath: pathForJobs(process.env.PATH ?? ''),
    version: (JSON.parse(readFileSync(join(bundled, 'package.json'), 'utf8')) as { version: string }).version,
    generation: randomBytes(8).toString('hex'),
    host,
    port: settings.PORT,
    slurmdPort: ports.slurmd,
    tokenIsNew: secrets.tokenIsNew,
    api: { uid: users.api.uid, gid: users.api.gid },
    submit: users.submit,
    node,
  };
  writeSecret(factsFile(root), `${JSON.stringify(facts, null, 1)}\n`, 0, 0, 0o600);
  writeFileSync(runPaths(root).exitCode, '0\n');
  writeFileSync(runPaths(root).undrain, '');
  writeFileSync(pathsIn(root).gpuUuids, gpuTable(node.gpus), { mode: 0o644 });
  writeServices(facts);
  if (bucket !== null) await addBucketService(bucket, facts, settings.JR_MIN_FREE_BYTES, say);
  say(
    `${node.cpus} CPUs, ${node.memoryMiB} MiB and ${node.gpus.length} GPUs (${machine.gpuSource}) for jobs; everything is kept in ${root}`,
  );
  process.stdout.write(`${runPaths(root).services}\n`);
}

/** The key by which Slurm's parts know each other, and the API's token; both are made once and stay in JR_ROOT. */
function ensureSecrets(root: string, { api, munge }: ServiceUsers, settings: Settings): { tokenIsNew: boolean } {
  const { mungeKey } = runPaths(root);
  const key = existsSync(mungeKey) ? readFileSync(mungeKey) : randomBytes(128);
  writeSecret(mungeKey, key.length >= 32 ? key : randomBytes(128), munge.uid, munge.gid, 0o400);
  const { token } = pathsIn(root);
  if (settings.JR_AUTH_TOKEN !== null || existsSync(token)) return { tokenIsNew: false };
  writeSecret(token, `${randomBytes(24).toString('base64url')}\n`, api.uid, api.gid, 0o600);
  return { tokenIsNew: true };
}

function say(line: string): void {
  process.stderr.write(`jobrunner: ${line}\n`);
}

try {
  await prepare(Number(process.argv[2] ?? process.ppid));
} catch (error) {
  if (!(error instanceof ConfigError || error instanceof StartError)) throw error;
  say(error.message.replaceAll('\n', ' '));
  process.exitCode = 1;
}
