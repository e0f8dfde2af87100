interface Turn<V> {
  readonly running: Promise<V>;
  waiting: Promise<V> | null;
}

/**
 * The same work, never twice at once for one key. Who asks while it runs gets the result of one more run that begins after it (what
 * runs now may have missed what they want to see), however many ask.
 */
export function oneAtATime<K, V>(work: (key: K) => Promise<V>): (key: K) => Promise<V> {
  const turns = new Map<K, Turn<V>>();
  const begin = (key: K): Promise<V> => {
    const turn: Turn<V> = { running: work(key), waiting: null };
    turns.set(key, turn);
    const end = () => {
      if (turn.waiting === null) turns.delete(key);
    };
    turn.running.then(end, end);
    return turn.running;
  };
  return async (key) => {
    const turn = turns.get(key);
    if (turn === undefined) return begin(key);
    turn.waiting ??= turn.running.then(
      () => begin(key),
      () => begin(key),
    );
    return turn.waiting;
  };
}
