// Parts that several views have: facts, lists of many rows, a place to drop a file on, what failed.
import { keptKey } from "./api.js";
import { dumbbell } from "./charts/dumbbell.js";
import { arrow, node } from "./charts/frame.js";
import { number } from "./charts/words.js";

const LINE = 32; // pixels of one row in a list, as in console.css

/** Facts: [name, number, what it rests on, promise: drawn in blue]. */
export function facts(...all) {
  return node(
    "dl.facts",
    all
      .filter(Boolean)
      .map(([name, number, basis, promise]) =>
        node(
          "div",
          { class: promise ? "promise" : null },
          node("dt", name),
          node("dd", number, basis ? node("small", basis) : null),
        ),
      ),
  );
}

/** What went wrong, where it did; a request that was called off is no failure. */
export function fail(place, problem, otherwise) {
  if (problem.name !== "AbortError") place.replaceChildren(failure(problem, otherwise));
}

export function failure(problem, otherwise = "That failed") {
  return node(
    "div.state.failed",
    { role: "alert" },
    node("strong", problem.title ?? otherwise),
    node("p", problem.detail ?? problem.message ?? ""),
  );
}

/** A swatch in the colour of a severity's step. */
export const swatch = (step) => node(`i.mark.severity-${step}`, { "aria-hidden": "true" });

export const button = (text, onclick, attributes = {}) =>
  node("button", { type: "button", onclick, ...attributes }, text);

/** Has the arrows step through the buttons of a list, and from the first one to what is before. */
export function stepping(list, before) {
  list.addEventListener("keydown", (event) => {
    const way = arrow(event);
    const buttons = [...list.querySelectorAll("button")];
    const to = way?.[1] && buttons[buttons.indexOf(document.activeElement) + way[1]];
    if (way?.[1]) (to ?? before)?.focus();
  });
}

/** So many places to draw into. */
export const places = (many) => Array.from({ length: many }, () => node("div"));

/** Why a row alarms, or not: the last one that was asked about, as /explain answered. */
export function explained(place, answer, title, name, otherwise = "It does not alarm.") {
  const [chart] = places(1);
  const [reason, explanations] = [answer.reason.at(-1), answer.explanations.at(-1)];
  place.replaceChildren(node("h2", title), node("p", reason ?? otherwise), chart);
  dumbbell(chart, explanations, { name: `Actual against expected, ${name}` });
}

/** A row as one might be. */
export function exampleRow(features) {
  const cell = ({ kind, categories, minimum, maximum }) =>
    kind === "categorical"
      ? categories[0]
      : kind === "boolean"
        ? true
        : minimum === null
          ? null
          : Number(((minimum + maximum) / 2).toPrecision(4));
  return Object.fromEntries(features.map((feature) => [feature.name, cell(feature)]));
}

/** A line for a terminal, shown or not, and a button that copies it. */
export function copied(line, { hidden }) {
  const [said, code] = [
    node("span.quiet", { role: "status" }),
    node("pre.scroll", { hidden, tabindex: "0" }, line),
  ];
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(line);
      said.textContent = "Copied.";
    } catch {
      said.textContent = "The browser forbids it: mark and copy the line below.";
      code.hidden = false;
    }
  };
  return [node("p.row", button("Copy as curl", copy), said), code];
}

/**
 * A place to drop a file on, or to choose one by keyboard; `take(file)` gets it.
 */
export function dropPlace(text, take, accept = ".csv,.tsv,.txt,.json") {
  const input = node("input", { type: "file", accept, "aria-label": text });
  input.addEventListener("change", () => input.files[0] && take(input.files[0]));
  const place = node("div.drop", node("p", text), input);
  place.addEventListener("dragover", () => place.classList.add("over"));
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", (event) => {
    place.classList.remove("over");
    const file = event.dataTransfer.files[0];
    if (file) take(file);
  });
  return place;
}

/**
 * A place to drop a file on, and the worker that it is handed to with `more()`. `told` says how far
 * the worker is, or what failed; `take(done, file)` gets what came of the file.
 */
export function workPlace(script, text, told, more, take) {
  const worker = new Worker(new URL(script, import.meta.url), { type: "module" });
  const bar = node("progress", { max: 1, "aria-label": "Rows looked at" });
  const place = dropPlace(text, (file) => {
    told.replaceChildren(node("p.state", `Reading ${file.name}.`), bar);
    bar.value = 0;
    worker.onmessage = ({ data }) => {
      if (data.progress) [bar.value, bar.max] = [data.progress, data.rows];
      else if (data.failed) fail(told, data.failed);
      else if (data.done) take(data.done, file);
    };
    worker.onerror = () => fail(told, { title: "The worker that reads files stopped" });
    worker.postMessage({ file, key: keptKey(), ...more() });
  });
  return { worker, place };
}

/**
 * A list of any length, of which only what is in sight is in the page. `line(i)` gives of entry i
 * [step of severity, name, what more there is, severity]; `pick(i)` is told which one was picked,
 * by pointer or arrows.
 */
export function longList(name, length, line, pick, picked = 0) {
  let current = picked;
  const all = node("div.all");
  all.style.height = `${length * LINE}px`;
  const list = node("div.rows", { role: "listbox", tabindex: "0", "aria-label": name }, all);
  const draw = () => {
    const first = Math.max(0, Math.floor(list.scrollTop / LINE) - 4);
    const last = Math.min(length, first + Math.ceil((list.clientHeight || 400) / LINE) + 8);
    const entries = [];
    for (let i = first; i < last; i++) {
      const entry = node(
        "div",
        {
          role: "option",
          id: `${all.dataset.id}-${i}`,
          "aria-selected": String(i === current),
          "aria-posinset": i + 1,
          "aria-setsize": length,
        },
        lineOf(...line(i)),
      );
      entry.style.top = `${i * LINE}px`;
      entry.addEventListener("click", () => choose(i));
      entries.push(entry);
    }
    all.replaceChildren(...entries);
    list.setAttribute("aria-activedescendant", `${all.dataset.id}-${current}`);
  };
  const choose = (i) => {
    current = i;
    const top = i * LINE;
    if (top < list.scrollTop) list.scrollTop = top;
    if (top + LINE > list.scrollTop + list.clientHeight)
      list.scrollTop = top + LINE - list.clientHeight;
    draw();
    pick(i);
  };
  all.dataset.id = `list${(lists += 1)}`;
  list.addEventListener("scroll", () => requestAnimationFrame(draw));
  list.addEventListener("keydown", (event) => {
    const to = {
      ArrowDown: current + 1,
      ArrowUp: current - 1,
      Home: 0,
      End: length - 1,
      PageDown: current + 10,
      PageUp: current - 10,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(Math.max(0, Math.min(length - 1, to)));
  });
  list.choose = choose;
  queueMicrotask(() => {
    if (current * LINE > 300) list.scrollTop = (current - 4) * LINE;
    draw();
  });
  return list;
}

const lineOf = (step, name, more, severity) => [
  node("span", swatch(step), name),
  node("span.grow.quiet", more),
  node("span", `severity ${number(severity)}`),
];

let lists = 0; // made so far, for their ids
