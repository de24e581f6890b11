// Scatter, or map: many ordinary rows as faint dots under contours of their density, and marked
// rows by severity. Dragging around marks picks them, clicking a place asks what lies there.
import { arrow, bottomAxis, frame, leftAxis, picture, pointed, scale, shape } from "./frame.js";
import { count, number, severityStep } from "./words.js";

const CELLS = 40; // of the grid on which the density is estimated, each way

/**
 * data: {points: [[x, y]], marks: [{x, y, severity, label}]}.
 * options: name, note, axes: [title, title], contours (true draws them), picked: [index of mark],
 * hover(index or null), lasso([index]), cursor: [x, y], place(x, y): where was clicked, or moved to
 * by the arrows.
 */
export function scatter(container, { points, marks = [] }, options) {
  const {
    name,
    note,
    axes = ["", ""],
    contours = true,
    picked = [],
    hover,
    lasso,
    place,
  } = options;
  const all = [
    ...points,
    ...marks.map(({ x, y }) => [x, y]),
    ...(options.cursor ? [options.cursor] : []),
  ];
  const [xRange, yRange] = [0, 1].map((axis) => padded(all.map((point) => point[axis])));
  const density = contours && points.length >= 30 ? estimate(points, xRange, yRange) : null;
  let cursor = options.cursor;
  frame(container, {
    name,
    note,
    table:
      marks.length || points.length
        ? () => ({
            head: ["row", axes[0], axes[1], "severity"],
            rows: marks.length
              ? marks.map(({ label, x, y, severity }) => [String(label ?? ""), x, y, severity])
              : points.map(([x, y], i) => [String(i), x, y, null]),
          })
        : null,
    paint(width) {
      const [left, right, top] = [44, width - 8, 24];
      const bottom = top + Math.min(right - left, 520);
      const x = scale(...xRange, left, right);
      const y = scale(...yRange, bottom, top);
      const dot = cursor && shape("circle.cursor", { cx: x(cursor[0]), cy: y(cursor[1]), r: 6 });
      const loop = shape("path.lasso");
      const drawing = picture(
        width,
        bottom + 40,
        `${name}. ${count(points.length)} held-out rows, ${count(marks.length)} marked rows.`,
        leftAxis(y, yRange, { left, right, top, title: axes[1] }),
        bottomAxis(x, xRange, { top: bottom, left, right, title: axes[0] }),
        shape("path.dots", {
          d: points
            .map((point) => `M${x(point[0]).toFixed(1)} ${y(point[1]).toFixed(1)}h0`)
            .join(""),
        }),
        density && contourPaths(density, x, y),
        marks.map((mark, i) =>
          shape(
            "circle",
            {
              cx: x(mark.x),
              cy: y(mark.y),
              r: picked.includes(i) ? 6 : 4,
              class:
                `mark severity-${Math.max(1, severityStep(mark.severity))}` +
                (picked.includes(i) ? " picked" : ""),
              onpointerenter: hover ? () => hover(i) : null,
            },
            shape("title", `${mark.label ?? i}: severity ${number(mark.severity, 2)}`),
          ),
        ),
        loop,
        dot,
      );
      if (lasso || place) touch(drawing);
      return drawing;

      function touch(target) {
        target.classList.add("touch");
        const inside = (event) => pointed(event, target, width, bottom + 40);
        const back = ([px, py]) => [
          xRange[0] + ((px - left) / (right - left)) * (xRange[1] - xRange[0]),
          yRange[0] + ((bottom - py) / (bottom - top)) * (yRange[1] - yRange[0]),
        ];
        let trail = null;
        target.addEventListener("pointerdown", (event) => {
          trail = [inside(event)];
          target.setPointerCapture(event.pointerId);
        });
        target.addEventListener("pointermove", (event) => {
          if (!trail) return;
          trail.push(inside(event));
          if (lasso)
            loop.setAttribute(
              "d",
              `M${trail.map(([px, py]) => `${px.toFixed(1)} ${py.toFixed(1)}`).join("L")}z`,
            );
        });
        target.addEventListener("pointerup", () => {
          if (!trail) return;
          const path = trail;
          trail = null;
          loop.removeAttribute("d");
          const moved = path.some(([px, py]) => Math.hypot(px - path[0][0], py - path[0][1]) > 5);
          if (moved)
            lasso?.(marks.flatMap((mark, i) => (within([x(mark.x), y(mark.y)], path) ? [i] : [])));
          else set(back(path[0]));
        });
        if (!place) return;
        target.setAttribute("tabindex", "0");
        target.addEventListener("keydown", (event) => {
          const way = arrow(event);
          if (!way) return;
          const [cx, cy] = cursor ?? [(xRange[0] + xRange[1]) / 2, (yRange[0] + yRange[1]) / 2];
          set([
            cx + (way[0] * (xRange[1] - xRange[0])) / 50,
            cy - (way[1] * (yRange[1] - yRange[0])) / 50,
          ]);
        });
      }

      function set(at) {
        if (!place) return;
        cursor = at;
        const circle =
          drawing.querySelector(".cursor") ?? drawing.appendChild(shape("circle.cursor", { r: 6 }));
        circle.setAttribute("cx", x(at[0]));
        circle.setAttribute("cy", y(at[1]));
        place(...at);
      }
    },
  });
}

