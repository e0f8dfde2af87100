/** The part of `unzipper` that reads zip64's sizes; its types cover only the front door of the package. */
declare module 'unzipper/lib/parseExtraField.js' {
  /** Replaces each number that is 0xffffffff by what zip64's extra field says: null where that is cut off, undefined where there is none. */
  function parseExtraField(
    extraField: Buffer,
    fields: {
      compressedSize: number | null | undefined;
      uncompressedSize: number | null | undefined;
      offsetToLocalFileHeader: number | null | undefined;
    },
  ): void;
  export = parseExtraField;
}
