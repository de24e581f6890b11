// Pictures: ink from 0 to 1, pixel by pixel, on a canvas in the page's own colours.
import { node } from "../charts/frame.js";
import { DIGITS, SHAPES } from "./presets.js";

const INK = "0123456789abcdefg";
const read = (presets) =>
  Object.entries(presets).map(([name, text]) => [
    name,
    Float32Array.from(text, (sign) => INK.indexOf(sign) / 16),
  ]);

/** The sets to play with: their presets [name, row], and how wide a picture is. */
export const SETS = {
  shapes: { presets: read(SHAPES), side: 12, one: "shape" },
  digits: { presets: read(DIGITS), side: 8, one: "digit" },
};

const colours = new Map(); // of the theme in force

/** The red, green and blue of a colour of the style sheet. */
export function colour(name) {
  if (!colours.has(name)) {
    const probe = node("span");
    document.body.append(probe);
    probe.style.color = `var(--${name})`;
    colours.set(
      name,
      getComputedStyle(probe)
        .color.match(/[\d.]+/g)
        .map(Number),
    );
    probe.remove();
  }
  return colours.get(name);
}

/** An empty picture with a name for those who do not see it. */
export function canvas(name, size, attributes = {}) {
  const element = node("canvas.pixels", { role: "img", "aria-label": name, ...attributes });
  element.style.width = element.style.height = `${size}px`;
  return element;
}

const mixed = (from, to, share) => from.map((value, i) => value + (to[i] - value) * share);

/**
 * Paints a row. `kind`: ink, where what lies outside 0 to 1 is blue and what is missing grey blue;
 * error, of which more is more amber; or signed, amber above 0 and blue below.
 */
export function paint(element, row, { width = Math.sqrt(row.length), kind = "ink" } = {}) {
  element.repaint = () => paint(element, row, { width, kind });
  const height = row.length / width;
  [element.width, element.height] = [width, height];
  const [sheet, ink, amber, blue] = ["sheet", "ink", "dot", "promise"].map(colour);
  const most = kind === "signed" ? Math.max(...row.map(Math.abs)) || 1 : 1;
  const shades = {
    ink: (value) => {
      if (value === null || Number.isNaN(value)) return mixed(sheet, blue, 0.35);
      if (value < -0.05 || value > 1.05) return mixed(blue, value > 1 ? ink : sheet, 0.35);
      return mixed(sheet, ink, Math.min(1, Math.max(0, value)));
    },
    error: (value) => mixed(sheet, amber, Math.min(1, Math.abs(value))),
    signed: (value) => mixed(sheet, value > 0 ? amber : blue, Math.abs(value) / most),
  };
  const image = new ImageData(width, height);
  row.forEach((value, i) => image.data.set([...shades[kind](value), 255], 4 * i));
  element.getContext("2d").putImageData(image, 0, 0);
}

/** A picture under a line that says what it is. */
export function labelled(label, element, below) {
  return node("figure.labelled", node("figcaption", label), element, below ?? null);
}

/** Have every picture painted again when the theme changes; ends with the signal. */
export function followTheme(container, signal) {
  const repaint = () => {
    colours.clear();
    container.querySelectorAll("canvas").forEach((each) => each.repaint?.());
  };
  const watched = new MutationObserver(repaint);
  watched.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint, { signal });
  signal.addEventListener("abort", () => watched.disconnect());
}
