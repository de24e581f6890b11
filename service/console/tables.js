// Tables: a CSV's text as rows in the order of a model's features, or an error that names the cell.

const MISSING = new Set(["", "na", "n/a", "nan", "null", "none", "?", "-"]);
const BOOLEANS = {
  true: true,
  false: false,
  1: true,
  0: false,
  yes: true,
  no: false,
  t: true,
  f: false,
};

/** The lines of a CSV, as arrays of cells; the separator is whichever the head has most of. */
export function readCsv(text) {
  const body = text.replace(/^\ufeff/, "");
  const head = body.slice(0, body.search(/[\r\n]|$/));
  const separator = [",", ";", "\t", "|"].sort(
    (a, b) => head.split(b).length - head.split(a).length,
  )[0];
  const lines = [];
  let cells = [];
  let start = 0;
  const end = body.length;
  while (start <= end) {
    let cell = "";
    let at = start;
    if (body[at] === '"') {
      at += 1;
      for (;;) {
        const close = body.indexOf('"', at);
        if (close < 0)
          throw new Error(`the quote that opens in line ${lines.length + 1} is not closed`);
        cell += body.slice(at, close);
        at = close + 1;
        if (body[at] !== '"') break;
        cell += '"';
        at += 1;
      }
    }
    const from = at;
    while (at < end && body[at] !== separator && body[at] !== "\n" && body[at] !== "\r") at += 1;
    cells.push(cell + body.slice(from, at));
    if (at >= end || body[at] !== separator) {
      if (cells.length > 1 || cells[0] !== "") lines.push(cells);
      cells = [];
      if (body[at] === "\r" && body[at + 1] === "\n") at += 1;
      if (at >= end) break;
    }
    start = at + 1;
  }
  return lines;
}

/**
 * {rows: [N][D] in the order of the features, others: {name: [N texts]} of the other columns,
 * labels: {name: [0 or 1]} of those of them that hold nothing else}.
 */
export function toRows(lines, features) {
  if (lines.length < 2)
    throw new Error("a head with the names of the columns and at least one row were expected");
  const head = lines[0].map((name) => name.trim());
  const at = features.map(({ name }) => head.indexOf(name.trim()));
  const lacking = features.filter((_, i) => at[i] < 0).map(({ name }) => `'${name}'`);
  if (lacking.length) {
    const more = lacking.length > 3 ? ` and ${lacking.length - 3} more` : "";
    throw new Error(
      `the file lacks the feature ${lacking.slice(0, 3).join(", ")}${more};` +
        ` its head is ${head.slice(0, 5).join(", ")}…`,
    );
  }
  const rows = lines.slice(1).map((cells, n) => {
    if (cells.length !== head.length)
      throw new Error(`row ${n}: expected ${head.length} cells, got ${cells.length}`);
    return features.map((feature, i) => readCell(cells[at[i]], feature, n));
  });
  const [others, labels] = [{}, {}];
  head.forEach((name, i) => {
    if (at.includes(i)) return;
    others[name] = lines.slice(1).map((cells) => cells[i].trim());
    const values = others[name].map(truth);
    if (!values.includes(undefined) && values.includes(true)) labels[name] = values.map(Number);
  });
  return { rows, others, labels };
}

const truth = (cell) => BOOLEANS[cell.toLowerCase().replace(/\.0$/, "")];

function readCell(text, { name, kind }, row) {
  const cell = text.trim();
  if (MISSING.has(cell.toLowerCase())) return null;
  if (kind === "categorical") return cell;
  if (kind === "boolean") {
    const known = truth(cell);
    if (known === undefined)
      throw new Error(
        `row ${row}, feature '${name}': expected true or false, got '${cell.slice(0, 40)}'`,
      );
    return known;
  }
  const value = Number(cell);
  if (!Number.isFinite(value))
    throw new Error(`row ${row}, feature '${name}': expected a number, got '${cell.slice(0, 40)}'`);
  return value;
}
