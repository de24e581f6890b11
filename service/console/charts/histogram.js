// Histogram: how many rows fell into each bin; thresholds are lines, what was promised is blue.
import { bottomAxis, box, frame, leftAxis, picture, rule, scale, shape } from "./frame.js";
import { count, number, severityStep, ticks } from "./words.js";

/**
 * data: {edges: [B + 1], counts: [B]}.
 * options: name, note, unit (of the edges), log (counts on a log scale), severities (the edges are
 * severities: what is above the threshold has their colour), thresholds: [{at, label, tried}],
 * expected: a count for each bin, or one for all, and band: [low, high] around it; beyond: from
 * where on the values are extrapolated; counted: what is counted.
 */
export function histogram(container, { edges, counts }, options) {
  const {
    name,
    note,
    unit = "",
    log = false,
    severities = false,
    thresholds = [],
    beyond = Infinity,
    counted = "rows",
    band,
  } = options;
  const of = (value) => (log ? Math.log10(1 + value) : value);
  const rows = counts.reduce((sum, each) => sum + each, 0);
  const expected =
    typeof options.expected === "number" ? counts.map(() => options.expected) : options.expected;
  const [low, high] = [edges[0], edges[edges.length - 1]];
  const alarmsFrom = Math.min(...thresholds.map(({ at }) => at ?? Infinity), Infinity);
  frame(container, {
    name,
    note,
    table: () => ({
      head: [`from${unit && ` (${unit})`}`, "to", counted, ...(expected ? ["expected"] : [])],
      rows: counts.map((each, i) => [
        edges[i],
        edges[i + 1],
        each,
        ...(expected ? [expected[i]] : []),
      ]),
    }),
    paint(width) {
      const [left, right, top, bottom] = [44, width - 8, thresholds.length ? 40 : 24, 176];
      const most = Math.max(1, ...counts, ...(expected ?? []), band?.[1] ?? 0);
      const x = scale(low, high, left, right);
      const y = scale(0, of(most), bottom, top);
      const decades = log
        ? [0, 1, 10, 100, 1e3, 1e4, 1e5, 1e6].filter((at) => at <= most)
        : ticks(0, most, 3);
      const bars = counts.map((each, i) => {
        const alarms = severities && edges[i] >= alarmsFrom - 1e-9;
        return box(
          alarms ? `severity-${Math.max(1, severityStep(edges[i]))}` : "ordinary",
          x(edges[i]) + 0.5,
          y(of(each)),
          Math.max(0.5, x(edges[i + 1]) - x(edges[i]) - 1),
          Math.max(0, bottom - y(of(each))),
        );
      });
      const steps = expected?.map(
        (each, i) => `${i ? "L" : "M"}${x(edges[i])} ${y(of(each))}H${x(edges[i + 1])}`,
      );
      return picture(
        width,
        bottom + 40,
        `${name}. ${count(rows)} ${counted}.`,
        leftAxis((at) => y(of(at)), [0, most], {
          left,
          right,
          top,
          places: decades,
          title: log ? `${counted} (log scale)` : counted,
          format: count,
          titleTop: thresholds.length ? 10 : undefined,
        }),
        band && box("band", left, y(of(band[1])), right - left, y(of(band[0])) - y(of(band[1]))),
        bars,
        steps && shape("path.promise", { d: steps.join("") }),
        beyond < high &&
          shape(
            "g.axis.beyond",
            rule("tick", x(Math.max(low, beyond)), top + 12, right, top + 12),
            shape("text", { x: right, y: top + 8, "text-anchor": "end" }, "extrapolated"),
          ),
        bottomAxis(x, [low, high], { top: bottom, left, right, title: unit }),
        thresholds
          .filter(({ at }) => at !== null && at !== undefined)
          .map((each) => threshold(x, each, { low, high, left, right, top, bottom })),
      );
    },
  });
}

function threshold(x, { at, label, tried }, { low, high, left, right, top, bottom }) {
  const place = x(Math.min(Math.max(at, low), high));
  const inner = place > (left + right) / 2;
  const beyond = at > high ? " →" : "";
  return shape(
    tried ? "g.threshold.tried" : "g.threshold",
    rule("tick", place, tried ? top - 8 : top - 24, place, bottom),
    shape(
      "text",
      {
        x: place + (inner ? -6 : 6),
        y: tried ? top - 2 : top - 18,
        "text-anchor": inner ? "end" : "start",
      },
      `${label ?? number(at)}${beyond}`,
    ),
  );
}
