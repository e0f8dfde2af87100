import { AppError } from '../../core/errors.ts';
import type { TemplateLibrary } from '../../core/template.ts';
import { type AnyRoute, route } from '../route.ts';
import { showTemplate, template, templateList, templatePath } from './templates.wire.ts';

export function templateRoutes({ templates }: { readonly templates: TemplateLibrary }): AnyRoute[] {
  return [
    route({
      method: 'get',
      path: '/templates',
      summary: 'What can be run: the job templates, and those that are broken',
      answers: [{ status: 200, description: 'all of them', schema: templateList }],
      handler: ({ res }) => {
        const all = templates.list().map((each) => showTemplate(each, templates.builtinKeys));
        res.json({ templates: all, broken: templates.broken() });
      },
    }),
    route({
      method: 'get',
      path: '/templates/{key}',
      summary: 'One job template',
      params: templatePath,
      answers: [{ status: 200, description: 'its parameters and default resources', schema: template }],
      handler: ({ params, res }) => {
        const found = templates.get(params.key);
        if (found === null) throw new AppError('not_found', `there is no template "${params.key}"; see /templates`);
        res.json(showTemplate(found, templates.builtinKeys));
      },
    }),
  ];
}
