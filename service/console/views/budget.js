// Budget: how many alarms another false-alarm budget would give, of live rows and of a file's.
import { bars } from "../charts/bars.js";
import { node } from "../charts/frame.js";
import { histogram } from "../charts/histogram.js";
import {
  count,
  counted,
  duration,
  moment,
  number,
  percent,
  severityStep,
} from "../charts/words.js";
import { explained, facts, fail, longList, places, workPlace } from "../parts.js";
import { series } from "../series.js";

export const title = "How many alarms would this budget give?";

const GRID = [
  0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.007, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04,
  0.05, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.4,
];
const BESIDE = [0.001, 0.01, 0.05, 0.1, 0.2]; // budgets shown beside the one that is tried
const LOOK_SECONDS = 5;
const HOW = {
  certified: ({ delta, promised }) =>
    `with ${percent(1 - delta)} confidence; ${percent(promised)} on average`,
  blocks: () => "as held in every block of time looked at",
  marginal: () => "on average",
};

export async function show(container, context) {
  const { model, state, readOnly } = context;
  let { detail } = context;
  const window = detail.window?.rows ?? 1; // rows that an answer looks at, its own the last
  const wanted = Number(state.alpha);
  const grid = [
    ...new Set([...GRID, detail.alpha, ...(wanted > 0 && wanted < 1 ? [wanted] : [])]),
  ].sort((a, b) => a - b);
  const look = () =>
    context.get(`models/${model}/replay?${alphas.map((each) => `alpha=${each}`).join("&")}`);
  // the marginal rule can have smaller budgets than the certified one
  const least =
    detail.guarantee === "marginal"
      ? 1 / (detail.calibration_rows + 1)
      : detail.nearest_certifiable_alpha;
  const alphas = grid.filter((each) => each >= least || each === detail.alpha);
  let live = await look();
  let picked = alphas.indexOf(alphas.includes(wanted) ? wanted : detail.alpha);
  let file = null; // what came of the dropped one
  let plot = null;

  const slider = node("input", {
    type: "range",
    id: "alpha",
    min: 0,
    max: alphas.length - 1,
    step: 1,
    value: picked,
    "aria-label": "False-alarm budget α",
  });
  const [told, applied, severities, uniform, others, dropped] = places(6);
  const apply = node("button.main", { type: "button" }, "Apply");
  const back = node("button", { type: "button" });
  const perDay = node("input", {
    type: "number",
    min: 0,
    step: "any",
    "aria-label": "Alarms a day, at most",
  });
  const pace = node("input", { type: "number", min: 0, step: "any", "aria-label": "Rows a day" });
  apply.style.minWidth = "128px";
  perDay.style.width = pace.style.width = "104px";

  const tried = () => live.alphas[picked];
  const inForce = () => live.alphas[alphas.indexOf(detail.alpha)] ?? null;
  const rowsADay = () => Number(state.rows_a_day) || live.rows_per_day || null;
  const aDay = (rate) =>
    rowsADay() && rate !== null ? Number((rate * rowsADay()).toPrecision(3)) : null;

  function draw() {
    const budget = tried();
    const alpha = percent(budget.alpha);
    slider.value = picked;
    slider.setAttribute("aria-valuetext", `α ${alpha}`);
    context.title(`How many alarms would ${alpha} give?`);
    perDay.disabled = !rowsADay();
    const most = promise(budget);
    const atMost = aDay(most ?? budget.alpha);
    if (document.activeElement !== perDay) perDay.value = atMost ?? "";
    if (document.activeElement !== pace)
      pace.value = rowsADay() ? Number(rowsADay().toPrecision(3)) : "";
    const [low, high] = budget.interval;
    told.replaceChildren(
      facts(
        [
          "budget",
          `α ${alpha}`,
          inForce() === budget ? "in force" : `in force: α ${percent(detail.alpha)}`,
        ],
        [
          "promised",
          most === null
            ? "nothing"
            : rowsADay()
              ? `≤ ${number(atMost)} a day`
              : `≤ ${percent(most)} of rows`,
          most === null
            ? detail.guarantee_reason
            : `${percent(most)} of normal rows, ${HOW[detail.guarantee](budget)}`,
          true,
        ],
        live.rows
          ? [
              "observed",
              rowsADay() ? `${number(aDay(budget.alarm_rate))} a day` : percent(budget.alarm_rate),
              `${counted(budget.alarms, "alarm")} in ${counted(live.rows, "row")}: ` +
                `${percent(budget.alarm_rate)} (${percent(low)} – ${percent(high)})`,
            ]
          : ["observed", "–", "no rows yet"],
        [
          "as promised",
          live.rows ? kept(budget) : "–",
          live.rows ? "the observed interval against the promise" : "",
        ],
        rowsADay() && [
          "rows a day",
          number(Number(rowsADay().toPrecision(3))),
          state.rows_a_day
            ? "as given"
            : `the pace of ${counted(live.rows, "row")} ${span(live.since)}`,
        ],
      ),
    );
    const same = inForce() === budget;
    apply.disabled = same;
    apply.textContent = same ? "In force" : `Apply α ${alpha}`;
    back.textContent = `Back to α ${percent(detail.alpha)}`;
    back.disabled = same; // and stays where it is, so that the slider does
    drawSeverities();
    drawOthers();
    if (file) drawFile();
  }

  /** The most normal rows that may alarm; null where nothing is promised. */
  function promise(budget) {
    return (
      { certified: budget.alpha, blocks: budget.alpha, marginal: budget.promised }[
        detail.guarantee
      ] ?? null
    );
  }

  function kept(budget) {
    const most = promise(budget);
    if (most === null) return "–";
    if (budget.interval[0] > most) return "no: more";
    return budget.interval[1] <= most ? "yes" : "not known yet";
  }

  function drawSeverities() {
    const force = inForce();
    const marks = [
      { at: force?.severity_limit ?? null, label: `in force: α ${percent(detail.alpha)}` },
      ...(force === tried()
        ? []
        : [{ at: tried().severity_limit, label: `α ${percent(tried().alpha)}`, tried: true }]),
    ];
    if (!live.rows) {
      severities.replaceChildren(
        node(
          "p.state",
          `No row was scored ${span(live.since)}. Rows sent to /v1/models/${model}/score are `,
          "counted here; a file can be dropped below.",
        ),
      );
      return;
    }
    histogram(severities, live.severity, {
      name: `Severity of ${counted(live.rows, "row")} scored ${span(live.since)}`,
      note: "Right of the line is an alarm.",
      unit: "severity, −log10 of the p-value",
      log: true,
      severities: true,
      thresholds: marks,
      beyond: Math.log10(detail.calibration_rows + 1), // where the calibration rows end
    });
  }

  function drawUniform() {
    if (!live.rows) return uniform.replaceChildren();
    const rows = live.p_values.counts.reduce((sum, each) => sum + each, 0);
    const expected = rows / live.p_values.counts.length;
    const spread = 2 * Math.sqrt(expected * (1 - 1 / live.p_values.counts.length));
    const p = live.uniform?.p_value ?? null;
    const fits =
      p === null
        ? "too few rows to tell"
        : `uniform: ${p < 0.01 ? "no" : "yes"} (p = ${number(p, 2)})`;
    return histogram(uniform, live.p_values, {
      name: "P-values of live rows against uniform",
      note: `${fits}. Blue: what normal rows give, ± 2 sd.`,
      unit: "p-value",
      expected,
      band: [Math.max(0, expected - spread), expected + spread],
    });
  }

  function drawOthers() {
    if (!live.rows) return others.replaceChildren();
    const shownOnes = live.alphas.filter(
      (each, i) => i === picked || BESIDE.includes(each.alpha) || each.alpha === detail.alpha,
    );
    const factor = rowsADay() ?? 1;
    return bars(
      others,
      shownOnes.map((each) => ({
        label: `α ${percent(each.alpha)}${each.alpha === detail.alpha ? ", in force" : ""}`,
        value: each.alarm_rate * factor,
        low: each.interval?.[0] * factor,
        high: each.interval?.[1] * factor,
        promised: promise(each) === null ? null : promise(each) * factor,
        severity: severityStep(each.severity_limit ?? 6),
      })),
      {
        name: rowsADay() ? "Alarms a day by budget" : "Share of rows that alarm, by budget",
        note: "Bar: observed, with its 95 % interval.",
        unit: rowsADay() ? "alarms a day" : "share of rows",
        format: (each) => (rowsADay() ? number(Number(each.toPrecision(3))) : percent(each)),
        picked: `α ${percent(tried().alpha)}${tried().alpha === detail.alpha ? ", in force" : ""}`,
        pick: (label) =>
          choose(
            alphas.indexOf(
              shownOnes.find((each) => label.startsWith(`α ${percent(each.alpha)}`)).alpha,
            ),
          ),
      },
    );
  }

  let drawing = 0;
  function choose(i) {
    picked = Math.max(0, Math.min(alphas.length - 1, i));
    context.set({ alpha: alphas[picked] === detail.alpha ? null : alphas[picked] });
    cancelAnimationFrame(drawing);
    drawing = requestAnimationFrame(draw);
  }

  slider.addEventListener("input", () => choose(Number(slider.value)));
  back.addEventListener("click", () => choose(alphas.indexOf(detail.alpha)));
  perDay.addEventListener("change", () => {
    const most = Number(perDay.value);
    const fits = live.alphas
      .map((each, i) => [each, i])
      .filter(([each]) => aDay(promise(each) ?? each.alpha) <= most);
    choose(fits.length ? fits.at(-1)[1] : 0);
    perDay.blur();
  });
  pace.addEventListener("change", () => {
    context.set({ rows_a_day: Number(pace.value) || null });
    pace.blur();
    draw();
  });
  apply.addEventListener("click", async () => {
    const before = detail.alpha;
    apply.disabled = true;
    try {
      const changed = await context.patch(`models/${model}`, { alpha: alphas[picked] });
      detail = { ...detail, ...changed };
      const until = changed.until ? ` All workers answer by it at ${moment(changed.until)}.` : "";
      const text = `α ${percent(detail.alpha)} is in force; it was ${percent(before)}.${until}`;
      applied.replaceChildren(node("p.note", text, changed.warning ? ` ${changed.warning}` : ""));
      context.say(text);
      context.set({ alpha: null });
      live = await look();
      draw();
      drawUniform();
    } catch (problem) {
      fail(applied, problem);
      draw();
    }
  });

  // A file

  const { worker, place } = workPlace(
    "replaying.js",
    `Drop a CSV with the ${counted(detail.feature_count, "feature")} of ${model} here: ` +
      "how many of its rows would alarm? Nothing of it is stored.",
    dropped,
    () => {
      plot?.end();
      plot = file = null;
      return { model, alphas, window, features: detail.features };
    },
    async (done, { name }) => {
      file = { ...done, name };
      await openFile();
    },
  );

  const sentence = node("p");
  const [lines, over, why] = places(3);

  async function openFile() {
    const names = Object.keys(file.labels);
    file.label = names[0] ?? null;
    const choice = node(
      "select",
      { "aria-label": "Column with labels" },
      node("option", { value: "" }, "no labels"),
      names.map((name) => node("option", { value: name, selected: name === file.label }, name)),
    );
    choice.addEventListener("change", () => {
      file.label = choice.value || null;
      drawFile();
    });
    why.replaceChildren();
    dropped.replaceChildren(
      node("h2", file.name),
      sentence,
      names.length ? node("p.row", node("label", "1 is an anomaly in: ", choice)) : "",
      over,
      lines,
      why,
    );
    plot = await series(over, file.severity, {
      name: `Severity of each row of ${file.name}`,
      limit: file.budgets[picked].severity_limit,
      pick: explain,
    });
    drawFile();
    context.say(sentence.textContent);
  }

  function drawFile() {
    const budget = file.budgets[picked];
    plot?.mark(budget.severity_limit);
    const truth = file.label && file.labels[file.label];
    const hits = truth ? budget.alarm_rows.filter((row) => truth[row]).length : 0;
    const anomalies = (n) => counted(n, "labelled anomaly", "labelled anomalies");
    const precision = budget.alarms ? hits / budget.alarms : null;
    const strange = truth ? truth.reduce((sum, each) => sum + each, 0) : 0;
    sentence.replaceChildren(
      node(
        "strong",
        `At α ${percent(budget.alpha)}: ${counted(budget.alarms, "alarm")} `,
        `in ${counted(budget.episodes.length, "episode")}`,
      ),
      ` among ${counted(file.rows, "row")} (${percent(budget.alarms / file.rows)}).`,
      truth
        ? ` Of ${anomalies(strange)} ${count(hits)} alarm ` +
            `(recall ${percent(hits / strange)}); ` +
            `${percent(precision)} of alarms are labelled (precision).`
        : "",
    );
    if (lines.shown === budget) return;
    lines.shown = budget;
    lines.replaceChildren(
      budget.episodes.length
        ? longList(
            "Episodes",
            budget.episodes.length,
            (i) => {
              const { first, last, peak, severity } = budget.episodes[i];
              return [
                severityStep(severity),
                first === last ? `row ${count(first)}` : `rows ${count(first)} – ${count(last)}`,
                first === last ? "" : `strangest: row ${count(peak)}`,
                severity,
              ];
            },
            (i) => explain(budget.episodes[i].peak),
          )
        : node("p.state", "No row of it alarms at this budget."),
    );
  }

  async function explain(row) {
    const cells = await new Promise((resolve) => {
      const hear = ({ data }) => {
        if (data.row !== row) return;
        worker.removeEventListener("message", hear);
        resolve(data.cells);
      };
      worker.addEventListener("message", hear);
      worker.postMessage({ row, window });
    });
    try {
      const answer = await context.post(`models/${model}/explain?top=12`, { rows: cells });
      explained(
        why,
        answer,
        `Row ${count(row)}: severity ${number(answer.severity.at(-1))}`,
        `row ${count(row)}`,
        "It does not alarm at the budget in force.",
      );
    } catch (problem) {
      fail(why, problem);
    }
  }

  container.append(
    node(
      "div.row",
      node("label", "alarms a day, at most ", perDay),
      node("label", "of rows a day ", pace),
      slider,
      ...(readOnly ? [node("span.quiet", "read only")] : [back, apply]),
    ),
    told,
    applied,
    severities,
    node("div.columns", uniform, others),
    place,
    dropped,
  );
  draw();
  drawUniform();
  context.every(LOOK_SECONDS, async () => {
    const next = await look().catch(() => null); // the header says that it is stale
    if (!next) return;
    const forced = (answer) => answer.alphas.find((each) => each.in_force)?.alpha;
    if (next.version !== live.version || forced(next) !== forced(live)) {
      context.again(); // somebody changed the budget, or the version
    } else if (next.rows !== live.rows) {
      live = next;
      draw();
      drawUniform();
    }
  });
  return () => {
    worker.terminate();
    plot?.end();
  };
}

/** Since when, in words. */
function span(iso) {
  const seconds = (Date.now() - new Date(iso).getTime()) / 1000;
  return seconds < 48 * 3600
    ? `in the last ${duration(Math.max(1, seconds))}`
    : `since ${iso.slice(0, 10)}`;
}
