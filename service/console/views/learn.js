// Learn: an autoencoder to touch. A picture goes in, two numbers come of it, and a picture again.
import { arrow, node, pointed } from "../charts/frame.js";
import { number } from "../charts/words.js";
import { latest, minus, models, normals, squaredError } from "../learn/asking.js";
import { exhibits } from "../learn/exhibits.js";
import { SETS, canvas, followTheme, labelled, paint } from "../learn/pictures.js";
import { plane } from "../learn/plane.js";
import { failure } from "../parts.js";

export const title = "What is left of a picture in two numbers?";

const LARGE = 240; // pixels of the input and of what comes out
const SMALL = 36; // of a preset
const SAMPLES = 3;
const FLICKER_SECONDS = 0.9;
const MODES = { plain: "plain", variational: "variational" };

export async function show(container, context) {
  const { state, signal } = context;
  const ask = models(signal);
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let set = SETS[state.set] ? state.set : "shapes";
  let mode = MODES[state.mode] ?? "plain";
  let row = null; // what is in the input
  let deviation = null; // of its code
  let ticks = 1; // of the flickering

  const input = canvas("Input. Arrow keys move the pen, Space draws or wipes", LARGE, {
    tabindex: "0",
  });
  const output = canvas("Reconstruction", LARGE);
  const errors = canvas("Error of each pixel", LARGE);
  const sampled = Array.from({ length: SAMPLES }, (_, i) =>
    canvas(`Sample ${i + 1} of the cloud`, 64),
  );
  const samples = node("div.strip", sampled);
  const told = node("p.told", { "aria-live": "polite" });
  const presets = node("div.presets", { role: "group", "aria-label": "Presets" });
  const space = plane((code) => decode(code));
  const trouble = node("div");

  const name = () => `${set}-${mode}`;
  const side = () => SETS[set].side;

  /** Decodes a place, and with it samples of its cloud. */
  async function rebuild(code) {
    const model = name();
    const noise = normals(2 * SAMPLES, ticks);
    const drawn = deviation
      ? sampled.map((_, i) => code.map((value, k) => value + deviation[k] * noise[2 * i + k]))
      : [];
    space.cloud(deviation, drawn);
    const [rebuilt, ...rows] = await ask.decode(model, [code, ...drawn]);
    if (model !== name()) return;
    drawOutput(rebuilt);
    samples.hidden = !deviation;
    rows.forEach((each, i) => paint(sampled[i], each));
  }
  const decode = latest(rebuild);

  const encode = latest(async () => {
    const [model, sent] = [name(), row];
    const answer = await ask.encode(model, [sent]);
    if (model !== name()) return;
    deviation = answer.deviations?.[0] ?? null;
    space.place(answer.codes[0]);
    await rebuild(answer.codes[0]);
  });

  function drawOutput(rebuilt) {
    paint(output, rebuilt);
    paint(errors, minus(rebuilt, row), { kind: "error" });
    const error = squaredError(rebuilt, row);
    told.dataset.error = error;
    const at = space.code.map((value) => number(value)).join(", ");
    told.replaceChildren(
      node("strong", number(error)),
      ` mean squared error over ${row.length} pixels, at code ${at}`,
    );
  }

  const begin = latest(async () => {
    const model = name();
    trouble.replaceChildren();
    try {
      const { reference } = await ask.info(model);
      if (model !== name()) return;
      space.begin(reference);
      space.tile(await ask.decode(model, space.centres()), side());
      await encode();
    } catch (problem) {
      if (problem.name === "AbortError") throw problem;
      trouble.replaceChildren(failure(problem));
    }
  });

  function load(preset) {
    row = Float32Array.from(preset);
    drawInput();
  }

  function choose(next) {
    set = next;
    const { presets: all, one } = SETS[set];
    presets.replaceChildren(
      ...all.map(([label, ink]) => {
        const thumbnail = canvas(`${one} ${label}`, SMALL);
        paint(thumbnail, ink);
        return node(
          "button",
          {
            type: "button",
            "aria-label": `Encode the ${one} ${label}`,
            onclick: () => {
              load(ink);
              encode();
            },
          },
          thumbnail,
        );
      }),
    );
    pen = [side() >> 1, side() >> 1];
    load(all[set === "shapes" ? 6 : 3][1]);
  }

  // the pen: a pointer's stroke takes on what it did to its first pixel
  let pen = [0, 0];
  let ink = 1;
  function drawInput() {
    paint(input, row);
    const context2d = input.getContext("2d");
    if (document.activeElement === input && input.matches(":focus-visible")) {
      context2d.fillStyle = "rgb(240 140 30 / 60%)";
      context2d.fillRect(pen[0], pen[1], 1, 1);
    }
  }
  function touch(px, py, first) {
    const at = py * side() + px;
    if (first) ink = row[at] > 0.5 ? 0 : 1;
    if (row[at] === ink) return;
    row[at] = ink;
    drawInput();
    encode();
  }
  const within = (value) => Math.min(side() - 1, Math.max(0, Math.floor(value)));
  function under(event) {
    return pointed(event, input, side(), side()).map(within);
  }
  input.addEventListener("pointerdown", (event) => {
    input.setPointerCapture(event.pointerId);
    touch(...under(event), true);
  });
  input.addEventListener(
    "pointermove",
    (event) => event.buttons & 1 && touch(...under(event), false),
  );
  input.addEventListener("keydown", (event) => {
    const way = arrow(event, { " ": [0, 0] });
    if (!way) return;
    pen = pen.map((value, k) => within(value + way[k]));
    if (event.key === " ") touch(...pen, true);
    else drawInput();
    context.say(
      `Column ${pen[0] + 1}, row ${pen[1] + 1}: ink ${number(row[pen[1] * side() + pen[0]])}`,
    );
  });
  input.addEventListener("focus", drawInput);
  input.addEventListener("blur", drawInput);

  const switches = (legend, options, current, pick) =>
    node(
      "fieldset.switch",
      node("legend", legend),
      Object.entries(options).map(([value, label]) =>
        node(
          "label",
          node("input", {
            type: "radio",
            name: legend,
            value,
            checked: value === current,
            onchange: () => pick(value),
          }),
          label,
        ),
      ),
    );

  const styles = new URL("../learn/learn.css", import.meta.url).href;
  if (!document.querySelector(`link[href="${styles}"]`))
    document.head.append(node("link", { rel: "stylesheet", href: styles }));
  container.classList.add("learn");
  container.append(
    node(
      "div.switches",
      switches("Pictures", { shapes: "12 shapes", digits: "digits" }, set, (value) => {
        choose(value);
        context.set({ set: value });
        begin();
      }),
      switches("Autoencoder", { plain: "plain", variational: "variational" }, mode, (value) => {
        mode = value;
        context.set({ mode: value });
        begin();
      }),
    ),
    trouble,
    node(
      "div.bench",
      node(
        "section",
        { "aria-label": "Input" },
        labelled("Input: draw, or take one of these", input),
        node(
          "div.strip",
          node(
            "button",
            {
              type: "button",
              onclick: () => {
                load(new Float32Array(side() ** 2));
                encode();
              },
            },
            "Clear",
          ),
          node(
            "button",
            {
              type: "button",
              onclick: () => {
                load(row.map((value) => 1 - value));
                encode();
              },
            },
            "Invert",
          ),
        ),
        presets,
      ),
      node(
        "section",
        { "aria-label": "Code" },
        labelled("Code: drag the dot to decode any place", space.element),
        samples,
      ),
      node(
        "section",
        { "aria-label": "Output" },
        node(
          "div.strip",
          labelled("Reconstruction", output),
          labelled("Error of each pixel", errors),
        ),
        told,
      ),
    ),
    node("h2", "What each kind of autoencoder does"),
    exhibits(ask, signal),
  );
  followTheme(container, signal);
  choose(set);
  context.every(FLICKER_SECONDS, () => {
    if (!deviation || still.matches) return;
    ticks += 1;
    decode(space.code);
  });
  await begin();
}
