// What report.html draws: each place that names a chart gets it, from the facts beside it.
import { bars } from "./charts/bars.js";
import { heatmap } from "./charts/heatmap.js";
import { histogram } from "./charts/histogram.js";
import { line } from "./charts/line.js";
import { scatter } from "./charts/scatter.js";
import { number, percent } from "./charts/words.js";

const facts = JSON.parse(document.getElementById("facts").textContent);
const spans = (values) => Math.min(...values) > 0 && Math.max(...values) > 30 * Math.min(...values);
const share = (value) => percent(value, 3);
const unit = facts.timeline ? "windows" : "rows";
const DAY = 86_400;
const STEPS = [1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 4 * 3600, 8 * 3600, DAY / 2]; // seconds
// seconds since 1970 in UTC: the date of what lasts days, and the time of what does not
const instant = (seconds, span) => {
  const text = new Date(1000 * seconds).toISOString().replace("T", " ");
  if (span > 8 * DAY) return text.slice(0, 10);
  return span > DAY ? text.slice(5, 16) : text.slice(11, 19);
};
/** Round instants between two, at most seven. */
const instants = (from, to) => {
  const most = (to - from) / 7;
  const step = STEPS.find((each) => each >= most) ?? DAY * Math.ceil(most / DAY);
  const places = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) places.push(at);
  return places;
};
const estimated = (label, { value, interval, n }, more = {}) => ({
  label: `${label} (n = ${n.toLocaleString("en-US")})`,
  value,
  low: interval?.[0],
  high: interval?.[1],
  ...more,
});

