// Asking: the models of Learn through the service's public routes; pictures travel as float32.
import { BASE, Problem, ask, withKey } from "../api.js";

const OCTETS = "application/octet-stream";

/** Rows or codes as little-endian float32, one after another; NaN is missing. */
function pack(rows) {
  const width = rows[0].length;
  const packed = new Float32Array(rows.length * width);
  rows.forEach((row, i) => packed.set(row, i * width));
  return packed;
}

async function send(name, route, rows, accept, signal) {
  const answer = await fetch(new URL(`v1/models/learn.${name}/${route}`, BASE), {
    method: "POST",
    headers: withKey({ "content-type": OCTETS, accept }),
    body: pack(rows),
    signal,
  });
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Problem(
    problem.title ?? `The service answered ${answer.status}`,
    problem.detail,
    answer.status,
  );
}

/** The models, asked until the signal says stop. */
export function models(signal) {
  const told = new Map();
  const json = async (...sent) => (await send(...sent, "application/json", signal)).json();
  return {
    info(name) {
      if (!told.has(name)) told.set(name, ask("GET", `models/learn.${name}`, { signal }));
      return told.get(name);
    },
    encode: (name, rows) => json(name, "encode", rows),
    score: (name, rows) => json(name, "score", rows),
    reconstruct: async (name, rows) => (await json(name, "reconstruct", rows)).rows,
    async decode(name, codes) {
      const answer = await send(name, "decode", codes, OCTETS, signal);
      const values = new Float32Array(await answer.arrayBuffer());
      const width = values.length / codes.length;
      return codes.map((_, i) => values.subarray(i * width, (i + 1) * width));
    },
    sample: (name, count, seed) =>
      ask("POST", `models/learn.${name}/sample`, { body: { count, seed }, signal }),
  };
}

/** `work`, of which one call runs at a time and of those that wait only the last. */
export function latest(work) {
  let waiting = null;
  let busy = false;
  return async (...sent) => {
    waiting = sent;
    if (busy) return;
    busy = true;
    try {
      while (waiting) {
        const now = waiting;
        waiting = null;
        await work(...now);
      }
    } catch (problem) {
      if (problem.name !== "AbortError") throw problem;
    } finally {
      busy = false;
    }
  };
}

/** Numbers of a standard normal, the same for the same seed. */
export function normals(count, seed) {
  let state = seed * 2654435761 + 1;
  const uniform = () => {
    // mulberry32
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
  return Float32Array.from(
    { length: count },
    () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
  );
}

export const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
export const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
export const norm = (a) => Math.sqrt(dot(a, a));
export const minus = (a, b) => Array.from(a, (value, i) => value - b[i]);
export const plus = (a, b, times = 1) => Array.from(a, (value, i) => value + times * b[i]);
export const cosine = (a, b) => dot(a, b) / (norm(a) * norm(b) || 1);
export const squaredError = (a, b) => mean(minus(a, b).map((value) => value * value));
