import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { assignIds, experimentOf, isWeights, parseRelPath } from '../../core/output.ts';

const part = fc.constantFrom('a', 'b', 'model', 'model.pth', 'model.json', 'a.b.c', '.hidden', '.', 'x.', '日本.pt');
const paths = fc.uniqueArray(
  fc
    .array(
      part.filter((each) => each !== '.'),
      { minLength: 1, maxLength: 4 },
    )
    .map((parts) => parts.join('/')),
  { maxLength: 40 },
);
const asFiles = (list: readonly string[]) => list.map((path) => ({ path, bytes: 1 }));
const none = new Map<string, string>();

test('the id is the stem, and files of one stem get ids that tell them apart', () => {
  const ids = assignIds(
    asFiles(['result.json', 'weights/model.pth', 'model.json', 'old/model.json', 'sub/model.pth']),
    none,
  );
  assert.deepEqual(Object.fromEntries(ids), {
    'sub/model.pth': 'model',
    'weights/model.pth': 'model.pth',
    'model.json': 'model.json',
    'old/model.json': 'old/model.json',
    'result.json': 'result',
  });
});

test('whatever the files: each has one id, no two the same, and their order does not matter', () => {
  fc.assert(
    fc.property(paths, fc.infiniteStream(fc.nat()), (list, random) => {
      const ids = assignIds(asFiles(list), none);
      assert.deepEqual([...ids.keys()].sort(), [...list].sort());
      assert.equal(new Set(ids.values()).size, list.length);
      const shuffled = [...list].map((path) => ({ path, at: random.next().value ?? 0 })).sort((a, b) => a.at - b.at);
      const again = assignIds(asFiles(shuffled.map(({ path }) => path)), none);
      assert.deepEqual(new Map([...again].sort()), new Map([...ids].sort()));
    }),
  );
});

test('an id that a file has stays with it when files come and go', () => {
  fc.assert(
    fc.property(paths, paths, (first, second) => {
      const before = assignIds(asFiles(first), none);
      const after = assignIds(asFiles(second), before);
      assert.equal(new Set(after.values()).size, second.length);
      for (const path of second) if (before.has(path)) assert.equal(after.get(path), before.get(path));
      assert.deepEqual(assignIds(asFiles(second), after), after);
    }),
  );
});

test('a path has one form, and none that passes leads outside', () => {
  assert.deepEqual(parseRelPath('./a//b/./c'), { path: 'a/b/c' });
  assert.deepEqual(parseRelPath('a..b/..c/...'), { path: 'a..b/..c/...' });
  const strange = fc.array(fc.constantFrom('..', '.', '/', '\0', 'a', '\\', '%2e', '\ud800', '~', '-'), {
    maxLength: 12,
  });
  fc.assert(
    fc.property(strange, (parts) => {
      const parsed = parseRelPath(parts.join(''));
      if ('fault' in parsed) return;
      assert.ok(!parsed.path.startsWith('/') && !parsed.path.includes('\0'));
      assert.ok(parsed.path.split('/').every((each) => each !== '' && each !== '.' && each !== '..'));
      assert.deepEqual(parseRelPath(parsed.path), parsed);
    }),
  );
});

test('weights are known by their extension', () => {
  for (const path of ['a.pt', 'a.PTH', 'x/y.bin', 'a.ckpt', 'a.safetensors', 'a.onnx'])
    assert.ok(isWeights(path), path);
  for (const path of ['a.json', 'pth', 'a.pth/b', 'a.pth.txt']) assert.ok(!isWeights(path), path);
});

test("the experiment is the job's parameter when it can be one, else named after the job", () => {
  assert.equal(experimentOf({ id: 7, experimentId: 'exp 1/ü' }), 'exp 1/ü');
  for (const experimentId of [null, '', 'a\nb', 'x'.repeat(513)])
    assert.equal(experimentOf({ id: 7, experimentId }), 'job-7');
});
