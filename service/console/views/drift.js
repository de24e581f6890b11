// Drift: what of live rows is no longer as the fit rows were, since when, and what to do.
import { bars } from "../charts/bars.js";
import { node } from "../charts/frame.js";
import { line } from "../charts/line.js";
import { count, counted, moment, number, percent } from "../charts/words.js";
import { button, facts, places } from "../parts.js";

export const title = "Has anything drifted?";

export async function show(container, context) {
  const { model, state } = context;
  const look = () => context.get(`models/${model}/drift`);
  let answer = await look();
  const [said, worst, one, past] = places(4);
  container.append(said, worst, one, past);

  function draw() {
    const { findings, window, window_rows: rows, so_far: open } = answer;
    said.replaceChildren(
      node("p", node("strong", `${answer.state}: `), answer.sentence),
      node("p", node("strong", "To do: "), answer.advice),
      facts(
        window && [
          "last window",
          counted(window.rows, "row"),
          `of ${count(window.seen)} scored, ${moment(window.began)} – ${moment(window.ended)}`,
        ],
        window && [
          "alarms",
          percent(window.answers.rate),
          `95 %: ${window.answers.interval.map((rate) => percent(rate)).join(" – ")}; ` +
            `promised ${percent(window.answers.promised)}`,
        ],
        [
          "next window",
          `${count(open?.rows ?? 0)} of ${count(rows)} rows`,
          `in ${count(answer.window_seconds)} s at least`,
        ],
        [
          "fit rows",
          count(answer.reference_rows),
          `${counted(answer.without_reference, "feature")} without a reference`,
        ],
      ),
      node(
        "ul",
        findings.map(({ feature, sentence, since, windows }) =>
          node(
            "li",
            `${sentence}; ${counted(windows, "window")}, since ${moment(since)} `,
            feature && button(`Show ${feature}`, () => pick(feature)),
          ),
        ),
      ),
    );
    drawWorst();
    drawPast();
  }

  function pick(feature) {
    context.set({ feature });
    drawWorst();
  }

  function drawWorst() {
    const judged = answer.window ?? answer.so_far;
    if (!judged) return [worst, one].forEach((place) => place.replaceChildren());
    const data = judged.features.map(({ feature, psi, critical }) => ({
      label: feature,
      value: psi === null ? null : psi / critical,
      severity: psi > critical ? 4 : 0,
      promised: 1,
    }));
    bars(worst, data, {
      name: "How far each feature is from the fit rows",
      note:
        "Population stability index over the most that chance brings it to." +
        (judged.others ? ` ${counted(judged.others, "feature")} more are nearer.` : ""),
      unit: "PSI over its critical value",
      mark: "by chance at most",
      picked: state.feature ?? data[0].label,
      pick,
    });
    const all = judged.features;
    const picked = all.find(({ feature }) => feature === state.feature) ?? all[0];
    const { feature, bins, reference, observed, missing, outside, design_effect: effect } = picked;
    return bars(
      one,
      bins.map((label, i) => ({ label, value: observed[i], promised: reference[i] })),
      {
        name: `Values of ${feature}`,
        note:
          `${percent(missing[1])} missing (fit rows ${percent(missing[0])}), ` +
          `${percent(outside)} outside, design effect ${number(effect, 2)}`,
        unit: "share of rows",
        format: percent,
        mark: "fit rows",
      },
    );
  }

  function drawPast() {
    const windows = [...answer.history].reverse();
    if (windows.length < 2) return past.replaceChildren();
    const last = new Date(windows.at(-1).ended);
    return line(
      past,
      {
        x: windows.map(({ ended }) => (new Date(ended) - last) / 3.6e6),
        series: [{ label: "the worst feature", y: windows.map(({ largest }) => largest) }],
      },
      {
        name: "The worst feature of each window",
        xTitle: "hours before the last window",
        yTitle: "PSI over its critical value",
        threshold: 1,
      },
    );
  }

  draw();
  context.every(5, async () => {
    const next = await look().catch(() => null);
    if (!next || JSON.stringify(next) === JSON.stringify(answer)) return;
    answer = next;
    draw();
  });
}
