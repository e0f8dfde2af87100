import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { SETTINGS } from '../config.ts';

const README = new URL('../../README.md', import.meta.url);
const [BEGIN, END] = ['<!-- settings -->\n', '<!-- /settings -->'];

function settingsTable(): string {
  const rows = Object.entries(SETTINGS as Record<string, { shown: string; help: string }>).map(
    ([name, { shown, help }]) => `| \`${name}\` | ${shown} | ${help} |`,
  );
  return ['| variable | default | meaning |', '|---|---|---|', ...rows, ''].join('\n');
}

test("the README's table of settings is the one that the program reads (UPDATE_README=1 writes it)", () => {
  const text = readFileSync(README, 'utf8');
  const start = text.indexOf(BEGIN) + BEGIN.length;
  const end = text.indexOf(END);
  assert.ok(start >= BEGIN.length && end >= start, 'the README has lost the markers of its table');
  if (process.env.UPDATE_README === '1') {
    writeFileSync(README, text.slice(0, start) + settingsTable() + text.slice(end));
    return;
  }
  assert.equal(text.slice(start, end), settingsTable());
});