const draw = {
  alarms(place) {
    const { alphas, rows_per_day: perDay } = facts.budgets;
    const rows = perDay ?? 1000;
    bars(
      place,
      alphas
        .filter((each) => each.false_alarm_rate)
        .map(({ alpha, in_force, false_alarm_rate: { value, interval } }) => ({
          label: `alpha ${share(alpha)}${in_force ? ", in force" : ""}`,
          value: value * rows,
          low: interval[0] * rows,
          high: interval[1] * rows,
          promised: alpha * rows,
        })),
      {
        name: perDay ? "False alarms a day" : `False alarms per 1,000 normal ${unit}`,
        unit: "false alarms",
      },
    );
  },
  scores(place) {
    const {
      histogram: { edges, counts, is_log: isLog },
      threshold,
      rows,
    } = facts.scores;
    const of = (value) => (isLog ? Math.log10(value) : value);
    histogram(
      place,
      { edges: edges.map(of), counts },
      {
        name: `${rows.toLocaleString("en-US")} held-out normal ${unit} by score`,
        counted: unit,
        unit: isLog ? "score, its logarithm to base 10" : "score",
        thresholds: [{ at: of(threshold), label: `threshold ${number(threshold)}` }],
      },
    );
  },
  anomalies(place) {
    const {
      histogram: { edges, anomalies, is_log: isLog },
      threshold,
    } = facts.scores;
    const of = (value) => (isLog ? Math.log10(value) : value);
    histogram(
      place,
      { edges: edges.map(of), counts: anomalies },
      {
        name: "Labelled anomalies by score",
        note: "What lies beyond the last edge is counted in the last bin.",
        unit: isLog ? "score, its logarithm to base 10" : "score",
        thresholds: [{ at: of(threshold), label: `threshold ${number(threshold)}` }],
      },
    );
  },
  parts(place) {
    const { parts, blocks } = facts.scores;
    const promised = facts.budgets.alphas.find((each) => each.in_force).alpha;
    bars(
      place,
      [...parts, ...blocks].map(({ name, rate }) => estimated(name, rate, { promised })),
      {
        name: `Share of held-out normal ${unit} that alarm, part by part`,
        unit: `of the ${unit}`,
        format: share,
      },
    );
  },
  uniform(place) {
    const { counts, n, band } = facts.scores.uniform;
    histogram(
      place,
      { edges: Array.from({ length: counts.length + 1 }, (_, i) => i / counts.length), counts },
      {
        name: `P-values of ${n.toLocaleString("en-US")} ${unit}`,
        counted: unit,
        unit: "p-value",
        expected: n / counts.length,
        band,
        note: "Blue: uniform, and where a bin lies in 95 of 100 cases.",
      },
    );
  },
  severity(place) {
    const { bins, time, is_clock: isClock } = facts.timeline;
    const [first, last] = [bins.time[0], bins.time.at(-1)];
    const step = bins.time[1] - first;
    const known = bins.held_out.filter((_, i) => bins.highest[i] !== null);
    const all = known.every(Boolean);
    const spans = [];
    bins.held_out.forEach((heldOut, i) => {
      const from = bins.time[i] - step / 2;
      if (heldOut && bins.held_out[i - 1]) spans.at(-1)[1] = from + step;
      else if (heldOut) spans.push([from, from + step]);
    });
    line(
      place,
      {
        x: bins.time,
        series: [
          { label: "median", y: bins.median, kind: "ordinary" },
          { label: "highest", y: bins.highest },
        ],
        spans: all ? [] : spans,
      },
      {
        name: "Severity of windows of normal rows over time",
        note:
          (all ? "Blue: the threshold's severity." : "Blue: the windows that the report is made of, ") +
          (all ? "" : "and the threshold's severity. The others look calmer, being fitted on."),
        xTitle: isClock ? `${time.column}, UTC` : time.column,
        yTitle: "severity",
        threshold: bins.threshold,
        xFormat: isClock ? (at) => instant(at, last - first) : number,
        xPlaces: isClock ? instants(first, last) : undefined,
      },
    );
  },
  power(place) {
    const { features } = facts.power;
    const columns = [
      ...new Set(features.flatMap(({ faults }) => faults.map(({ fault }) => fault))),
    ];
    const values = features.map(({ faults }) => {
      const found = Object.fromEntries(faults.map(({ fault, alarms }) => [fault, alarms.value]));
      return columns.map((fault) => found[fault] ?? null);
    });
    heatmap(
      place,
      { rows: features.map(({ feature }) => feature), columns, values },
      {
        name: `Share of faulty ${unit} that alarm`,
        unit: `of the ${unit}`,
        format: (value) => share(value),
        steps: [0.1, 0.25, 0.5, 0.75, 0.9, 0.99],
      },
    );
  },
  peers(place) {
    bars(
      place,
      facts.peers.methods.map(({ name, auroc }) => estimated(name, auroc)),
      {
        name: "Area under the ROC curve by method",
        unit: "AUROC",
        max: 1,
      },
    );
  },
  map(place) {
    const {
      axes,
      held_out: points,
      anomalies,
      anomaly_severity,
      suspects,
      suspect_severity,
    } = facts.map;
    const marks = [
      ...anomalies.map(([x, y], i) => ({
        x,
        y,
        severity: anomaly_severity[i],
        label: "labelled anomaly",
      })),
      ...suspects.map(([x, y, row], i) => ({
        x,
        y,
        severity: suspect_severity[i],
        label: `row ${row}`,
      })),
    ];
    scatter(
      place,
      { points, marks },
      {
        name: `The code of held-out ${unit}`,
        axes,
        contours: true,
        note:
          `Grey: held-out ${unit}, with contours around 50, 80 and 95 % of them. Coloured by` +
          ` severity: labelled anomalies and ${facts.timeline ? "the strangest" : "suspects"}.`,
      },
    );
  },
  learning(place) {
    place.replaceChildren();
    for (const { name, epoch, loss, held_out_loss: heldOut } of facts.learning) {
      const one = place.appendChild(document.createElement("div"));
      line(
        one,
        {
          x: epoch,
          series: [
            { label: "fit rows", y: loss, kind: "ordinary" },
            { label: "held-out rows", y: heldOut },
          ],
        },
        {
          name: `Loss of ${name}`,
          xTitle: "epoch",
          yTitle: "loss",
          log: spans([...loss, ...heldOut]),
        },
      );
    }
  },
};

for (const place of document.querySelectorAll("[data-chart]")) draw[place.dataset.chart](place);
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details.table")) details.open = true;
});
