// Frame: what every chart has in common. Its name, its width that follows its place, its axes, and
// the table of its numbers behind a toggle.
import { number, shown, ticks } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

/**
 * An HTML element, named as `p` or `p.state.failed` with its classes; attributes may be left out.
 * Strings among the children become text, and nothing else.
 */
export function node(name, ...content) {
  return furnish((tag) => document.createElement(tag), name, content);
}

/** The same of SVG. */
export function shape(name, ...content) {
  return furnish((tag) => document.createElementNS(SVG, tag), name, content);
}

function furnish(create, name, content) {
  const [tag, ...classes] = name.split(".");
  const element = create(tag);
  if (classes.length) element.setAttribute("class", classes.join(" "));
  const attributes = content[0]?.constructor === Object ? content.shift() : {};
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : shown(value));
  }
  for (const child of content.flat(Infinity)) {
    if (child === null || child === undefined || child === false || child === "") continue;
    element.append(child instanceof Node ? child : document.createTextNode(shown(child)));
  }
  return element;
}

/**
 * Draws a figure into the container, in place of what it held.
 *
 * `name` is what the chart shows, in words; `note`, if any, what it means; `key` what its colours
 * do; `below` stands under it. `paint(width)` gives the picture at that width, in pixels. `table()`
 * gives {head: [...], rows: [[...]]}.
 */
export function frame(container, { name, note, key, below, table, paint }) {
  const wasOpen = container.querySelector(":scope > figure > details")?.open ?? false;
  container.chart?.disconnect();
  const picture = node("div.picture");
  let drawn = 0;
  const draw = () => {
    const width = Math.floor(picture.clientWidth) || drawn || 640;
    if (width === drawn) return;
    drawn = width;
    picture.replaceChildren(paint(width));
  };
  const details = node("details.numbers", node("summary", "Table"));
  details.addEventListener("toggle", () => {
    if (details.open && !details.querySelector("table")) details.append(tableOf(name, table()));
  });
  const figure = node(
    "figure.chart",
    node("figcaption", node("strong", name), note && node("span", note), key),
    picture,
    below,
    table && details,
  );
  container.replaceChildren(figure);
  draw();
  if (wasOpen) details.open = true;
  container.chart = new ResizeObserver(draw);
  container.chart.observe(picture);
  return figure;
}

function tableOf(name, { head, rows }) {
  const most = 1000;
  const cell = (text) =>
    typeof text === "number" ? node("td.figure", number(text, 5)) : node("td", text ?? "–");
  return scrolled(
    `Table: ${name}`,
    table(
      name,
      head,
      rows.slice(0, most).map((row) => node("tr", row.map(cell))),
    ),
    rows.length > most && node("p", `The first ${number(most)} of ${number(rows.length, 9)} rows.`),
  );
}

/** A table of lines (`tr`) below a head of words, which may be left out. */
export function table(name, head, lines) {
  return node(
    "table",
    node("caption.unseen", name),
    head &&
      node(
        "thead",
        node(
          "tr",
          head.map((text) => node("th", { scope: "col" }, text)),
        ),
      ),
    node("tbody", lines),
  );
}

/** A place that scrolls by itself, by keys too. */
export const scrolled = (name, ...content) =>
  node("div.scroll", { tabindex: "0", role: "region", "aria-label": name }, content);

/** An SVG picture of that size, in pixels, with a name for those who do not see it. */
export function picture(width, height, name, ...children) {
  return shape(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": name },
    children,
  );
}

/** A line, or a box, of a class, by its places. */
export const rule = (name, x1, y1, x2, y2) => shape(`line.${name}`, { x1, y1, x2, y2 });
export const box = (name, x, y, width, height) => shape(`rect.${name}`, { x, y, width, height });

/**
 * Which way an arrow key leads, [right, down], or another key of `more`; null of the rest. Nothing
 * else then comes of the key.
 */
export function arrow(event, more = {}) {
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const way = { ...arrows, ...more };
  if (!way[event.key] || event.altKey || event.ctrlKey || event.metaKey) return null;
  event.preventDefault();
  event.stopPropagation();
  return way[event.key];
}

/** Where the pointer is in an element that is so wide and high in its own units. */
export function pointed({ clientX, clientY }, element, width, height) {
  const at = element.getBoundingClientRect();
  return [((clientX - at.left) * width) / at.width, ((clientY - at.top) * height) / at.height];
}

/** A linear scale: what lies between low and high comes between start and end. */
export function scale(low, high, start, end) {
  const span = high - low || 1;
  return (value) => start + ((value - low) / span) * (end - start);
}

/** The axis below a plot, with its title at the right end. */
export function bottomAxis(x, [low, high], options) {
  const { top, left, right, title, format = number } = options;
  const places = options.places ?? ticks(low, high, Math.max(2, Math.floor((right - left) / 90)));
  return shape(
    "g.axis",
    rule("tick", left, top, right, top),
    places.map((at) => [
      rule("tick", x(at), top, x(at), top + 4),
      shape("text", { x: x(at), y: top + 16, "text-anchor": "middle" }, format(at)),
    ]),
    title && shape("text.title", { x: right, y: top + 32, "text-anchor": "end" }, title),
  );
}

/** The axis at the left of a plot: pale lines across it, their values, and the title above. */
export function leftAxis(
  y,
  [low, high],
  { left, right, top, title, titleTop = top - 8, places, format = number },
) {
  return shape(
    "g.axis",
    (places ?? ticks(low, high, 3)).map((at) => [
      rule("grid", left, y(at), right, y(at)),
      shape("text", { x: left - 6, y: y(at) + 4, "text-anchor": "end" }, format(at)),
    ]),
    title && shape("text.title", { x: 0, y: titleTop }, title),
  );
}
