import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { FileWindow } from '../../storage/file-window.ts';
import { Refusal } from '../../storage/refusal.ts';
import { openZip, type ZipRecord } from '../../storage/zip-directory.ts';
import { zipOf } from '../house/zip-maker.ts';

function recordsOf(archive: Buffer): readonly ZipRecord[] {
  const folder = mkdtempSync(join(tmpdir(), 'jr-test-zip-'));
  writeFileSync(join(folder, 'x.zip'), archive);
  const fd = openSync(join(folder, 'x.zip'), 'r');
  try {
    return [...openZip(new FileWindow(fd), archive.length).records()];
  } finally {
    closeSync(fd);
    rmSync(folder, { recursive: true });
  }
}

/** An extra field as APPNOTE.TXT 4.5 has it: its number, its length, its content. */
function field(number: number, ...values: readonly bigint[]): Buffer {
  const bytes = Buffer.alloc(4 + 8 * values.length);
  bytes.writeUInt16LE(number, 0);
  bytes.writeUInt16LE(8 * values.length, 2);
  for (const [index, value] of values.entries()) bytes.writeBigUInt64LE(value, 4 + 8 * index);
  return bytes;
}

test('a directory of megabytes is read record by record to its end', () => {
  const entries = Array.from({ length: 12_000 }, (_, i) => ({ name: `${'n'.repeat(i % 240)}-${i}`, content: `${i}` }));
  const records = recordsOf(zipOf(entries));
  assert.deepEqual(
    records.map((record) => record.name.toString()),
    entries.map((entry) => entry.name),
  );
  assert.deepEqual(
    records.map((record) => record.size),
    entries.map((entry) => entry.content.length),
  );
});

test('the longest names, extra fields and comments that a record can have fit', () => {
  const entry = { name: 'n'.repeat(0xffff), extra: Buffer.alloc(0xffff, 0xee), content: 'x' };
  const records = recordsOf(zipOf(Array.from({ length: 20 }, () => entry)));
  assert.deepEqual(
    records.map((record) => record.name.length),
    records.map(() => 0xffff),
  );
  assert.equal(records.length, 20);
});

test('what is too large for its field is read from zip64, in the order of the format and behind other extra fields', () => {
  const size = 5n * 1024n ** 3n;
  const large = { name: 'large', content: 'x', size: 0xffffffff, compressedSize: 0xffffffff };
  const [both] = recordsOf(zipOf([{ ...large, extra: Buffer.concat([field(0x7875, 1n), field(1, size, 77n)]) }]));
  assert.deepEqual([both?.size, both?.compressedSize, both?.localOffset], [Number(size), 77, 0]);
  const [place] = recordsOf(
    zipOf([{ name: 'far', content: 'x', compressedSize: 3, offset: 0xffffffff, extra: field(1, size) }]),
  );
  assert.deepEqual([place?.size, place?.compressedSize, place?.localOffset], [1, 3, Number(size)]);
});

test('a size that zip64 should hold and does not is refused', () => {
  const large = { name: 'large', content: 'x', size: 0xffffffff, compressedSize: 0xffffffff };
  for (const extra of [Buffer.alloc(0), field(0x7875, 1n), field(1, 9n), field(1, 9n, 2n ** 60n)]) {
    assert.throws(() => recordsOf(zipOf([{ ...large, extra }])), Refusal);
  }
});
