import { mkdirSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { quote } from 'shell-quote';
import { pathsIn } from '../storage/paths.ts';
import {
  ALREADY_STOPPING,
  type ApplianceFacts,
  daemonEnvironment,
  runPaths,
  SYSTEM_PATH,
  slurmEnvironment,
} from './facts.ts';

/**
 * The folders that s6-svscan supervises (https://skarnet.org/software/s6/servicedir.html). Every script is a few lines of /bin/sh that
 * end in exec, so that the noted pid is the daemon's. Daemons get a clean environment; only the API's parent keeps the settings.
 */
export function writeServices({ root, app, nodeBinary, node, slurmdPort }: ApplianceFacts): void {
  const paths = pathsIn(root);
  const run = runPaths(root);
  const environment = { ...slurmEnvironment(root), ...daemonEnvironment(hostname()) };
  const clean = `env -i ${quote(Object.entries(environment).map(([name, value]) => `${name}=${value}`))}`;
  const q = (text: string) => quote([text]);

  const notePid = (name: string) =>
    `read -r stat </proc/$$/stat; set -- $stat\nrm -f ${q(run.readyFile(name))}\n` +
    `echo "$1 \${22}" >${q(`${run.pidFile(name)}.new`)} && mv -f ${q(`${run.pidFile(name)}.new`)} ${q(run.pidFile(name))}\n`;
  const noteReady = (name: string) => `cp -f ${q(run.pidFile(name))} ${q(run.readyFile(name))}\n`;
  const onceReady = `exec ${clean} s6-notifyoncheck -d -s 20 -w 30 -n 0`;

  const service = (name: string, scripts: { run: string; check?: string; mend?: string }) => {
    const folder = join(run.services, name);
    script(join(folder, 'run'), `${scripts.run}\n`);
    script(join(folder, 'finish'), finishScript(root, name, scripts.mend ?? ''));
    writeFileSync(join(folder, 'notification-fd'), '3\n');
    // The back-off in finish may last longer than s6 allows by default.
    writeFileSync(join(folder, 'timeout-finish'), '0\n');
    if (scripts.check === undefined) return;
    script(join(folder, 'data', 'check'), `${scripts.check}${noteReady(name)}`);
    script(
      join(folder, 'log', 'run'),
      `exec env -i PATH=${SYSTEM_PATH} s6-log -b n5 s2000000 ${name === 'munged' ? 'T ' : ''}${q(join(paths.slurmLogs, name))}\n`,
    );
  };

  service('munged', {
    run: `exec 2>&1\nrm -f ${q(run.mungeSocket)} ${q(`${run.mungeSocket}.lock`)}\n${notePid('munged')}${onceReady} s6-setuidgid munge munged -F --force --origin=127.0.0.1 --key-file=${q(run.mungeKey)} --socket=${q(run.mungeSocket)} --pid-file=${q(join(run.munge, 'munged.pid'))} --seed-file=${q(join(run.munge, 'munge.seed'))} --log-file=/dev/stderr`,
    check: `[ -S ${q(run.mungeSocket)} ] || exit 1\n`,
  });
  service('slurmctld', {
    run: `exec 2>&1\n${waitFor('munged', 30_000)}\n${countOn(root)}${notePid('slurmctld')}${onceReady} s6-setuidgid slurm slurmctld -D`,
    check: 'scontrol ping >/dev/null 2>&1 || exit 1\n',
    mend: mendState(paths.slurmState, join(paths.slurmLogs, 'slurmctld', 'current'), join(run.state, 'mended')),
  });
  service('slurmd', {
    run: `exec 2>&1\n${waitFor('slurmctld', 60_000)}\n${notePid('slurmd')}${onceReady} slurmd -D -N ${q(node.nodeName)}`,
    check: slurmdCheck(
      node.nodeName,
      slurmdPort,
      join(paths.run, 'slurmd', 'daemon.pid'),
      run.pidFile('slurmd'),
      run.undrain,
    ),
  });
  service('api', {
    run: `${notePid('api')}exec ${q(nodeBinary)} --enable-source-maps ${q(join(app, 'parent.mjs'))} ${q(root)}`,
  });

  const scan = join(run.services, '.s6-svscan');
  // The supervisor ends last of all, so that nothing is left when it is gone: not even the program that stopped the rest.
  const stop = `env -i PATH=${SYSTEM_PATH} ${q(nodeBinary)} ${q(join(app, 'stop.mjs'))} ${q(root)}
[ $? = ${ALREADY_STOPPING} ] || PATH=${SYSTEM_PATH} exec s6-svscanctl -t ${q(run.services)}\n`;
  for (const name of ['SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGHUP']) script(join(scan, name), stop);
  script(
    join(scan, 'finish'),
    `rm -f ${q(run.claim)}\nread -r code <${q(run.exitCode)} || code=0\nexit "\${code:-0}"\n`,
  );
}

/**
 * slurmctld saves its state up to 5 s late, so after a kill it gives out numbers again of jobs that slurmd may still be running, and
 * slurmd mixes them up. Before every start FirstJobId is therefore put above all numbers that left a trace: in the record of ended
 * jobs, as a folder of slurmd's, or where the last start began (a job may end while slurmctld is down and leave no trace but slurmd's
 * memory, which drains the node: "Duplicate jobid"). After an orderly end that is all; after any other, some more may have been given out.
 */
function countOn(root: string): string {
  const paths = pathsIn(root);
  const q = (text: string) => quote([text]);
  const clean = q(cleanEnd(root));
  const conf = q(paths.slurmConf);
  return `margin=100; [ ! -e ${clean} ] || margin=1; rm -f ${clean}
last="$({ echo 0; tail -c 65536 ${q(paths.jobCompletion)} | sed -n 's/^JobId=\\([0-9]*\\) .*/\\1/p'; ls ${q(paths.slurmSpool)} | sed -n 's/^job0*\\([0-9]*\\)$/\\1/p'; sed -n 's/^FirstJobId=//p' ${conf}; } | sort -n | tail -n 1)"
[ "$last" -lt 67000000 ] && [ "$last" -gt 0 ] && sed "s/^FirstJobId=.*/FirstJobId=$((last + margin))/" ${conf} >${conf}.new && mv -f ${conf}.new ${conf}
`;
}

/** There while slurmctld is down and had ended by itself. */
function cleanEnd(root: string): string {
  return join(pathsIn(root).slurm, 'clean-end');
}

/** The node takes jobs: slurmd listens (told before that, slurmctld would find nobody and mark the node), it has registered, and nothing of an earlier life (a drain at stop) holds it back. */
function slurmdCheck(nodeName: string, port: number, daemonPid: string, ourPid: string, undrain: string): string {
  const q = (text: string) => quote([text]);
  const hexPort = port.toString(16).toUpperCase().padStart(4, '0');
  return `[ -e ${q(daemonPid)} ] && read -r daemon <${q(daemonPid)} && read -r ours _ <${q(ourPid)} && [ "$daemon" = "$ours" ] || exit 1
grep -q ': [0-9A-F]*:${hexPort} [0-9A-F]*:0000 0A ' /proc/net/tcp /proc/net/tcp6 2>/dev/null || exit 1
node="$(scontrol -o show node ${nodeName} 2>/dev/null)" || exit 1
state="\${node#* State=}"; state="\${state%% *}"
case "$state" in *DRAIN*|*INVALID*|*DOWN*) [ ! -e ${q(undrain)} ] || scontrol update nodename=${nodeName} state=resume >/dev/null 2>&1; exit 1 ;; esac
case "$state" in *UNKNOWN*|*RESPOND*|*[*]*|*FAIL*) exit 1 ;; esac
rm -f ${q(undrain)}
`;
}

/**
 * slurmctld refuses a state that it cannot read ("… start with '-i' to ignore this"; a newer Slurm wrote it, or a file is cut). The
 * jobs' journal is ours, so the state is set aside, once in a life, and the journal submits again what never started.
 */
function mendState(state: string, log: string, mended: string): string {
  const q = (text: string) => quote([text]);
  return `if [ "$was_ready" = no ] && [ ! -e ${q(mended)} ] && tail -n 20 ${q(log)} 2>/dev/null | grep -qE "start with '-i'|CLUSTER NAME MISMATCH"; then
  : >${q(mended)}
  aside=${q(state)}.unreadable-"$(date +%Y%m%d-%H%M%S)"
  mv ${q(state)} "$aside" && mkdir -m 700 ${q(state)} && chown slurm:slurm ${q(state)}
  echo "jobrunner: slurmctld cannot read its state: set aside as $aside, starting with an empty one" >&2
  exit 0
fi
`;
}

/**
 * After a death: $1 is the exit code (256 for a signal), $2 the signal. A daemon that had been ready and was killed, or had run for a
 * while, starts again at once (s6 itself keeps a second between starts). Deaths before readiness and at once after it count: the
 * pauses grow, and the sixth in a row stops the appliance, so that the outside restart policy acts.
 */
function finishScript(root: string, name: string, mend: string): string {
  const run = runPaths(root);
  const q = (text: string) => quote([text]);
  const pid = q(run.pidFile(name));
  const deaths = q(join(run.state, `${name}.deaths`));
  const log = q(join(pathsIn(root).slurmLogs, name, 'current'));
  const noteCleanEnd = name === 'slurmctld' ? `[ "$1" != 0 ] || : >${q(cleanEnd(root))}\n` : '';
  return `${noteCleanEnd}[ ! -e ${q(run.stopping)} ] || exit 0
was_ready=no; [ ! -e ${q(run.readyFile(name))} ] || was_ready=yes
lived=$(( $(date +%s) - $(stat -c %Y ${pid} 2>/dev/null || date +%s) ))
rm -f ${q(run.readyFile(name))} ${pid}
if [ "$1" -gt 255 ]; then how="signal $2"; else how="exit code $1"; fi
${mend}if [ "$was_ready" = yes ] && { [ "$lived" -ge 10 ] || [ "$1:$2" = 256:9 ] || [ "$1:$2" = 256:15 ]; }; then
  rm -f ${deaths}
  echo "jobrunner: ${name} ended ($how): starting it again" >&2
  exit 0
fi
count=0; [ ! -e ${deaths} ] || read -r count <${deaths}
count=$((count + 1)); echo "$count" >${deaths}
echo "jobrunner: ${name} ended ($how) before it was of use, for the $count. time" >&2
if [ "$count" -ge 6 ]; then
  echo "jobrunner: giving up on ${name}. Its last words:" >&2
  tail -n 3 ${log} >&2 2>/dev/null
  echo 1 >${q(run.exitCode)}
  setsid ../.s6-svscan/SIGTERM </dev/null >/dev/null &
  exit 125
fi
case "$count" in 1) sleep 0.2 ;; 2) sleep 0.5 ;; 3) sleep 1 ;; 4) sleep 2 ;; *) sleep 4 ;; esac
exit 0
`;
}

/** s6-svscan starts all supervisors at once: until the other one's is there (s6-svok), s6-svwait would not wait but fail. */
function waitFor(name: string, milliseconds: number): string {
  return `n=0; until s6-svok ../${name} || [ $n -ge 100 ]; do n=$((n + 1)); sleep 0.05; done
s6-svwait -U -t ${milliseconds} ../${name} || exit 1`;
}

function script(path: string, body: string): void {
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, `#!/bin/sh\n${body}`, { mode: 0o755 });
}
