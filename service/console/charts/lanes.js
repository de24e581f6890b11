// Lanes: one for each thing over time, each bin a step of the severity ramp. A bin without an
// answer is empty, never calm; events are brackets over their lane; a brush marks a span of time.
import {
  arrow,
  bottomAxis,
  box,
  frame,
  node,
  picture,
  pointed,
  rule,
  scale,
  scrolled,
  shape,
} from "./frame.js";
import { rampKey } from "./heatmap.js";
import { cut, local, moment, number, shown } from "./words.js";

const SECONDS = [1, 5, 15, 60, 300, 900, 3600, 10800, 21600, 43200, 86400, 604800, 2592000];
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const peakOf = (values) =>
  values.reduce((most, value) => (value > (most ?? -1) ? value : most), null);

/**
 * data: {since, until: milliseconds, lanes: [{label, values: [B], warms}]}; null is a bin without
 * an answer, a lane that warms is dotted from its last answer on.
 * options: name, note, unit, steps: the six values from which a bin has the steps 1 to 6, format,
 * picked (a lane), pick(lane), brackets: [{lane, start, peak, end (null: open)}], open(bracket),
 * span: [first, last] of the bins, or null, brush(span, done).
 * Returns the figure: its mark(span) moves the brush, busy() says whether it is being dragged.
 */
