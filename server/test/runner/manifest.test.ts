import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseManifest } from '../../runner/manifest.ts';

test('a manifest names the experiment and the outputs', () => {
  const text =
    '{"experimentId":"exp-1","outputs":[{"id":"weights","path":"./weights/model.pth"},{"id":"log","path":"a b.txt","x":1}],"y":2}';
  assert.deepEqual(parseManifest(text), {
    experimentId: 'exp-1',
    outputs: [
      { id: 'weights', path: 'weights/model.pth' },
      { id: 'log', path: 'a b.txt' },
    ],
    skipped: [],
  });
});

test('an entry that cannot be an output is left out with the reason, and the others stay', () => {
  const outputs = [
    { id: 'good', path: 'a' },
    { id: 'up', path: '../secret' },
    { id: 'sideways', path: 'a/../../secret' },
    { id: 'absolute', path: '/etc/shadow' },
    { id: 'nul', path: 'a\0' },
    { id: '', path: 'a' },
    { id: 'x'.repeat(513), path: 'a' },
    { id: 'new\nline', path: 'a' },
    { id: 7, path: 'a' },
    { id: 'pathless' },
    null,
    'a',
    { id: 'good', path: 'b' },
  ];
  const manifest = parseManifest(JSON.stringify({ experimentId: 'e', outputs }));
  assert.ok(!('fault' in manifest));
  assert.deepEqual(manifest.outputs, [{ id: 'good', path: 'a' }]);
  assert.equal(manifest.skipped.length, outputs.length - 1);
  assert.deepEqual(manifest.skipped[0], { path: 'manifest.json outputs[1]', reason: 'path must not contain ".."' });
  assert.match(manifest.skipped.at(-1)?.reason ?? '', /id stands twice/);
});

test('an experiment that cannot be one is reported, and the job names it', () => {
  for (const experimentId of [7, {}, 'a\tb', 'x'.repeat(600)]) {
    const manifest = parseManifest(JSON.stringify({ experimentId, outputs: [] }));
    assert.ok(!('fault' in manifest));
    assert.deepEqual([manifest.experimentId, manifest.skipped.length], [null, 1]);
  }
  assert.deepEqual(parseManifest('{"outputs":[]}'), { experimentId: null, outputs: [], skipped: [] });
});

test('what is no manifest is a fault and not a crash', () => {
  for (const text of [
    '',
    '{',
    '[]',
    'null',
    '7',
    '{}',
    '{"outputs":{}}',
    '{"outputs":null}',
    '['.repeat(100_000),
    '\0',
  ]) {
    assert.ok('fault' in parseManifest(text), text.slice(0, 20));
  }
  const many = `{"outputs":[${'1,'.repeat(100_000)}1]}`;
  assert.ok('fault' in parseManifest(many));
});

test('names of object prototypes are ordinary ids', () => {
  const text =
    '{"experimentId":"__proto__","outputs":[{"id":"__proto__","path":"a"},{"id":"constructor","path":"b"}],"__proto__":{"outputs":1}}';
  const manifest = parseManifest(text);
  assert.ok(!('fault' in manifest));
  assert.deepEqual(
    manifest.outputs.map(({ id }) => id),
    ['__proto__', 'constructor'],
  );
});
