// Bars with intervals: one line for each entry, its value as a bar, its interval as a whisker.
import { bottomAxis, box, frame, node, picture, rule, scale, shape } from "./frame.js";
import { number, shown } from "./words.js";

/**
 * data: [{label, value, low, high, promised, severity, note}]; low and high are the interval's
 * ends, promised is a blue mark, severity (0 to 6) a step of the ramp; a value of null is unknown.
 * options: name, note, unit, format, max, picked (a label), pick(label), mark: what the
 * blue marks are, where they are no promise.
 */
export function bars(container, data, options) {
  const { name, note, unit = "", format = number, picked, pick, mark = "promised" } = options;
  const numbers = data
    .flatMap(({ value, high, promised }) => [value, high, promised])
    .filter(Number.isFinite);
  const most = options.max ?? Math.max(...numbers, 0) * 1.02;
  const interval = ({ low, high }) =>
    Number.isFinite(low) ? ` (${format(low)} – ${format(high)})` : "";
  const promises = data.some(({ promised }) => Number.isFinite(promised));
  const sentence = (one) => `${shown(one.label)}: ${format(one.value)}${interval(one)} ${unit}`;
  frame(container, {
    name,
    note,
    key: promises && node("span.key.promise", mark),
    table: () => ({
      head: ["", unit || "value", "from", "to", ...(promises ? [mark] : [])],
      rows: data.map(({ label, value, low, high, promised }) => [
        label,
        value,
        low,
        high,
        ...(promises ? [promised] : []),
      ]),
    }),
    paint(width) {
      const each = 36;
      const [left, right, bottom] = [2, width - 8, 4 + each * data.length];
      const x = scale(0, most || 1, left, right);
      return picture(
        width,
        bottom + 40,
        `${name}. ${data.map(sentence).join("; ")}`,
        data.map((one, i) => {
          const y = 4 + i * each;
          const known = Number.isFinite(one.value);
          return shape(
            "g",
            {
              class: one.label === picked ? "bar picked" : "bar",
              onclick: pick ? () => pick(one.label) : null,
            },
            pick && box("clear", 0, y, width, each),
            shape("text", { x: left, y: y + 12 }, one.label),
            shape(
              "text.figure",
              { x: right, y: y + 12, "text-anchor": "end" },
              known ? `${format(one.value)}${interval(one)}` : (one.note ?? "unknown"),
            ),
            known &&
              box(
                one.severity ? `severity-${one.severity}` : "ordinary",
                left,
                y + 18,
                Math.max(1, x(Math.min(one.value, most)) - left),
                10,
              ),
            Number.isFinite(one.low) &&
              shape("path.whisker", {
                d:
                  `M${x(one.low)} ${y + 23}H${x(Math.min(one.high, most))}` +
                  `M${x(one.low)} ${y + 19}v8M${x(Math.min(one.high, most))} ${y + 19}v8`,
              }),
            Number.isFinite(one.promised) &&
              rule("promise", x(one.promised), y + 15, x(one.promised), y + 31),
          );
        }),
        bottomAxis(x, [0, most || 1], { top: bottom, left, right, title: unit, format }),
      );
    },
  });
}