function padded(values) {
  const finite = values.filter(Number.isFinite);
  if (!finite.length) return [-1, 1];
  const [low, high] = [
    finite.reduce((a, b) => Math.min(a, b)),
    finite.reduce((a, b) => Math.max(a, b)),
  ];
  const pad = (high - low || 1) * 0.06;
  return [low - pad, high + pad];
}

/** The density of the points on a grid, by a Gaussian kernel of Scott's width in each direction. */
function estimate(points, xRange, yRange) {
  const grid = Array.from({ length: CELLS }, () => new Float64Array(CELLS));
  const step = [xRange, yRange].map(([low, high]) => (high - low) / (CELLS - 1));
  const kernels = [0, 1].map((axis) => {
    const values = points.map((point) => point[axis]);
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    const sd = Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length);
    return Math.max(sd * points.length ** (-1 / 6), step[axis]);
  });
  const weights = (value, low, axis) =>
    Float64Array.from({ length: CELLS }, (_, i) =>
      Math.exp(-0.5 * ((low + i * step[axis] - value) / kernels[axis]) ** 2),
    );
  for (const [px, py] of points) {
    const [across, up] = [weights(px, xRange[0], 0), weights(py, yRange[0], 1)];
    for (let j = 0; j < CELLS; j++) {
      if (up[j] > 1e-4) for (let i = 0; i < CELLS; i++) grid[j][i] += up[j] * across[i];
    }
  }
  return { grid, xRange, yRange, step };
}

/** Contours inside which 50, 80 and 95 % of the density lie, by marching squares. */
function contourPaths({ grid, xRange, yRange, step }, x, y) {
  const heights = grid.flatMap((row) => [...row]).sort((a, b) => b - a);
  const total = heights.reduce((a, b) => a + b, 0);
  const levels = [0.5, 0.8, 0.95].map((share) => {
    let sum = 0;
    return heights.find((height) => (sum += height) >= share * total);
  });
  return levels.map((level) => {
    const pieces = [];
    for (let j = 0; j + 1 < CELLS; j++) {
      for (let i = 0; i + 1 < CELLS; i++) {
        const corners = [
          [i, j],
          [i + 1, j],
          [i + 1, j + 1],
          [i, j + 1],
        ];
        const crossings = corners.flatMap(([ci, cj], side) => {
          const [ni, nj] = corners[(side + 1) % 4];
          const [here, there] = [grid[cj][ci] - level, grid[nj][ni] - level];
          if (here >= 0 === there >= 0) return [];
          const part = here / (here - there);
          return [
            [
              x(xRange[0] + (ci + part * (ni - ci)) * step[0]).toFixed(1),
              y(yRange[0] + (cj + part * (nj - cj)) * step[1]).toFixed(1),
            ],
          ];
        });
        for (let k = 0; k + 1 < crossings.length; k += 2)
          pieces.push(`M${crossings[k].join(" ")}L${crossings[k + 1].join(" ")}`);
      }
    }
    return shape("path.contour", { d: pieces.join("") });
  });
}

function within([px, py], polygon) {
  let inside = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [[ax, ay], [bx, by]] = [polygon[i], polygon[j]];
    if (ay > py !== by > py && px < ((bx - ax) * (py - ay)) / (by - ay) + ax) inside = !inside;
  }
  return inside;
}
