// Series: one severity for each of many rows, drawn by uPlot, which is loaded when it is needed.
import { frame, node } from "./charts/frame.js";
import { count, number } from "./charts/words.js";

let loading = null;

function load() {
  loading ??= new Promise((resolve, reject) => {
    const at = (file) => new URL(`vendor/uPlot/${file}`, import.meta.url).href;
    document.head.append(node("link", { rel: "stylesheet", href: at("uPlot.min.css") }));
    const script = node("script", { src: at("uPlot.iife.min.js") });
    script.addEventListener("load", () => resolve(window.uPlot));
    script.addEventListener("error", () => reject(new Error("uPlot could not be loaded")));
    document.head.append(script);
  });
  return loading;
}

/**
 * Draws the severities over the rows into the container. Returns {mark(limit): the threshold is
 * there now, end(): it is taken off the page}. A drag across the plot shows that span of rows, a
 * double click all of them; `pick(row)` is told which row was clicked.
 */
export async function series(container, severities, { name, limit, pick }) {
  const UPlot = await load();
  const rows = Float64Array.from(severities, (_, i) => i);
  let plot = null;
  let at = limit;
  const colour = (of) => {
    const probe = document.body.appendChild(node("i.unseen"));
    probe.style.color = `var(--${of})`;
    const seen = getComputedStyle(probe).color;
    probe.remove();
    return seen;
  };
  const picture = node("div", {
    role: "img",
    "aria-label": `${name}. ${count(severities.length)} rows.`,
  });
  let width = 0;
  const draw = () => {
    const zoom = plot && { min: plot.scales.x.min, max: plot.scales.x.max };
    plot?.destroy();
    const [ink, hair, grid, promise, bar] = ["quiet", "hair", "grid", "promise", "severity-4"].map(
      colour,
    );
    const axis = {
      stroke: ink,
      grid: { stroke: grid, width: 1 },
      ticks: { stroke: hair, width: 1 },
      font: "11px system-ui",
    };
    plot = new UPlot(
      {
        width,
        height: 200,
        legend: { show: false },
        cursor: { y: false, drag: { x: true, y: false } },
        scales: { x: { time: false } },
        axes: [
          { ...axis, values: (_, places) => places.map((place) => count(place)) },
          { ...axis, size: 44, values: (_, places) => places.map((place) => number(place)) },
        ],
        series: [{}, { stroke: bar, width: 1, points: { show: false } }],
        hooks: {
          draw: [
            ({ ctx, bbox, valToPos }) => {
              if (at === null || at === undefined) return;
              const y = Math.round(valToPos(at, "y", true));
              if (y < bbox.top || y > bbox.top + bbox.height) return;
              ctx.save();
              ctx.strokeStyle = promise;
              ctx.lineWidth = 2 * devicePixelRatio;
              ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
              ctx.beginPath();
              ctx.moveTo(bbox.left, y);
              ctx.lineTo(bbox.left + bbox.width, y);
              ctx.stroke();
              ctx.restore();
            },
          ],
        },
      },
      [rows, severities],
      picture,
    );
    if (zoom) plot.setScale("x", zoom);
    plot.over.addEventListener("click", () => plot.cursor.idx !== null && pick?.(plot.cursor.idx));
  };
  frame(container, {
    name,
    note: "Drag to look closer, double-click for all rows.",
    table: () => ({
      head: ["row", "severity"],
      rows: Array.from(severities, (severity, row) => [String(row), severity]),
    }),
    paint(to) {
      width = to;
      draw();
      return picture;
    },
  });
  const themed = new MutationObserver(draw);
  themed.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", draw);
  return {
    mark(to) {
      at = to;
      plot?.redraw(false);
    },
    end() {
      themed.disconnect();
      system.removeEventListener("change", draw);
      plot?.destroy();
    },
  };
}
