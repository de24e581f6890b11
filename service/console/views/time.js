// Time: which entity was strange when, which features then, and events from start to end; live.
import { curl } from "../api.js";
import { bars } from "../charts/bars.js";
import { node } from "../charts/frame.js";
import { lanes } from "../charts/lanes.js";
import { counted, duration, local, moment, number, severityStep } from "../charts/words.js";
import { button, copied, exampleRow, fail, places, swatch, workPlace } from "../parts.js";

export const title = "Was anything strange, and when?";

const LOOK_SECONDS = 5;
// [words, seconds up to now]
const RANGES = {
  hour: ["last hour", 3600],
  day: ["last day", 86400],
  all: ["all"],
  custom: ["from … to …"],
};
const SHARES = [0.05, 0.1, 0.2, 0.4, 0.7, 1]; // of the threshold
const KEPT_SECONDS = 60; // of a bin that the service keeps; between narrower ones there were gaps
const RANKED = 12; // features shown

export async function show(container, context) {
  const { model, detail, state } = context;
  const path = `models/${model}`;
  let all = null; // the timeline of all entities
  let one = null; // that of the picked one
  let events = []; // of all entities in the range
  let turn = 0; // counts what was asked for, so that a late answer draws nothing
  let charts = [];
  let filed = null; // {name, ones} of a dropped file, instead of streams

  const [told, swim, below, ranked] = places(4);
  const reading = node("div");
  const heading = node("h2");
  const list = node("ul.list");
  const ends = ["since", "until"].map((key) => {
    const input = node("input", { type: "datetime-local", "aria-label": key });
    input.value = state[key] ? local(Date.parse(state[key])).slice(0, 16).replace(" ", "T") : "";
    input.addEventListener("change", () => {
      context.set({ [key]: input.value ? iso(input.value) : null });
      begin();
    });
    return input;
  });
  const range = node(
    "select",
    { "aria-label": "Range of time" },
    Object.entries(RANGES).map(([key, [words]]) =>
      node("option", { value: key, selected: key === (state.range ?? "all") }, words),
    ),
  );
  range.addEventListener("change", () => {
    context.set({ range: range.value === "all" ? null : range.value });
    begin();
  });
  const { worker, place } = workPlace(
    "filing.js",
    `Drop a CSV with the ${counted(detail.feature_count, "feature")} of ${model} and a column of ` +
      "times here, to look at it as at a stream. Nothing of it is stored.",
    reading,
    () => ({ model, detail, bins: bins() }),
    (done, { name }) => {
      const left = done.left ? ` ${counted(done.left, "further row")} of it are not shown.` : "";
      reading.replaceChildren(
        node("p.row", `${name}, oldest row first.${left}`, button("Back to the streams", begin)),
      );
      turn += 1;
      [filed, all, events] = [{ name, ones: done.ones }, done.all, []];
      one = filed.ones[all.entities[0].entity];
      draw();
    },
  );
  container.append(
    node("p.row", range, ends),
    reading,
    told,
    swim,
    heading,
    below,
    node("div.columns", ranked, node("div", list)),
    place,
  );

  const bins = () => (container.clientWidth < 600 ? 60 : 240);

  /** The timelines and events of the range; of the entity that was picked, or the strangest. */
  async function look() {
    const mine = ++turn;
    const now = 60_000 * Math.ceil(Date.now() / 60_000);
    const [, seconds] = RANGES[range.value];
    const asked = { bins: bins(), limit: 200 };
    if (seconds) Object.assign(asked, { since: iso(now - 1000 * seconds), until: iso(now) });
    if (range.value === "custom")
      for (const key of ["since", "until"]) if (state[key]) asked[key] = state[key];
    const timeline = () => context.get(`${path}/timeline?${new URLSearchParams(asked)}`);
    let next = await timeline();
    const { since, until } = next;
    const kept = Math.round((Date.parse(until) - Date.parse(since)) / 1000 / KEPT_SECONDS);
    if (kept < asked.bins) {
      Object.assign(asked, { since, until, bins: Math.max(1, kept) });
      next = await timeline();
    }
    const names = next.entities.map(({ entity }) => entity);
    const [answer, picked] = await Promise.all([
      context.get(`${path}/events?limit=200`),
      names.length ? lookAt(names.includes(state.entity) ? state.entity : names[0], next) : null,
    ]);
    if (mine !== turn) return false;
    [all, one] = [next, picked];
    const within = ({ start, end }) =>
      Date.parse(start) <= untilAt() && Date.parse(end ?? all.until) >= sinceAt();
    events = answer.events.filter(within);
    return true;
  }

  async function lookAt(entity, { since, until, times }) {
    if (filed) return filed.ones[entity];
    const asked = new URLSearchParams({ since, until, bins: times.length });
    try {
      return await context.get(`${path}/timeline/${encodeURIComponent(entity)}?${asked}`);
    } catch (problem) {
      if (problem.status !== 404) throw problem;
      // it left for entities that sent later: of what it was its lane is left
      const features = detail.features.map(({ name }) => name);
      return { entity, features, contributions: features.map(() => times.map(() => null)) };
    }
  }

  async function begin() {
    ends.forEach((input) => (input.hidden = range.value !== "custom"));
    filed = null;
    reading.replaceChildren();
    try {
      if (await look()) draw();
    } catch (problem) {
      if (problem.status !== 404) return fail(told, problem);
      told.replaceChildren(node("p.state", "This service keeps no timeline: it knows no streams."));
    }
    return undefined;
  }

  const sinceAt = () => Date.parse(all.since);
  const untilAt = () => Date.parse(all.until);
  const binAt = (iso) =>
    ((Date.parse(iso) - sinceAt()) / (untilAt() - sinceAt())) * all.times.length;
  const timeOf = (bin) => iso(sinceAt() + ((untilAt() - sinceAt()) * bin) / all.times.length);

  /** The bins between the moments in the address, or null. */
  function span() {
    if (!state.from || !state.to) return null;
    const last = all.times.length - 1;
    const [from, to] = [
      Math.floor(binAt(state.from) + 1e-6),
      Math.ceil(binAt(state.to) - 1e-6) - 1,
    ];
    return to < 0 || from > last ? null : [Math.max(0, from), Math.min(last, Math.max(from, to))];
  }

  function draw() {
    const { entities } = all;
    for (const part of [swim, heading, below, ranked, list]) part.hidden = !entities.length;
    const open = entities.filter(({ event }) => event !== null).length;
    context.title(
      filed ? `Was anything strange in ${filed.name}?` : open ? "What is strange now?" : title,
    );
    if (!entities.length) return drawEmpty();
    const warming = entities.filter((each) => each.warming).length;
    const last = entities
      .map((each) => each.last ?? "") // "" of those that left
      .sort()
      .at(-1);
    told.replaceChildren(
      node(
        "p",
        node("strong", open ? counted(open, "open event") : "No open event"),
        `; ${counted(events.length, "event")} in this range, of `,
        `${counted(entities.length, "entity", "entities")}. The last row is of ${moment(last)}.`,
        warming > 0 && ` Warming, and not judged yet: ${warming}.`,
      ),
    );
    const names = entities.map(({ entity }) => entity);
    const swimming = lanes(
      swim,
      {
        since: sinceAt(),
        until: untilAt(),
        lanes: entities.map(({ entity, severity, warming: warms }) => ({
          label: entity,
          values: severity,
          warms,
        })),
      },
      {
        name: "Highest severity of each entity",
        note: "Strangest first. Brackets: events and their peaks. Dotted: warming, not judged yet.",
        unit: "severity",
        steps: [1, 2, 3, 4, 5, 6],
        format: (severity) => number(severity, 2),
        picked: names.indexOf(one.entity),
        pick: (lane) => pick(names[lane]),
        brackets: events
          .map((event) => ({
            event,
            lane: names.indexOf(event.entity),
            start: Date.parse(event.start),
            peak: Date.parse(event.peak),
            end: event.end && Date.parse(event.end),
          }))
          .filter(({ lane }) => lane >= 0),
        open: ({ event }) => openEvent(event),
        span: span(),
        brush,
      },
    );
    charts = [swimming];
    return drawOne();
  }

  function drawOne() {
    const { entity, features, contributions } = one;
    const warms = all.entities.find((each) => each.entity === entity)?.warming;
    const most = contributions.map((shares) => Math.max(0, ...shares));
    const order = features.map((_, d) => d).sort((a, b) => most[b] - most[a]);
    heading.replaceChildren(node("span", entity, warms && ": warming, not judged yet"));
    charts[1] = lanes(
      below,
      {
        since: sinceAt(),
        until: untilAt(),
        lanes: order.map((d) => ({ label: features[d], values: contributions[d] })),
      },
      {
        name: `What each feature of ${entity} adds`,
        note: "The largest contribution in each bin. Drag over a span to rank the features for it.",
        unit: "of the threshold",
        steps: SHARES,
        span: span(),
        brush,
      },
    );
    drawRanked(span());
    drawEvents();
  }

  function drawRanked(bins) {
    const rows = rank(one, bins).slice(0, RANKED);
    const { inside, outside } = rows[0];
    bars(
      ranked,
      rows.map(({ feature, mean, rest }) => ({
        label: feature,
        value: mean,
        promised: bins && rest,
        severity: SHARES.filter((from) => mean >= from).length,
      })),
      {
        name: bins
          ? `Features ranked for ${moment(timeOf(bins[0]))} – ${moment(timeOf(bins[1] + 1))}`
          : "Features ranked for the whole range",
        note:
          bins && outside
            ? `By what each adds in the ${counted(inside, "bin")} of the span with an answer, on ` +
              `average, less the same in the ${counted(outside, "bin")} outside it.`
            : `By what each adds on average in ${counted(inside, "bin")} with an answer` +
              `${bins ? "; none lies outside the span" : ""}.`,
        unit: "of the threshold",
        mark: "outside the span",
      },
    );
  }

  function brush(bins, done) {
    for (const chart of charts) chart.mark(bins);
    drawRanked(bins);
    if (!done) return;
    const [from, to] = bins ? [timeOf(bins[0]), timeOf(bins[1] + 1)] : [null, null];
    context.set({ from, to, event: null });
    context.say(`${rank(one, bins)[0].feature} ranks first.`);
    drawEvents();
  }

  async function pick(entity, changes = { event: null }) {
    context.set({ ...changes, entity });
    const mine = ++turn;
    try {
      const next = await lookAt(entity, all);
      if (mine !== turn) return;
      one = next;
      drawOne();
    } catch (problem) {
      fail(below, problem);
    }
  }

  /** Its sentence and features, with the brush over it; a second time closes it. */
  async function openEvent(event) {
    const { id, entity, start, end } = event;
    const closes = state.event === id;
    const changes = closes ? { event: null } : { event: id, from: start, to: end ?? all.until };
    await pick(entity, changes);
    charts[0].mark(span());
    list.querySelector(`[data-key="${CSS.escape(id)}"]`)?.focus();
  }

  function drawEvents() {
    const focused = list.contains(document.activeElement) && document.activeElement.dataset.key;
    const own = events.filter(({ entity }) => entity === one.entity);
    list.replaceChildren(
      ...own.map((event) => {
        const { id, start, peak, end, rows, severity, p_value: p, features, sentence } = event;
        const opened = state.event === id;
        const seconds = (Date.parse(end ?? all.until) - Date.parse(start)) / 1000;
        return node(
          "li",
          node(
            "button",
            {
              type: "button",
              "aria-expanded": String(opened),
              "data-key": id,
              onclick: () => openEvent(event),
            },
            node(
              "span.figure.severity",
              swatch(severityStep(severity)),
              `severity ${number(severity, 2)}`,
            ),
            node("span.figure.span", `${moment(start)} – ${end ? moment(end) : "now"}`),
            node("span.grow.quiet", features.join(", ") || "differs as a whole"),
          ),
          opened &&
            node(
              "div.note",
              node("p.reason", sentence ?? "No reason was computed."),
              node(
                "p",
                `${end ? "Closed" : "Open"}: ${counted(rows, "row")} in ${duration(seconds)}; `,
                `peak at ${moment(peak)}, p-value ${number(p, 2)}.`,
              ),
            ),
        );
      }),
      own.length
        ? ""
        : node(
            "li.state",
            filed
              ? "Streams have events, files have none."
              : `No event of ${one.entity} in this range.`,
          ),
    );
    if (focused) list.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  function drawEmpty() {
    const rows = detail.window?.rows ?? 1;
    told.replaceChildren(
      node(
        "p.state",
        "No entity has sent rows yet. ",
        rows > 1
          ? `${model} looks at ${rows} rows: until an entity has sent as many it is warming. `
          : `${model} judges single rows, each as it comes. `,
        "This sends the next row of pump-1:",
      ),
      ...copied(curl("POST", `${path}/streams/pump-1`, { rows: [exampleRow(detail.features)] }), {
        hidden: false,
      }),
    );
  }

  /** What tells whether anything is new. */
  const signs = () =>
    JSON.stringify([events, all.entities.map((each) => [each.entity, each.last, each.event])]);

  await begin();
  context.every(LOOK_SECONDS, async () => {
    if (all === null || filed || charts.some((chart) => chart.busy())) return;
    const [before, seen] = [all, signs()];
    if (!(await look().catch(() => false))) return; // the header says that it is stale
    const passed = Date.parse(all.until) - Date.parse(before.until) >= 1000 * before.bin_seconds;
    if (signs() !== seen || (passed && all.entities.length)) draw();
    else all = before;
  });
  return () => worker.terminate();
}

const iso = (time) => new Date(time).toISOString();

/**
 * Features by what they add in a span of bins, on average, less the same outside of it; without a
 * span by what they add everywhere. Bins without an answer do not count.
 */
export function rank({ features, contributions }, span) {
  const mean = (values) => values.reduce((sum, each) => sum + each, 0) / (values.length || 1);
  return features
    .map((feature, d) => {
      const [inside, outside] = [[], []];
      contributions[d].forEach((share, bin) => {
        if (share === null) return;
        (!span || (bin >= span[0] && bin <= span[1]) ? inside : outside).push(share);
      });
      return {
        feature,
        mean: mean(inside),
        rest: mean(outside),
        inside: inside.length,
        outside: outside.length,
      };
    })
    .sort((a, b) => b.mean - b.rest - (a.mean - a.rest));
}
