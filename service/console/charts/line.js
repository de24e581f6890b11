// Lines over a common axis, as learning curves are; a band is what was expected.
import { bottomAxis, box, frame, leftAxis, node, picture, rule, scale, shape } from "./frame.js";
import { count, number } from "./words.js";

/**
 * data: {x: [N], series: [{label, y: [N], kind}]}; null is a gap, kind "promise" is drawn in blue,
 * "ordinary" in grey, and without one in the accent. band: {low: [N], high: [N]}; spans: [[from,
 * to]] of x, drawn behind.
 * options: name, note, xTitle, yTitle, log (y), threshold, format, xFormat, xPlaces.
 */
export function line(container, { x, series, band, spans = [] }, options) {
  const { name, note, xTitle = "", yTitle = "", log = false, threshold, format = number } = options;
  const { xFormat = Number.isInteger(x[0]) ? count : number } = options;
  const of = (value) => (log ? Math.log10(value) : value);
  const fits = (value) => Number.isFinite(value) && (!log || value > 0);
  const heights = [
    ...series.flatMap(({ y }) => y),
    ...(band ? [...band.low, ...band.high] : []),
    threshold,
  ].filter(fits);
  let [low, high] = [Math.min(...heights), Math.max(...heights)];
  if (!(high > low)) [low, high] = log ? [low / 2, high * 2] : [low - 1, high + 1];
  const sentence = ({ label, y }) => `${label}: last ${format(y.findLast(fits))}`;
  frame(container, {
    name,
    note,
    key: series.map(({ label, kind }) => node(`span.key.${kind ?? "curve"}`, label)),
    table: () => ({
      head: [xTitle, ...series.map(({ label }) => label), ...(band ? ["from", "to"] : [])],
      rows: x.map((at, i) => [
        options.xFormat ? xFormat(at) : at,
        ...series.map(({ y }) => y[i]),
        ...(band ? [band.low[i], band.high[i]] : []),
      ]),
    }),
    paint(width) {
      const [left, right, top, bottom] = [52, width - 8, 24, 176];
      const across = scale(x[0], x[x.length - 1], left, right);
      const up = scale(of(low), of(high), bottom, top);
      const y = (value) => up(of(value));
      const decades = log ? powers(low, high) : undefined;
      const within = x.map((_, i) => i).filter((i) => fits(band?.low[i]) && fits(band?.high[i]));
      const edge = (values) =>
        within.map((i) => `${across(x[i]).toFixed(1)} ${y(values[i]).toFixed(1)}`);
      return picture(
        width,
        bottom + 40,
        `${name}. ${series.map(sentence).join("; ")}`,
        spans.map(([from, to]) =>
          box("band", across(from), top, Math.max(1, across(to) - across(from)), bottom - top),
        ),
        leftAxis(y, [low, high], { left, right, top, title: yTitle, format, places: decades }),
        within.length > 1 &&
          shape("path", {
            d: `M${edge(band.high).join("L")}L${edge(band.low).reverse().join("L")}z`,
            class: "band",
          }),
        threshold !== undefined && rule("promise", left, y(threshold), right, y(threshold)),
        series.map(({ y: values, kind }) => {
          let pen = "M";
          const path = values.map((value, i) => {
            if (!fits(value)) {
              pen = "M";
              return "";
            }
            const piece = `${pen}${across(x[i]).toFixed(1)} ${y(value).toFixed(1)}`;
            pen = "L";
            return piece;
          });
          return shape("path", { d: path.join(""), class: `curve ${kind ?? ""}` });
        }),
        bottomAxis(across, [x[0], x[x.length - 1]], {
          top: bottom,
          left,
          right,
          title: xTitle,
          format: xFormat,
          places: options.xPlaces,
        }),
      );
    },
  });
}

function powers(low, high) {
  const [first, last] = [Math.ceil(Math.log10(low)), Math.floor(Math.log10(high))];
  if (last < first) return [low, high];
  const every = Math.ceil((last - first + 1) / 5);
  return Array.from({ length: last - first + 1 }, (_, i) => first + i)
    .filter((_, i) => i % every === 0)
    .map((power) => 10 ** power);
}
