import type { ApplianceHealth, NodeFacts } from '../../core/node.ts';
import { type AnyRoute, route } from '../route.ts';
import { healthBody, healthOf } from './health.wire.ts';

export interface HealthDeps {
  readonly version: string;
  readonly node: NodeFacts;
  readonly bucketEnabled: boolean;
  readonly health: () => ApplianceHealth & { readonly usable: boolean };
}

export function healthRoutes({ version, node, bucketEnabled, health }: HealthDeps): AnyRoute[] {
  return [
    route({
      method: 'get',
      path: '/health',
      summary: 'Whether the appliance takes jobs, and what it has',
      open: true,
      answers: [
        { status: 200, description: 'it takes jobs', schema: healthBody },
        { status: 503, description: 'it does not, for now', schema: healthBody },
      ],
      handler: ({ res }) => {
        const body = healthOf(health(), node, version, bucketEnabled);
        res.setHeader('Cache-Control', 'no-store');
        res.status(body.ok ? 200 : 503).json(body);
      },
    }),
  ];
}
