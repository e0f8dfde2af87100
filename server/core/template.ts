import type { FieldError } from './errors.ts';
import type { Resources } from './job.ts';
import type { JsonObject } from './json.ts';

/** A job template: what a caller names in `command_key`. It is a folder of files, never code of ours. */
export interface Template {
  readonly key: string;
  readonly title: string;
  readonly description: string;
  /** JSON Schema (2020-12) of the job's parameters. */
  readonly paramsSchema: JsonObject;
  /** What a job of it gets when the caller does not say. */
  readonly resources: Partial<Resources>;
  readonly entry: TemplateEntry;
  /** Every fault of the parameters, fields named `params_json…`; empty when they are fine. */
  validate(params: JsonObject): readonly FieldError[];
}

/** What the job's script runs, in the dataset's folder. */
export interface TemplateEntry {
  /** Absolute path; readable by the submit user. */
  readonly file: string;
  readonly interpreter: 'bash' | 'python3';
}

/** The templates as they are now: a folder dropped in is there at the next question. */
export interface Templates {
  /** Null when there is none of that name. Throws AppError `conflict` with the fault when there is one and it is broken. */
  get(key: string): Template | null;
  /** All that can be used, in the order of their keys. */
  list(): readonly Template[];
}

/** A template that cannot be used, and why. */
export interface BrokenTemplate {
  readonly key: string;
  readonly fault: string;
}

/** The templates, and what else is told of them. */
export interface TemplateLibrary extends Templates {
  broken(): readonly BrokenTemplate[];
  readonly builtinKeys: ReadonlySet<string>;
}
