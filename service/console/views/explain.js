// Explain: rows that were pasted or dropped, what is to blame in each, and all of them at a glance.
import { curl } from "../api.js";
import { dumbbell } from "../charts/dumbbell.js";
import { node } from "../charts/frame.js";
import { heatmap } from "../charts/heatmap.js";
import { line } from "../charts/line.js";
import { count, counted, number, percent, severityStep } from "../charts/words.js";
import { button, copied, dropPlace, exampleRow, facts, fail, longList, places } from "../parts.js";
import { readCsv, toRows } from "../tables.js";

export const title = "Why would these rows alarm?";

const MOST_ROWS = 500; // shown at once
const MOST_CONTRIBUTIONS = 2 ** 18; // that /explain gives in one answer
const LONGEST_IN_URL = 4000; // characters of rows that the URL carries
const STEPS = [0.05, 0.1, 0.2, 0.4, 0.7, 1]; // shares of the threshold

export async function show(container, context) {
  const { model, detail, state } = context;
  const { features } = detail;
  const window = detail.window?.rows ?? 1; // rows that an answer looks at, its own the last
  const needs = window > 1 ? `${window} rows or more, oldest first` : "rows";
  const text = node("textarea", {
    "aria-label": "Rows, as JSON or CSV with a head",
    spellcheck: "false",
    placeholder:
      `${window > 1 ? needs : "Rows"} as JSON, [[…], …] or ` +
      `[{"${features[0].name}": …}, …], or as CSV with a head`,
  });
  const [result, told] = places(2);
  const go = button("Explain", () => run(text.value), { class: "main" });
  const example = button("Example row", () => {
    text.value = JSON.stringify(Array(window).fill(exampleRow(features)), null, 1);
    run(text.value);
  });
  container.append(
    node(
      "div.columns",
      node("div", text, node("p.row", go, example, node("span.quiet", "Ctrl-Enter explains too."))),
      dropPlace(
        `Drop a CSV or JSON file with the ${counted(features.length, "feature")} of ${model} ` +
          `here; the first ${MOST_ROWS} rows are taken.`,
        async (file) => {
          text.value = "";
          await run(await file.text(), file.name);
        },
      ),
    ),
    told,
    result,
  );

  text.addEventListener(
    "keydown",
    (event) => (event.ctrlKey || event.metaKey) && event.key === "Enter" && run(text.value),
  );

  async function run(given, name = "") {
    told.replaceChildren(node("p.state", "Explaining."));
    result.replaceChildren();
    try {
      const all = readRows(given, features);
      const most = Math.max(
        1,
        Math.min(MOST_ROWS, Math.floor(MOST_CONTRIBUTIONS / features.length)),
      );
      const rows = all.slice(0, most);
      if (rows.length < window) {
        const came = `there ${rows.length === 1 ? "is" : "are"} ${rows.length}`;
        throw new Error(
          `${model} looks at ${window} rows: paste ${needs}, or drop a file; ${came}`,
        );
      }
      const answer = await context.post(`models/${model}/explain?top=${features.length}`, { rows });
      const kept = JSON.stringify(rows);
      context.set({ rows: kept.length <= LONGEST_IN_URL ? kept : null });
      told.replaceChildren();
      draw(rows, answer, { name, left: all.length - rows.length });
    } catch (problem) {
      fail(told, problem, "These are no rows of this model");
    }
  }

  function draw(rows, answer, { name, left }) {
    const alarms = answer.is_anomaly.filter(Boolean).length;
    const order = answer.severity
      .map((_, i) => i)
      .sort((a, b) => (answer.score[b] ?? -1) - (answer.score[a] ?? -1));
    const [why, map] = places(2);
    const list =
      rows.length > 1 &&
      longList(
        "Rows, strangest first",
        rows.length,
        (i) => {
          const row = order[i];
          return [
            answer.is_anomaly[row] ? Math.max(1, severityStep(answer.severity[row])) : 0,
            `row ${count(row)}`,
            answer.reason[row] ??
              { true: "", false: "ordinary" }[answer.is_anomaly[row]] ??
              (answer.warming[row] ? "warming" : "not judged"),
            answer.severity[row],
          ];
        },
        (i) => pick(order[i]),
        Math.max(0, order.indexOf(Number(state.row ?? order[0]))),
      );
    const of = name && ` of ${name}`;
    const among = `${counted(alarms, "alarm")} among ${counted(rows.length, "row")}${of}`;
    const words = `${among} at α ${percent(answer.alpha)}`;
    result.replaceChildren(
      node(
        "p",
        node("strong", words),
        left ? `; ${counted(left, "further row")} not shown` : "",
        answer.warning ? `. ${answer.warning}` : "",
      ),
      node("div", { class: rows.length > 1 ? "columns" : "" }, list || "", why),
      map,
    );
    context.say(words);
    const shares = answer.explanations.map((each) => {
      const byName = new Map(each.map((one) => [one.feature, one]));
      return features.map(({ name: feature }) => {
        const one = byName.get(feature);
        return one === undefined || one.actual === null
          ? null
          : one.contribution / answer.threshold;
      });
    });

    const first = Math.min(rows.length - 1, Number(state.row ?? order[0]));
    let cells = null; // the heatmap
    let current = first;
    function pick(row) {
      current = row;
      context.set({ row: row === order[0] ? null : row });
      drawRow(row);
      cells?.mark(row);
    }

    function drawRow(row) {
      const all = answer.explanations[row];
      const blamed = all.filter((each) => each.blamed);
      const listed = [...blamed, ...all.filter((each) => !each.blamed)].slice(
        0,
        Math.max(8, blamed.length),
      );
      const [chart, over] = places(2);
      const sent = { rows: rows.slice(Math.max(0, row - window + 1), row + 1) };
      const judged = answer.severity[row] !== null;
      why.replaceChildren(
        node("h2", `Row ${count(row)}`),
        facts(
          [
            "severity",
            number(answer.severity[row]),
            answer.extrapolated[row]
              ? "extrapolated, beyond all calibration rows"
              : `p-value ${number(answer.p_value[row], 2)}`,
          ],
          [
            "score / threshold",
            number(answer.ratio[row]),
            !judged ? "not judged" : answer.is_anomaly[row] ? "an alarm" : "ordinary",
          ],
          ["to blame", count(blamed.length), `of ${counted(features.length, "feature")}`],
        ),
        node(
          "p.reason",
          answer.reason[row] ??
            (judged
              ? "It does not alarm, so nothing is to blame."
              : answer.warming[row]
                ? `Warming: ${model} looks at ${window} rows, and has too few before this one.`
                : "It has too few values to be judged."),
        ),
        chart,
        over,
        ...copied(curl("POST", `models/${model}/explain`, sent), { hidden: true }),
      );
      if (!judged) return;
      dumbbell(chart, listed, { name: `Actual against expected, row ${count(row)}` });
      if (window > 1) drawOver(over, listed[0]);
    }

    /** The same feature over time: rows of a window stand in order. */
    function drawOver(place, { feature, unit = "" }) {
      const cells = answer.explanations.map((each) => each.find((one) => one.feature === feature));
      const given = rows.map(
        (row) => row[feature] ?? row[features.findIndex(({ name }) => name === feature)],
      );
      if (!given.some(Number.isFinite)) return;
      const edge = (sds) =>
        cells.map((one) =>
          one && Number.isFinite(one.expected_sd) ? one.expected + sds * one.expected_sd : null,
        );
      line(
        place,
        {
          x: rows.map((_, i) => i),
          series: [
            { label: "actual", y: given.map((cell) => (Number.isFinite(cell) ? cell : null)) },
            {
              label: "expected ± 2 sd",
              y: cells.map((one) => one?.expected ?? null),
              kind: "promise",
            },
          ],
          band: { low: edge(-2), high: edge(2) },
        },
        { name: `${feature} over time`, xTitle: "row", yTitle: unit },
      );
    }

    function drawMap(row) {
      if (rows.length < 2) return;
      cells = heatmap(
        map,
        {
          rows: rows.map((_, i) => String(i)),
          columns: features.map((each) => each.name),
          values: shares,
        },
        {
          name: "Which feature of which row",
          note: "Contributions add up: a row whose cells sum to 1 is at the threshold.",
          unit: "of the threshold",
          steps: STEPS,
          picked: [row, 0],
          pick(n) {
            if (n !== current) list.choose(order.indexOf(n));
          },
        },
      );
    }

    drawRow(first);
    drawMap(first);
  }

  if (state.rows) {
    text.value = state.rows;
    await run(state.rows);
  }
}

/** Rows in feature order, from JSON or from CSV. */
function readRows(text, features) {
  const given = text.trim();
  if (!given) throw new Error("paste at least one row, or drop a file");
  if (given[0] !== "[" && given[0] !== "{") return toRows(readCsv(given), features).rows;
  const json = JSON.parse(given);
  const rows = Array.isArray(json) ? json : (json.rows ?? [json]);
  if (!rows.length) throw new Error("at least one row was expected");
  return Array.isArray(rows[0]) || typeof rows[0] === "object" ? rows : [rows];
}
