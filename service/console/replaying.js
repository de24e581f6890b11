// Replaying: a worker that reads a dropped file and asks the service, part after part, which of its
// rows would have alarmed at each of the budgets.
import { ask, useKey } from "./api.js";
import { readCsv, toRows } from "./tables.js";

const CELLS = 100_000; // of one request: the service parses 4 MiB of JSON at once, at most

let table = null;

addEventListener("message", async ({ data }) => {
  if (data.row !== undefined) {
    const first = Math.max(0, data.row - data.window + 1);
    postMessage({ row: data.row, cells: table.rows.slice(first, data.row + 1) });
    return;
  }
  useKey(data.key);
  try {
    table = toRows(readCsv(await data.file.text()), data.features);
    postMessage({ done: await replay(data) });
  } catch (error) {
    postMessage({
      failed: { title: error.title ?? "This file cannot be replayed", detail: error.message },
    });
  }
});

async function replay({ model, alphas, window }) {
  const { rows, labels } = table;
  const most = Math.max(1, Math.floor(CELLS / rows[0].length)); // rows of one request
  const severity = new Float32Array(rows.length);
  let budgets = null;
  let version = null;
  for (let start = 0; start < rows.length; start += most) {
    const first = Math.max(0, start - window + 1); // of the rows before that an answer looks at
    const part = rows.slice(first, start + most);
    const answer = await ask("POST", `models/${model}/replay`, { body: { rows: part, alphas } });
    if (version !== null && answer.version !== version) {
      throw new Error("another version came into service meanwhile: drop the file once more");
    }
    version = answer.version;
    severity.set(
      answer.severity.slice(start - first).map((each) => each ?? NaN),
      start,
    );
    budgets = merge(budgets, answer.alphas, first);
    postMessage({ progress: Math.min(rows.length, start + most), rows: rows.length });
  }
  return { version, rows: rows.length, severity, budgets, labels };
}

/** Budgets of the rows so far with those of the next part; an episode may go on across the seam. */
function merge(sofar, next, start) {
  return next.map((each, i) => {
    const moved = each.episodes.map((one) => ({
      ...one,
      first: one.first + start,
      last: one.last + start,
      peak: one.peak + start,
    }));
    const alarmRows = each.alarm_rows.map((row) => row + start);
    if (!sofar) return { ...each, episodes: moved, alarm_rows: alarmRows };
    const before = sofar[i];
    const last = before.episodes.at(-1);
    const [first, ...rest] = moved;
    const episodes = before.episodes;
    if (last && first && first.first === last.last + 1) {
      const stranger = first.severity > last.severity ? first : last;
      episodes[episodes.length - 1] = {
        first: last.first,
        last: first.last,
        rows: last.rows + first.rows,
        peak: stranger.peak,
        severity: stranger.severity,
      };
      episodes.push(...rest);
    } else {
      episodes.push(...moved);
    }
    for (const row of alarmRows) before.alarm_rows.push(row);
    return { ...before, alarms: before.alarms + each.alarms, episodes };
  });
}