export function lanes(container, { since, until, lanes: rows }, options) {
  const { name, note, unit, steps, format = number, pick, brackets = [], open, brush } = options;
  let { picked = null, span = null } = options;
  const bins = rows[0].values.length;
  const startOf = (bin) => since + ((until - since) * bin) / bins;
  const stepOf = (value) =>
    value === null ? null : steps.reduce((step, from, i) => (value >= from ? i + 1 : step), 0);
  const says = node("p.reading", { "aria-live": "polite" });
  const before = container.querySelector(".scroll");
  const [focused, scrolledTo] = [before === document.activeElement, before?.scrollTop ?? 0];
  let show = () => {};
  let start = null; // of a drag

  function tell(lane, [first, last]) {
    if (!rows[lane]) return;
    const { label, values, warms } = rows[lane];
    const most = peakOf(values.slice(first, last + 1));
    const none = warms ? "warming, cannot be judged yet" : "no answer";
    const to = last > first ? ` – ${moment(startOf(last + 1))}` : "";
    says.textContent =
      `${shown(label)} · ${moment(startOf(first))}${to}: ` +
      (most === null ? none : `${format(most)} ${unit}`);
  }

  const figure = frame(container, {
    name,
    note,
    key: rampKey(
      steps.map((from) => format(from)),
      unit,
    ),
    below: says,
    table: () => ({
      head: ["lane", `highest, ${unit}`, "at", "now"],
      rows: rows.map(({ label, values, warms }) => {
        const most = peakOf(values);
        const at = most === null ? null : moment(startOf(values.indexOf(most)));
        return [label, most, at, warms ? "warming" : ""];
      }),
    }),
    paint(width) {
      const [pitch, high] = rows.length > 60 ? [12, 8] : [24, 16]; // brackets lie above the cells
      const [left, right, wide] = [width < 520 ? 88 : 152, width - 24, width - 16];
      const tall = rows.length * pitch + 4;
      const across = scale(since, until, left, right);
      const edge = scale(0, bins, left, right);
      const top = (lane) => (lane + 1) * pitch - high;
      const cells = Array.from({ length: 7 }, () => []);
      const warming = [];
      rows.forEach(({ values, warms }, lane) => {
        const all = values.map(stepOf);
        for (let from = 0, to = 0; from < bins; from = to) {
          while (to < bins && all[to] === all[from]) to += 1;
          const [x, end] = [edge(from).toFixed(1), edge(to).toFixed(1)];
          cells[all[from]]?.push(`M${x} ${top(lane)}H${end}v${high}H${x}z`);
        }
        const last = values.findLastIndex((value) => value !== null) + 1;
        if (warms) warming.push([edge(last), top(lane) + high / 2]);
      });
      const bracket = ({ lane, start: from, peak, end }) => {
        const [a, p, b] = [from, peak, end ?? until].map((at) => clamp(across(at), left, right));
        const y = top(lane) - 2;
        const foot = (x) => `M${x} ${y + 2}v-4`;
        const begin = from < since ? `M${a} ${y - 2}` : foot(a);
        return `${begin}H${b}${end === null ? "" : foot(b)}M${p} ${y - 2}v-3`;
      };
      const mark = box("picked", left - 5, 0, 3, high);
      const drawing = picture(
        wide,
        tall,
        `${name}. ${rows.slice(0, 40).map(sentence).join("; ")}`,
        cells.map((paths, step) => shape(`path.severity-${step}.crisp`, { d: paths.join("") })),
        warming.map(([x, y]) => [
          rule("warming", Math.min(right, x + 56), y, right, y),
          x + 56 < right && shape("text.small", { x: x + 4, y: y + 4 }, "warming"),
        ]),
        rows.map(({ label }, lane) =>
          shape(
            "text.small",
            { x: left - 10, y: top(lane) + high / 2 + 4, "text-anchor": "end" },
            cut(label, (left - 12) / 6.2),
          ),
        ),
        shape("path.whisker", { d: brackets.map(bracket).join("") }),
        mark,
      );
      const shade = node("div.brush");
      const place = node("div.lanes", drawing, shade);
      show = () => {
        mark.setAttribute("visibility", picked === null ? "hidden" : "visible");
        mark.setAttribute("y", top(picked ?? 0));
        shade.hidden = !span;
        if (!span) return;
        shade.style.transform = `translateX(${edge(span[0])}px)`;
        shade.style.width = `${edge(span[1] + 1) - edge(span[0])}px`;
      };
      const choose = (lane) => {
        if (!pick || !rows[lane]) return;
        picked = lane;
        show();
        pick(lane);
      };
      const set = (to, done) => {
        span = to;
        show();
        if (span && picked !== null) tell(picked, span);
        brush(span, done);
      };
      const find = (event) => {
        const [x, y] = pointed(event, drawing, wide, tall);
        return {
          x,
          lane: Math.floor(y / pitch),
          above: y % pitch < pitch - high,
          bin: clamp(Math.floor(((x - left) / (right - left)) * bins), 0, bins - 1),
        };
      };
      place.addEventListener("pointerdown", (event) => {
        start = find(event);
        place.setPointerCapture(event.pointerId);
      });
      place.addEventListener("pointermove", (event) => {
        const at = find(event);
        if (!start) tell(at.lane, [at.bin, at.bin]);
        else if (start.moved || Math.abs(at.x - start.x) > 4) {
          start.moved = true;
          set([Math.min(start.bin, at.bin), Math.max(start.bin, at.bin)], false);
        }
      });
      place.addEventListener("pointerup", () => {
        const from = start;
        start = null;
        const near = ({ lane, start: begun, end }) =>
          lane === from.lane && across(begun) - 6 < from.x && from.x < across(end ?? until) + 6;
        const found = from && from.above && brackets.find(near);
        if (from?.moved) set(span, true);
        else if (found) open(found);
        else if (from) choose(from.lane);
      });
      place.addEventListener("pointercancel", () => (start = null));
      const region = scrolled(
        `${name}: arrows pick a lane and move the brush, Shift widens it, Escape takes it away`,
        place,
      );
      region.classList.add("tall");
      region.addEventListener("keydown", (event) => {
        if (event.key === "Escape" && span) set(null, true);
        const way = arrow(event);
        if (!way) return;
        const [first, last] = span ?? [];
        const by = span && clamp(way[0], -first, bins - 1 - last);
        if (way[1]) choose(clamp((picked ?? -1) + way[1], 0, rows.length - 1));
        else if (!span) set([bins - 1, bins - 1], true);
        else if (event.shiftKey) set([first, clamp(last + way[0], first, bins - 1)], true);
        else set([first + by, last + by], true);
      });
      show();
      const axis = bottomAxis(across, [], {
        ...clock(since, until, Math.max(2, Math.floor((right - left) / 90))),
        top: 0,
        left,
        right,
        title: `until ${local(until)}, this browser's time`,
      });
      const below = shape("svg", { width: wide, height: 36, "aria-hidden": "true" }, axis);
      return node("div", region, below);
    },
  });
  const region = figure.querySelector(".scroll");
  region.scrollTop = scrolledTo;
  if (focused) region.focus({ preventScroll: true });
  figure.busy = () => start !== null;
  figure.mark = (to) => {
    span = to;
    show();
  };
  return figure;

  function sentence({ label, values, warms }) {
    const most = peakOf(values);
    const words = most === null ? "no answer" : `at most ${format(most)}`;
    return `${shown(label)}: ${words}${warms ? ", warming" : ""}`;
  }
}

/** Round moments of the reader's clock from since to until, about so many, and how they read. */
function clock(since, until, about) {
  const wanted = (until - since) / 1000 / about;
  const step = 1000 * (SECONDS.find((each) => each >= wanted) ?? Math.ceil(wanted));
  const zone = 60_000 * new Date(since).getTimezoneOffset();
  const places = [];
  for (let at = Math.ceil((since - zone) / step) * step + zone; at <= until; at += step)
    places.push(at);
  const [from, to] = step < 60_000 ? [11, 19] : step < 86_400_000 ? [11, 16] : [0, 10];
  return { places, format: (at) => local(at).slice(from, to) };
}
