// Heatmap: rows x features, each cell a step of the severity ramp; ordinary cells stay empty.
import { arrow, box, frame, node, picture, pointed, scrolled, shape } from "./frame.js";
import { cut, number, shown } from "./words.js";

/**
 * data: {rows: [N labels], columns: [D labels], values: [N][D]}; null is missing.
 * options: name, note, unit (of a value), steps: the six values from which a cell has the steps 1
 * to 6, picked: [row, column], pick(row, column), format. Returns the figure; its mark(row) moves
 * the ring there.
 */
export function heatmap(container, { rows, columns, values }, options) {
  const { name, note, unit = "", steps, pick, format = number } = options;
  const stepOf = (value) => steps.reduce((step, from, i) => (value >= from ? i + 1 : step), 0);
  let [row, column] = options.picked ?? [null, null];
  let show = () => {};
  const says = node("p.reading", { "aria-live": "polite" });
  const say = (n, d) => {
    const cell = values[n]?.[d];
    says.replaceChildren(
      cell === undefined
        ? ""
        : shown(
            `${rows[n]} · ${columns[d]}: ${cell === null ? "missing" : `${format(cell)} ${unit}`}`,
          ),
    );
  };
  const figure = frame(container, {
    name,
    note,
    key: rampKey(
      steps.map((from) => format(from)),
      unit,
    ),
    below: says,
    table: () => ({
      head: ["row", ...columns],
      rows: rows.map((label, n) => [String(label), ...values[n]]),
    }),
    paint(width) {
      const left = 8 + 6.8 * Math.min(20, Math.max(3, ...rows.map((label) => shown(label).length)));
      const cellWidth = Math.max(3, Math.min(32, (width - left - 24) / columns.length));
      const cellHeight = rows.length > 200 ? 4 : rows.length > 60 ? 8 : 18;
      const named = columns.length <= 120;
      const skip = Math.ceil(12 / cellWidth);
      const longest = Math.max(...columns.map((label) => Math.min(20, shown(label).length)));
      const top = named ? 12 + Math.ceil(longest * 5.2) : 8;
      const [wide, high] = [left + cellWidth * columns.length, top + cellHeight * rows.length];
      const gap = cellWidth > 6 && cellHeight > 6 ? 1 : 0;
      const paths = Array.from({ length: 7 }, () => []);
      const missing = [];
      values.forEach((cells, n) =>
        cells.forEach((cell, d) => {
          const path =
            `M${(left + d * cellWidth).toFixed(1)} ${top + n * cellHeight}` +
            `h${(cellWidth - gap).toFixed(1)}v${cellHeight - gap}h${(gap - cellWidth).toFixed(1)}z`;
          if (cell === null) missing.push(path);
          else if (stepOf(cell)) paths[stepOf(cell)].push(path);
        }),
      );
      const every = Math.max(1, Math.ceil(12 / cellHeight));
      const ring = shape("rect.ring", {
        width: cellWidth + 1,
        height: cellHeight + 1,
        visibility: "hidden",
      });
      show = () => {
        ring.setAttribute("visibility", row === null ? "hidden" : "visible");
        if (row === null) return;
        ring.setAttribute("x", left + column * cellWidth - 1);
        ring.setAttribute("y", top + row * cellHeight - 1);
        say(row, column);
      };
      const drawing = picture(
        Math.ceil(wide + 24),
        high + 8,
        `${name}. ${rows.length} rows, ${columns.length} features.`,
        box("severity-0", left, top, wide - left - gap, high - top - gap),
        paths.map(
          (boxes, step) =>
            boxes.length > 0 && shape(`path.severity-${step}.crisp`, { d: boxes.join("") }),
        ),
        missing.length > 0 && shape("path.missing.crisp", { d: missing.join("") }),
        named &&
          columns.map((label, d) => {
            if (d % skip) return null;
            const at = left + (d + 0.5) * cellWidth + 3;
            return shape(
              "text",
              { x: at, y: top - 5, transform: `rotate(-60 ${at} ${top - 5})`, class: "small" },
              cut(label, 20),
            );
          }),
        rows.map(
          (label, n) =>
            n % every === 0 &&
            shape(
              "text.small",
              {
                x: left - 6,
                y: top + n * cellHeight + Math.min(13, cellHeight / 2 + 4),
                "text-anchor": "end",
              },
              cut(label, 20),
            ),
        ),
        ring,
      );
      const find = (event) => {
        const [px, py] = pointed(event, drawing, Math.ceil(wide + 24), high + 8);
        const [n, d] = [Math.floor((py - top) / cellHeight), Math.floor((px - left) / cellWidth)];
        return n >= 0 && n < rows.length && d >= 0 && d < columns.length ? [n, d] : null;
      };
      const choose = (n, d) => {
        [row, column] = [n, d];
        show();
        pick?.(n, d);
      };
      drawing.addEventListener("pointermove", (event) => {
        const at = find(event);
        if (at) say(...at);
      });
      drawing.addEventListener("click", (event) => {
        const at = find(event);
        if (at) choose(...at);
      });
      show();
      const region = scrolled(`${name}: arrows step through the cells`, drawing);
      region.classList.add("tall");
      region.addEventListener("keydown", (event) => {
        const way = arrow(event);
        if (!way) return;
        const step = (at, by, many) =>
          Math.min(many - 1, Math.max(0, (at ?? 0) + (row === null ? 0 : by)));
        choose(step(row, way[1], rows.length), step(column, way[0], columns.length));
      });
      return region;
    },
  });
  figure.mark = (to) => {
    [row, column] = [to, column ?? 0];
    show();
    const [region, at] = [
      figure.querySelector(".tall"),
      Number(figure.querySelector(".ring").getAttribute("y")),
    ];
    if (at < region.scrollTop || at > region.scrollTop + region.clientHeight - 24)
      region.scrollTop = at - region.clientHeight / 2;
  };
  return figure;
}

/** The key of the ramp: its six steps and from where each of them is. */
export function rampKey(labels, unit) {
  return node(
    "span.ramp",
    node("i.swatch.severity-0"),
    labels.map((label, i) => [node(`i.swatch.severity-${i + 1}`), node("small", label)]),
    node("small", unit),
  );
}
