import { copyFileSync, existsSync, writeFileSync, writeSync } from 'node:fs';
import { get } from 'node:http';
import { type ApplianceFacts, runPaths } from '../appliance/facts.ts';
import { pathsIn } from '../storage/paths.ts';

/** Where the API can be reached from this machine. */
export function baseUrl({ host, port }: Pick<ApplianceFacts, 'host' | 'port'>): string {
  const reachable =
    host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '[::1]' : host.includes(':') ? `[${host}]` : host;
  return `http://${reachable}:${port}`;
}

/**
 * Watches the API's own /health from its start: tells s6 (a newline on the notification descriptor) when it answers at all, and
 * people, once in a life of the appliance, when it takes jobs.
 */
export function announceWhenReady(facts: ApplianceFacts, token: string, notifyDescriptor: number): { stop(): void } {
  const url = baseUrl(facts);
  const { announced, pidFile, readyFile } = runPaths(facts.root);
  let told = false;
  let timer: NodeJS.Timeout | null = null;
  const look = () => {
    const again = (milliseconds: number) => {
      timer = setTimeout(look, milliseconds);
    };
    const request = get(`${url}/health`, { timeout: 2000, agent: false }, (response) => {
      response.resume();
      if (!told) {
        told = true;
        // Its finish script tells by this file that it had been of use.
        copyFileSync(pidFile('api'), readyFile('api'));
        notify(notifyDescriptor);
      }
      if (existsSync(announced)) return;
      if (response.statusCode !== 200) return again(100);
      writeFileSync(announced, '');
      process.stdout.write(banner(facts, url, token));
    });
    request.on('timeout', () => request.destroy());
    request.on('error', () => again(30));
  };
  look();
  return {
    stop() {
      if (timer !== null) clearTimeout(timer);
    },
  };
}

/** The token is printed at the start that made it, never again. */
function banner(facts: ApplianceFacts, url: string, token: string): string {
  const kept = pathsIn(facts.root).token;
  const shown = facts.tokenIsNew ? token : existsSync(kept) ? `$(cat ${kept})` : '$JR_AUTH_TOKEN';
  const about = facts.tokenIsNew ? `${token} (kept in ${kept})` : existsSync(kept) ? `in ${kept}` : 'as set';
  return `
JobRunner is ready.
  address  ${url}${facts.host === '0.0.0.0' ? ' (and every other address of this machine)' : ''}
  token    ${about}
  try      curl -s -H "Authorization: Bearer ${shown}" ${url}/health

`;
}

function notify(descriptor: number): void {
  try {
    writeSync(descriptor, '\n');
  } catch {
    // Not started by s6: nobody listens.
  }
}
