// Map: the code in two dimensions. Held-out rows as a density, alarms and dropped rows as dots; a
// dot shows its row, a loop around dots scores them, a click decodes what lies there.
import { node, scrolled, table } from "../charts/frame.js";
import { scatter } from "../charts/scatter.js";
import { count, counted, moment, number, percent, severityStep, value } from "../charts/words.js";
import { dropPlace, explained, facts, fail, longList, places } from "../parts.js";
import { readCsv, toRows } from "../tables.js";

export const title = "Where do rows lie in the model's code?";

const MOST_ROWS = 2000; // of a dropped file
const MOST_GROUPS = 10; // of alarms that are drawn
const HOVER_MS = 120; // that the pointer rests on a dot before its row is asked for

export async function show(container, context) {
  const { model, detail, state } = context;
  const window = detail.window?.rows ?? 1; // rows that an answer looks at, its own the last
  const [told, picture, one, lassoed] = places(4);
  const map = await readMap(context);
  let marks = []; // {x, y, severity, label, rows, alarms}
  let picked = [];
  let cursor = state.at ? state.at.split(",").map(Number) : undefined;
  const known = new Map(); // explanations by mark

  const place = dropPlace(
    `Drop a CSV with the ${counted(detail.feature_count, "feature")} of ${model}: ` +
      `its first ${count(MOST_ROWS)} rows are put on the map.`,
    async (file) => {
      try {
        const { rows } = toRows(readCsv(await file.text()), detail.features);
        const some = rows.slice(0, MOST_ROWS);
        const [codes, scores] = await Promise.all([
          context.post(`models/${model}/encode`, { rows: some }),
          // a replay, since rows that are looked at are no traffic
          context.post(`models/${model}/replay`, { rows: some, alphas: [detail.alpha] }),
        ]);
        if (codes.version !== scores.version)
          throw new Error("another version came into service meanwhile: drop the file once more");
        const alarms = new Set(scores.alphas[0].alarm_rows);
        marks = marksOf(
          codes.codes,
          some,
          scores.severity,
          (i) => `row ${i} of ${file.name}`,
          alarms,
        );
        draw();
      } catch (problem) {
        fail(lassoed, problem, "This file cannot be put on the map");
      }
    },
  );
  container.append(
    told,
    node("div.columns", node("div", picture, place), node("div", lassoed, one)),
  );

  /** Marks of the rows that have a code; of a windowed model each with the rows before it. */
  function marksOf(codes, rows, severities, label, alarms) {
    known.clear();
    picked = [];
    const placed = codes.flatMap((code, i) => {
      if (severities[i] === null) return [];
      const [x, y] = map.project(code);
      const seen = rows.slice(Math.max(0, i - window + 1), i + 1);
      return [
        { x, y, severity: severities[i], label: label(i), rows: seen, alarms: alarms?.has(i) },
      ];
    });
    return [...placed, ...map.landmarks];
  }

  function draw() {
    told.replaceChildren(
      node(
        "p",
        map.sentence,
        " ",
        detail.can_decode
          ? "Click, or move by the arrows, to decode a place. "
          : `${detail.variant} cannot decode a place: it needs the row as well as the code. `,
        "Draw around dots to score them.",
      ),
    );
    drawPicture();
    drawList();
  }

  function drawPicture() {
    scatter(
      picture,
      { points: map.heldOut, marks },
      {
        name: "Map of the code",
        note: map.heldOut.length
          ? "Grey: held-out rows; contours hold 50, 80 and 95 % of them. Dots: by severity."
          : "Dots: by severity.",
        axes: map.axes,
        picked,
        hover: peek,
        cursor,
        lasso: score,
        place: detail.can_decode && map.unproject ? decode : null,
      },
    );
  }

  function drawList() {
    lassoed.replaceChildren(
      marks.length
        ? longList(
            "Rows on the map",
            marks.length,
            (i) => [severityStep(marks[i].severity), marks[i].label, "", marks[i].severity],
            (i) => {
              picked = [i];
              drawPicture();
              open(i);
            },
          )
        : node(
            "p.state",
            window > 1
              ? "Drop a file to see its rows here, oldest first."
              : "No live row is kept (that takes --journal): drop a file to see its rows here.",
          ),
    );
  }

  let resting = 0;
  function peek(i) {
    clearTimeout(resting);
    resting = setTimeout(() => open(i), HOVER_MS);
  }

  async function open(i) {
    if (!marks[i].rows) {
      one.replaceChildren(
        node("h2", marks[i].label),
        node("p.state", "The report tells where it lies; the service has no rows of the fit."),
      );
      return;
    }
    try {
      if (!known.has(i))
        known.set(i, await context.post(`models/${model}/explain?top=8`, { rows: marks[i].rows }));
      explained(one, known.get(i), marks[i].label, marks[i].label);
    } catch (problem) {
      fail(one, problem);
    }
  }

  async function score(looped) {
    const inside = looped.filter((i) => marks[i].rows);
    picked = inside;
    drawPicture();
    if (!inside.length) return one.replaceChildren(node("p.state", "No dot lies in there."));
    try {
      const answer =
        window > 1
          ? asReplayed(inside.map((i) => marks[i]))
          : await context.post(`models/${model}/replay`, {
              rows: inside.map((i) => marks[i].rows[0]),
              alphas: [detail.alpha],
            });
      const [{ alarms, alpha, alarm_rows: alarming }] = answer.alphas;
      const sorted = [...answer.severity].sort((a, b) => a - b);
      const words = `${counted(inside.length, "row")} inside: ${counted(alarms, "alarm")}`;
      one.replaceChildren(
        node("h2", words),
        facts(
          [
            "alarms",
            count(alarms),
            `${percent(alarms / inside.length)} of the rows, α ${percent(alpha)}`,
          ],
          [
            "severity, median",
            number(sorted[Math.floor(sorted.length / 2)]),
            `${number(sorted[0])} – ${number(sorted.at(-1))}`,
          ],
        ),
        longList(
          "Rows inside",
          inside.length,
          (i) => [
            alarming.includes(i) ? Math.max(1, severityStep(answer.severity[i])) : 0,
            marks[inside[i]].label,
            alarming.includes(i) ? "alarm" : "ordinary",
            answer.severity[i],
          ],
          (i) => open(inside[i]),
        ),
      );
      return context.say(words);
    } catch (problem) {
      return fail(one, problem);
    }
  }

  /** What a replay would answer; rows that are picked one by one cannot be asked of windows. */
  function asReplayed(some) {
    const rows = some.flatMap(({ alarms }, i) => (alarms ? [i] : []));
    return {
      severity: some.map(({ severity }) => severity),
      alphas: [{ alpha: detail.alpha, alarms: rows.length, alarm_rows: rows }],
    };
  }

  let asking = false;
  let next = null;
  async function decode(x, y) {
    next = [x, y];
    if (asking) return; // the last place that was asked for is decoded next
    asking = true;
    try {
      while (next) {
        const at = next;
        next = null;
        cursor = at;
        context.set({ at: at.map((each) => Number(each.toPrecision(5))).join(",") });
        const answer = await context.post(`models/${model}/decode`, { codes: [map.unproject(at)] });
        one.replaceChildren(
          node("h2", `Decoded at ${number(at[0])}, ${number(at[1])}`),
          scrolled(
            "Decoded row",
            table(
              "Decoded row",
              null,
              answer.rows[0].map((cell, d) => {
                const { name, unit, minimum, maximum } = detail.features[d];
                const beyond =
                  typeof cell === "number" &&
                  minimum !== null &&
                  (cell < minimum || cell > maximum);
                return node(
                  "tr",
                  node("th", { scope: "row" }, name),
                  node("td.figure", value(cell, unit ?? "")),
                  node(
                    "td.quiet",
                    beyond && `beyond ${number(minimum)} – ${number(maximum)} of the fit rows`,
                  ),
                );
              }),
            ),
          ),
        );
      }
    } catch (problem) {
      fail(one, problem);
    } finally {
      asking = false;
    }
  }

  marks = window > 1 ? map.landmarks : await readLive(context, marksOf);
  draw();
  if (cursor && detail.can_decode && map.unproject) decode(...cursor);
}

