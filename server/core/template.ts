import type { FieldError } from './errors.ts';
import type { Resources } from './job.ts';
import type { JsonObject } from './json.ts';

/** A kind of job that can be asked for by its key: what it takes, what it needs, and what is run. */
export interface Template {
  readonly key: string;
  readonly title: string;
  readonly description: string;
  /** JSON Schema of the parameters, as declared. */
  readonly paramsSchema: JsonObject;
  /** Resources that a job of this kind gets when the caller names none. */
  readonly resources: Partial<Resources>;
  readonly entry: TemplateEntry;
  /** What is wrong with these parameters; empty when nothing is. */
  validate(params: JsonObject): readonly FieldError[];
}

export interface TemplateEntry {
  /** Absolute path; readable by the submit user. */
  readonly file: string;
  readonly interpreter: 'bash' | 'python3';
}

/** The templates as they are now: a folder dropped in is there at the next question. */
export interface Templates {
  get(key: string): Template | null;
  list(): readonly Template[];
}
