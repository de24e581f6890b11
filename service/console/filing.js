// Filing: a worker that reads a dropped file with a column of times as timelines, a lane for each
// entity, as the service answers them of streams. Its rows are explained part after part.
import { ask, useKey } from "./api.js";
import { readCsv, toRows } from "./tables.js";

const CELLS = 2 ** 15; // contributions of one answer
const MOST_CELLS = 2 ** 20; // of a file
const TIME = /time|date|stamp|^ts$/i;
const DATE = /^\d+[-/.]\d+[-/.]\d+/; // browsers read much else as dates
const ENTITY = /entity|machine|host|device|unit|instance|(^|_)id$/i;

addEventListener("message", async ({ data }) => {
  useKey(data.key);
  try {
    postMessage({ done: await timelines(data) });
  } catch (error) {
    const title = error.title ?? "This file cannot be looked at in time";
    postMessage({ failed: { title, detail: error.message } });
  }
});

/** {all: the timeline of all entities, ones: {entity: its own}, left: rows that were not taken}. */
async function timelines({ file, model, detail, bins }) {
  const { rows, others } = toRows(readCsv(await file.text()), detail.features);
  const names = detail.features.map(({ name }) => name);
  const [time, at] = timesOf(others);
  const entity = Object.keys(others).find((name) => name !== time && ENTITY.test(name));
  const order = [...rows.keys()].sort((a, b) => at[a] - at[b]);
  const taken = order.slice(0, Math.max(1, Math.floor(MOST_CELLS / names.length)));
  const groups = new Map();
  for (const row of taken) {
    const name = entity ? others[entity][row] : file.name;
    groups.set(name, [...(groups.get(name) ?? []), row]);
  }
  const [since, last] = [at[taken[0]], at[taken.at(-1)]];
  const bin_seconds = ((last - since) * (1 + 1e-9) || 1) / bins;
  const iso = (seconds) => new Date(1000 * seconds).toISOString();
  const all = {
    since: iso(since),
    until: iso(since + bins * bin_seconds),
    bin_seconds,
    times: Array.from({ length: bins }, (_, bin) => iso(since + bin * bin_seconds)),
  };
  const before = (detail.window?.rows ?? 1) - 1; // rows that an answer looks at beside its own
  const ones = {};
  let [version, done] = [null, 0];
  for (const [name, own] of groups) {
    const blank = () => Array.from({ length: bins }, () => null);
    const one = { ...all, entity: name, features: names, severity: blank() };
    one.contributions = names.map(blank);
    const size = Math.max(1, Math.floor(CELLS / names.length));
    for (let from = 0; from < own.length; from += size) {
      const first = Math.max(0, from - before);
      const part = own.slice(first, from + size);
      const body = { rows: part.map((row) => rows[row]) };
      if (before) body.time = part.map((row) => at[row]);
      const answer = await ask("POST", `models/${model}/explain?top=${names.length}`, { body });
      if (version !== null && answer.version !== version)
        throw new Error("another version came into service meanwhile: drop the file once more");
      version = answer.version;
      part.forEach((row, i) => {
        if (first + i < from || answer.severity[i] === null) return;
        const bin = Math.min(bins - 1, Math.floor((at[row] - since) / bin_seconds));
        const raise = (values, to) => (values[bin] = Math.max(values[bin] ?? 0, to));
        raise(one.severity, answer.severity[i]);
        for (const { feature, contribution } of answer.explanations[i])
          raise(one.contributions[names.indexOf(feature)], contribution / answer.threshold);
      });
      done += part.length - (from - first);
      postMessage({ progress: done, rows: taken.length });
    }
    ones[name] = one;
  }
  const most = ({ severity }) => Math.max(-1, ...severity.map((each) => each ?? -1));
  const sorted = Object.values(ones).sort((a, b) => most(b) - most(a));
  all.entities = sorted.map((one) => ({
    entity: one.entity,
    severity: one.severity,
    last: iso(at[groups.get(one.entity).at(-1)]),
    warming: most(one) < 0,
    event: null,
  }));
  return { all, ones, left: rows.length - taken.length };
}

// a time of day without a zone is UTC, as the service and the command line read it
const zone = (text) => (/:\d\d/.test(text) && !/(Z|[+-]\d\d:?\d\d)$/i.test(text) ? "Z" : "");

/** The column of times and its seconds since 1970, row by row: dates, or numbers of a like name. */
function timesOf(others) {
  const names = Object.keys(others).sort((a, b) => TIME.test(b) - TIME.test(a));
  for (const name of names) {
    const numbers = others[name].map(Number);
    const most = Math.max(numbers[0], numbers.at(-1));
    const unit = most > 1e17 ? 1e9 : most > 1e14 ? 1e6 : most > 1e11 ? 1e3 : 1;
    const seconds = numbers.every(Number.isFinite)
      ? numbers.map((each) => (TIME.test(name) ? each / unit : NaN))
      : others[name].map((text) => (DATE.test(text) ? Date.parse(text + zone(text)) / 1000 : NaN));
    if (seconds.every(Number.isFinite)) return [name, seconds];
  }
  const beside = names.length ? `beside the features it has ${names.join(", ")}` : "it has none";
  throw new Error(`a column of times was expected, dates or seconds since 1970; ${beside}`);
}