/** The map of the report; of a version without one the first two numbers of the code. */
async function readMap({ model, detail, get }) {
  const { versions } = await get(`models/${model}/versions`);
  if (versions.find(({ version }) => version === detail.version)?.report) {
    const { map } = await get(`models/${model}/report?format=json&version=${detail.version}`);
    if (map) return ofReport(map);
  }
  const width = detail.latent_width;
  return {
    axes: ["latent 0", width > 1 ? "latent 1" : ""],
    heldOut: [],
    landmarks: [],
    sentence:
      "This version has no report, and so no held-out rows to show: the plane is that of the " +
      `first two of ${counted(width, "number")} in the code.`,
    project: (code) => [code[0], code[1] ?? 0],
    unproject: width <= 2 ? (at) => at.slice(0, width) : null,
  };
}

function ofReport({
  axes,
  projection,
  held_out: heldOut,
  suspects = [],
  suspect_severity: strangeness = [],
}) {
  const { mean, components } = projection;
  const shares = axes[0].startsWith("component")
    ? `the two directions in which the ${count(mean.length)} numbers of the code vary most`
    : "the code itself";
  return {
    axes,
    heldOut,
    landmarks: suspects.map(([x, y, row], i) => ({
      x,
      y,
      severity: strangeness[i],
      label: `suspect, row ${row} of the fit`,
    })),
    sentence: `${counted(heldOut.length, "held-out row")}, in ${shares}.`,
    project: (code) =>
      components.map((weights) =>
        weights.reduce((sum, weight, k) => sum + weight * (code[k] - mean[k]), 0),
      ),
    unproject: (at) =>
      mean.map(
        (centre, k) => centre + components.reduce((sum, weights, j) => sum + weights[k] * at[j], 0),
      ),
  };
}

/** Live rows that are kept, as dots: alarms, and some of those that did not alarm. */
async function readLive({ model, get, post }, marksOf) {
  const { groups, rows_kept: kept } = await get(`models/${model}/alarms?limit=${MOST_GROUPS}`);
  if (!kept) return marksOf([], [], []);
  const path = (key) => get(`models/${model}/alarms/${encodeURIComponent(key)}`);
  const [ordinary, ...opened] = await Promise.all([
    get(`models/${model}/ordinary`),
    ...groups.map(({ key }) => path(key)),
  ]);
  const seen = [
    ...opened.flatMap(({ alarms }) => alarms).map((one) => ({ ...one, kind: "alarm" })),
    ...ordinary.rows.map((one) => ({ ...one, kind: "ordinary row" })),
  ]
    .filter(({ row }) => row)
    .slice(0, MOST_ROWS);
  if (!seen.length) return marksOf([], [], []);
  const rows = seen.map(({ row }) => row);
  const { codes } = await post(`models/${model}/encode`, { rows });
  return marksOf(
    codes,
    rows,
    seen.map(({ severity }) => severity),
    (i) => `${seen[i].kind} of ${moment(seen[i].time)}`,
  );
}
