// Plane: the code as a place. Decoded codes lie behind it as tiles, those of known pictures as
// dots; the orange dot is the code that is decoded, and can be dragged or stepped.
import { arrow, node, pointed } from "../charts/frame.js";
import { number } from "../charts/words.js";
import { colour } from "./pictures.js";

const SIZE = 320; // pixels
const TILES = 15; // a row of them
const TAIL = 24; // places
const ROOM = 0.06; // around the known codes

/** A plane that tells `moved(code)` of every place the dot is taken to. */
export function plane(moved) {
  const behind = node("canvas", { width: TILES, height: TILES, "aria-hidden": "true" });
  const before = node("canvas", { "aria-hidden": "true" });
  const ends = node("p.quiet");
  const sense = node(
    "div.plane",
    {
      tabindex: "0",
      role: "application",
      "aria-roledescription": "plane",
      "aria-label": "Code, two numbers. Arrow keys move it by a pixel, with Shift by ten.",
    },
    behind,
    before,
  );
  let [low, high, dots, tiles, side] = [[-1, -1], [1, 1], [], [], 1];
  let code = [0, 0];
  let deviation = null;
  let samples = [];
  let tail = [];

  const x = (value) => ((value[0] - low[0]) / (high[0] - low[0])) * SIZE;
  const y = (value) => SIZE - ((value[1] - low[1]) / (high[1] - low[1])) * SIZE;
  const codeAt = (px, py) => [
    low[0] + (px / SIZE) * (high[0] - low[0]),
    high[1] - (py / SIZE) * (high[1] - low[1]),
  ];

  function draw() {
    const dense = Math.min(3, devicePixelRatio || 1);
    if (before.width !== SIZE * dense) before.width = before.height = SIZE * dense;
    const context = before.getContext("2d");
    const [amber, sheet, blue] = ["dot", "sheet", "promise"].map((name) => `rgb(${colour(name)})`);
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.clearRect(0, 0, SIZE, SIZE);
    const disc = (place, radius, style, alpha) => {
      context.globalAlpha = alpha;
      context.fillStyle = style;
      context.beginPath();
      context.arc(x(place), y(place), radius, 0, 2 * Math.PI);
      context.fill();
    };
    dots.forEach((each) => disc(each, 1.3, blue, 0.55));
    tail.forEach((each, i) => disc(each, 3, amber, (0.5 * i) / TAIL));
    if (deviation) {
      context.globalAlpha = 0.25;
      context.fillStyle = amber;
      context.beginPath();
      const [a, b] = [0, 1].map((k) => Math.max(2, (deviation[k] / (high[k] - low[k])) * SIZE));
      context.ellipse(x(code), y(code), a, b, 0, 0, 2 * Math.PI);
      context.fill();
      context.globalAlpha = 1;
      context.strokeStyle = amber;
      context.stroke();
      samples.forEach((each) => disc(each, 2.5, amber, 0.9));
    }
    disc(code, deviation ? 5 : 7, amber, 1);
    context.strokeStyle = sheet;
    context.lineWidth = 1.5;
    context.stroke();
    context.globalAlpha = 1;
    sense.dataset.code = code.map((value) => value.toFixed(4)).join(" ");
  }

  function drawTiles() {
    const width = side * TILES;
    [behind.width, behind.height] = [width, width];
    const image = new ImageData(width, width);
    const [sheet, ink] = ["sheet", "ink"].map(colour);
    tiles.forEach((row, tile) => {
      const [left, top] = [(tile % TILES) * side, Math.floor(tile / TILES) * side];
      row.forEach((value, i) => {
        const share = 0.38 * Math.min(1, Math.max(0, value));
        const at = (top + Math.floor(i / side)) * width + left + (i % side);
        image.data.set(
          [0, 1, 2].map((k) => sheet[k] + (ink[k] - sheet[k]) * share),
          4 * at,
        );
        image.data[4 * at + 3] = 255;
      });
    });
    behind.getContext("2d").putImageData(image, 0, 0);
  }

  function place(next, { leaves = true } = {}) {
    if (leaves) tail = [...tail, code].slice(-TAIL);
    code = next.map((value, k) => Math.min(high[k], Math.max(low[k], value)));
    draw();
  }

  function follow(event) {
    place(codeAt(...pointed(event, sense, SIZE, SIZE)));
    moved(code);
  }
  sense.addEventListener("pointerdown", (event) => {
    sense.setPointerCapture(event.pointerId);
    follow(event);
  });
  sense.addEventListener("pointermove", (event) => event.buttons & 1 && follow(event));
  sense.addEventListener("keydown", (event) => {
    const way = arrow(event);
    if (!way) return;
    const pixels = (k) => (k ? -1 : 1) * way[k] * (event.shiftKey ? 10 : 1);
    place(code.map((value, k) => value + (pixels(k) * (high[k] - low[k])) / SIZE));
    moved(code);
  });
  before.repaint = draw;
  behind.repaint = drawTiles;

  return {
    element: node("div", sense, ends),
    get code() {
      return code;
    },
    /** The codes that the tiles are decoded from, row by row from the top. */
    centres: () =>
      Array.from({ length: TILES * TILES }, (_, i) =>
        codeAt(
          (((i % TILES) + 0.5) * SIZE) / TILES,
          ((Math.floor(i / TILES) + 0.5) * SIZE) / TILES,
        ),
      ),
    /** Another model: where its codes lie. */
    begin({ minimum, maximum, codes }) {
      const room = minimum.map((value, k) => ROOM * (maximum[k] - value));
      low = minimum.map((value, k) => value - room[k]);
      high = maximum.map((value, k) => value + room[k]);
      [dots, tail, samples, deviation] = [codes, [], [], null];
      const range = (k) => `code ${k + 1}: ${number(low[k])} to ${number(high[k])}`;
      ends.textContent = `${range(0)}, ${range(1)}; ${codes.length} known pictures`;
    },
    tile(rows, width) {
      [tiles, side] = [rows, width];
      drawTiles();
    },
    place,
    /** A cloud around the dot, one standard deviation wide, and places drawn from it. */
    cloud(around, drawn) {
      [deviation, samples] = [around, drawn];
      draw();
    },
  };
}
