// Exhibits: one card for each kind of autoencoder, with a slider, pictures before and after, one
// sentence of what to see, and the request that was sent.
import { curl } from "../api.js";
import { node } from "../charts/frame.js";
import { counted, number, percent } from "../charts/words.js";
import { facts, failure } from "../parts.js";
import { cosine, dot, latest, mean, minus, norm, normals, plus, squaredError } from "./asking.js";
import { SETS, canvas, colour, labelled, paint } from "./pictures.js";
import { PRINCIPAL } from "./presets.js";

const PICTURE = 104; // pixels
const digit = (i) => SETS.digits.presets[i][1];
const shape = (i) => SETS.shapes.presets[i][1];
const ALL_DIGITS = SETS.digits.presets.map(([, ink]) => ink);
const round = (row) =>
  Array.from(row, (value) => (Number.isNaN(value) ? null : Number(value.toFixed(3))));

function picture(label, row, options, size = PICTURE) {
  const drawn = canvas(label, size);
  paint(drawn, row, options);
  return labelled(label, drawn);
}

const noisy = (row, sd, seed = 7) => plus(row, normals(row.length, seed), sd);
const inked = (row) => row.map((value) => Math.min(1, Math.max(0, value)));
const two = (value) => value.toFixed(2).replace("-", "−");
const radians = (degrees) => (degrees * Math.PI) / 180;
const bodyOf = (...some) => ({ rows: some.map(round) });
const errorOf = (some, others) => number(mean(some.map((row, i) => squaredError(row, others[i]))));

/** All cards; each asks its models when it first comes into sight. */
export function exhibits(ask, signal) {
  const inSight = new IntersectionObserver(
    (entries) =>
      entries
        .filter((each) => each.isIntersecting)
        .forEach(({ target }) => {
          inSight.unobserve(target);
          target.begin();
        }),
    { rootMargin: "200px" },
  );
  signal.addEventListener("abort", () => inSight.disconnect());
  return node(
    "div.exhibits",
    CARDS.map((card) => {
      const drawn = cardOf(card, ask);
      inSight.observe(drawn);
      return drawn;
    }),
  );
}

function cardOf({ id, title, sees, slider, draw, others = [] }, ask) {
  const pictures = node("div.strip");
  const told = node("div");
  const line = node("code");
  const value = node("output", { for: `${id}-slider` });
  const range = node("input", {
    type: "range",
    id: `${id}-slider`,
    min: slider.min,
    max: slider.max,
    step: slider.step ?? 1,
    value: slider.value,
  });
  const boxes = others.map(() => node("input", { type: "checkbox", onchange: () => update() }));
  const update = latest(async () => {
    const at = Number(range.value);
    const text = slider.text(at);
    value.textContent = text;
    range.setAttribute("aria-valuetext", text);
    try {
      const { shows, says, sent } = await draw(ask, at, ...boxes.map((box) => box.checked));
      pictures.replaceChildren(...shows);
      told.replaceChildren(facts(...says));
      line.textContent = curl("POST", `models/learn.${sent[0]}/${sent[1]}`, sent[2]);
    } catch (problem) {
      if (problem.name === "AbortError") throw problem;
      told.replaceChildren(failure(problem));
    }
  });
  range.addEventListener("input", () => update());
  const card = node(
    "section.exhibit",
    { id: `exhibit-${id}`, "aria-labelledby": `${id}-title` },
    node("h3", { id: `${id}-title` }, title),
    node("p", sees),
    node("div.slide", node("label", { for: `${id}-slider` }, slider.label), range, value),
    others.map((label, i) => node("label.slide", boxes[i], label)),
    pictures,
    told,
    node("details", node("summary", "The request"), node("pre", { tabindex: "0" }, line)),
  );
  card.begin = update;
  return card;
}

const ofDigit = { label: "Digit", min: 0, max: 9, value: 3, text: String };
const noiseSlider = {
  label: "Noise",
  min: 0,
  max: 0.8,
  step: 0.02,
  value: 0.4,
  text: (sd) => `${number(sd)} of full ink, sd`,
};

const CARDS = [
  {
    id: "width",
    title: "Undercomplete against overcomplete",
    sees:
      "Turn the noise up: a code wider than the picture copies the noise, a narrow one has " +
      "little room for it.",
    slider: noiseSlider,
    async draw(ask, sd) {
      const [clean, spoilt] = [digit(3), inked(noisy(digit(3), sd))];
      const names = ["digits-undercomplete", "digits-overcomplete"];
      const [narrow, wide] = await Promise.all(
        names.map((name) => ask.reconstruct(name, [clean, spoilt])),
      );
      const noise = minus(spoilt, clean);
      const through = ([before, after]) =>
        sd ? percent(dot(minus(after, before), noise) / dot(noise, noise)) : "–";
      return {
        shows: [
          picture("noisy input", spoilt),
          picture("through 8 numbers", narrow[1]),
          picture("through 72 numbers", wide[1]),
        ],
        says: [
          ["noise copied", through(narrow), "by 8 numbers, 64 pixels"],
          ["noise copied", through(wide), "by 72 numbers, 64 pixels"],
        ],
        sent: [names[1], "reconstruct", bodyOf(spoilt)],
      };
    },
  },
  {
    id: "linear",
    title: "A linear autoencoder is PCA",
    sees:
      "Turn the axis of the code within its plane: at one angle it is the first principal " +
      "component of the patches, for the two planes are the same.",
    slider: { label: "Axis turned by", min: 0, max: 180, value: 0, text: (angle) => `${angle}°` },
    async draw(ask, angle) {
      const codes = [
        [0, 0],
        [1, 0],
        [0, 1],
      ];
      const [zero, ...ends] = (await ask.decode("patches-linear", codes)).map((row) =>
        Array.from(row),
      );
      const own = basis(ends.map((end) => minus(end, zero)));
      const turned = plus(
        own[0].map((value) => value * Math.cos(radians(angle))),
        own[1],
        Math.sin(radians(angle)),
      );
      return {
        shows: [
          picture("axis of the code", turned, { kind: "signed" }),
          picture("first principal component", PRINCIPAL[0], { kind: "signed" }),
        ],
        says: [
          [
            "angle between the planes",
            `${(planeAngle(own, basis(PRINCIPAL)) / radians(1)).toFixed(3)}°`,
            "in the space of 16 pixels",
          ],
          [
            "cosine of the two pictures",
            two(cosine(turned, PRINCIPAL[0])),
            "±1 is the same picture",
          ],
        ],
        sent: ["patches-linear", "decode", { codes }],
      };
    },
  },
  {
    id: "tied",
    title: "Tied weights",
    sees:
      "One matrix serves both ways: the network has far fewer weights, and its pictures are " +
      "nearly as good.",
    slider: ofDigit,
    async draw(ask, which) {
      const names = ["digits-undercomplete", "digits-tied"];
      const rows = await Promise.all(names.map((name) => ask.reconstruct(name, ALL_DIGITS)));
      const weights = (await Promise.all(names.map((name) => ask.info(name)))).map(
        (info) => info.model.parameter_count,
      );
      return {
        shows: [
          picture("input", digit(which)),
          picture("two matrices", rows[0][which]),
          picture("one matrix", rows[1][which]),
        ],
        says: [
          [
            "two matrices",
            counted(weights[0], "weight"),
            `mean squared error ${errorOf(rows[0], ALL_DIGITS)} (n = 10)`,
          ],
          [
            "one matrix",
            counted(weights[1], "weight"),
            `mean squared error ${errorOf(rows[1], ALL_DIGITS)} (n = 10)`,
          ],
        ],
        sent: [names[1], "reconstruct", bodyOf(digit(which))],
      };
    },
  },
  {
    id: "denoising",
    title: "Denoising",
    sees:
      "What was learnt is where clean pictures lie: the amber steps lead to where the best " +
      "possible ones end (blue), most nearly at the noise of the training, .28.",
    slider: noiseSlider,
    async draw(ask, sd) {
      const [clean, spoilt] = [digit(3), noisy(digit(3), sd)];
      const points = scattered(60, Math.max(sd, 0.01));
      const [[rebuilt], back] = await Promise.all([
        ask.reconstruct("digits-denoising", [spoilt]),
        ask.reconstruct("ring-denoising", points),
      ]);
      const best = points.map((point) => minus(bestGuess(point, Math.max(sd, 0.01)), point));
      const steps = points.map((point, i) => minus(back[i], point));
      return {
        shows: [
          picture("noisy input", inked(spoilt)),
          picture("given back", rebuilt),
          labelled(
            "steps back to a circle",
            arrows(
              "Steps of the network and the best possible ones",
              points,
              [
                [steps, "dot", 1.5],
                [best, "promise", 0],
              ],
              CIRCLE,
              240,
            ),
          ),
        ],
        says: [
          [
            "cosine to the noise that was added",
            sd ? number(cosine(minus(spoilt, rebuilt), minus(spoilt, clean))) : "–",
            "64 pixels",
          ],
          [
            "cosine to the best possible step",
            number(mean(steps.map((step, i) => cosine(step, best[i])))),
            `mean of ${points.length} points`,
          ],
        ],
        sent: ["digits-denoising", "reconstruct", bodyOf(spoilt)],
      };
    },
  },
  {
    id: "sparse",
    title: "Sparse",
    sees:
      "The dearer a unit's voice, the more units fall silent for good; those left draw the " +
      "shapes nearly as well.",
    slider: {
      label: "Price of activity",
      min: 0,
      max: 3,
      value: 1,
      text: (i) => `L1 weight ${[0, 0.001, 0.003, 0.01][i]}`,
    },
    async draw(ask, which) {
      const name = `patches-sparse-${which}`;
      const rows = SETS.shapes.presets.flatMap(([, ink]) => cut(ink));
      const [{ codes }, rebuilt] = await Promise.all([
        ask.encode(name, rows),
        ask.reconstruct(name, rows),
      ]);
      const most = Math.max(...codes.flat());
      const heard = codes[0].map((_, k) => codes.some((code) => code[k] > 0.01 * most));
      const active = mean(codes.map((code) => code.filter((value) => value > 0.01 * most).length));
      // of the ring
      const units = codes.slice(54, 63).flatMap((code) => code.map((value) => value / most));
      const drawn = canvas("Activity of 32 units for each of 9 patches", PICTURE, {
        class: "pixels units",
      });
      paint(drawn, units, { width: 32, kind: "error" });
      return {
        shows: [
          picture("input", shape(6)),
          picture("given back", joined(rebuilt.slice(54, 63))),
          labelled("32 units, 9 patches", drawn),
        ],
        says: [
          [
            "units ever heard",
            `${heard.filter(Boolean).length} of 32`,
            `in ${rows.length} patches`,
          ],
          ["units a patch", number(active), "mean"],
          ["mean squared error", errorOf(rows, rebuilt), `${rows.length} patches`],
        ],
        sent: [name, "encode", bodyOf(rows[54])],
      };
    },
  },
  {
    id: "contractive",
    title: "Contractive",
    sees:
      "Nudge points that way: the longer the line, the farther the code moves. Along the grey" +
      " curve of the data (45°) the contractive code moves most, across it (135°) least.",
    slider: {
      label: "Direction of the nudge",
      min: 0,
      max: 180,
      step: 5,
      value: 135,
      text: (angle) => `${angle}°`,
    },
    async draw(ask, angle) {
      const nudge = [Math.cos(radians(angle)), Math.sin(radians(angle))].map(
        (value) => 0.05 * value,
      );
      const grid = Array.from({ length: 169 }, (_, i) => [
        (i % 13) / 4 - 1.5,
        Math.floor(i / 13) / 4 - 1.5,
      ]);
      const on = CURVE.slice(2, -2);
      const tangents = on.map((_, i) =>
        minus(CURVE[i + 3], CURVE[i + 1]).map((value, __, all) => (0.05 * value) / norm(all)),
      );
      const names = ["curve-free", "curve-contractive"];
      const found = await Promise.all(
        names.map(async (name) => {
          const moved = [
            ...grid,
            ...grid.map((point) => plus(point, nudge)),
            ...on,
            ...on.map((point, i) => plus(point, tangents[i])),
            ...on.map(([x, y], i) => [x - tangents[i][1], y + tangents[i][0]]),
          ];
          const { codes } = await ask.encode(name, moved);
          const apart = (from, to, many) =>
            Array.from({ length: many }, (_, i) => norm(minus(codes[from + i], codes[to + i])));
          const [along, across] = [
            apart(338, 338 + on.length, on.length),
            apart(338, 338 + 2 * on.length, on.length),
          ].map(mean);
          return { steps: apart(0, 169, 169), ratio: across / along, along };
        }),
      );
      return {
        shows: found.map(({ steps, along }, i) =>
          labelled(
            ["without the penalty", "with it"][i],
            arrows(
              `How far codes move, ${names[i]}`,
              grid,
              [
                [
                  grid.map((_, at) => nudge.map((value) => (4.5 * value * steps[at]) / along)),
                  "dot",
                  1.2,
                ],
              ],
              CURVE,
              164,
            ),
          ),
        ),
        says: found.map(({ ratio }, i) => [
          ["without the penalty", "with it"][i],
          percent(ratio),
          "of the movement along the curve is had across it",
        ]),
        sent: [names[1], "encode", bodyOf([0, 0], nudge)],
      };
    },
  },
  {
    id: "beta",
    title: "Variational: β",
    sees:
      "β is the price of a code that differs from noise: at 0 codes of noise fall into holes," +
      " at 1 they decode to digits, at 2 one of the two numbers has fallen silent.",
    slider: { label: "Price of information", min: 0, max: 2, value: 1, text: (i) => `β = ${i}` },
    async draw(ask, beta) {
      const name = ["digits-plain", "digits-variational", "digits-variational-2"][beta];
      const noise = normals(20, 3);
      const codes = Array.from({ length: 10 }, (_, i) => [noise[2 * i], noise[2 * i + 1]]);
      const [{ codes: means, deviations }, rebuilt, drawn] = await Promise.all([
        ask.encode(name, ALL_DIGITS),
        ask.reconstruct(name, ALL_DIGITS),
        beta ? ask.sample(name, 10, 3).then(({ rows }) => rows) : ask.decode(name, codes),
      ]);
      const kl = deviations?.map((sds, i) =>
        sds.reduce((sum, sd, k) => sum + (means[i][k] ** 2 + sd ** 2 - 1) / 2 - Math.log(sd), 0),
      );
      return {
        shows: [
          labelled(
            "decoded noise",
            node(
              "div.tiles",
              drawn.map((row, i) => {
                const tile = canvas(`decoded noise, ${i + 1} of 10`, 56);
                paint(tile, row);
                return tile;
              }),
            ),
          ),
        ],
        says: [
          ["KL", kl ? `${number(mean(kl))} nats` : "no distribution", "mean of 10 digits"],
          ["mean squared error", errorOf(rebuilt, ALL_DIGITS), "10 digits"],
        ],
        sent: beta
          ? [name, "sample", { count: 10, seed: 3 }]
          : [name, "decode", { codes: [round(codes[0])] }],
      };
    },
  },
  {
    id: "quantized",
    title: "Vector-quantized",
    sees:
      "Each patch of the shape takes one tile of a codebook, and nothing else of it is kept: " +
      "nine small whole numbers for 144 pixels.",
    slider: { label: "Shape", min: 0, max: 11, value: 6, text: (i) => SETS.shapes.presets[i][0] },
    async draw(ask, which) {
      const name = "patches-quantized";
      const patches = cut(shape(which));
      const { reference } = await ask.info(name);
      const [{ codes }, tiles] = await Promise.all([
        ask.encode(name, patches),
        ask.decode(name, reference.codes),
      ]);
      const near = (code) =>
        reference.codes
          .map((each) => norm(minus(each, code)))
          .reduce((best, far, i, all) => (far < all[best] ? i : best), 0);
      const taken = codes.map(near);
      const rebuilt = joined(taken.map((i) => tiles[i]));
      const book = node(
        "div.book",
        { role: "group", "aria-label": `Codebook of ${tiles.length} tiles` },
        tiles.map((tile, i) => {
          const drawn = canvas(`tile ${i}${taken.includes(i) ? ", taken" : ""}`, 24, {
            class: taken.includes(i) ? "pixels taken" : "pixels",
          });
          paint(drawn, tile);
          return drawn;
        }),
      );
      return {
        shows: [
          picture("input", shape(which)),
          picture("of tiles", rebuilt),
          labelled("codebook", book),
        ],
        says: [
          ["tiles taken", taken.join(" "), `of ${tiles.length}`],
          ["bits", `${9 * Math.ceil(Math.log2(tiles.length))}`, "for 144 pixels"],
          ["mean squared error", number(squaredError(shape(which), rebuilt)), "144 pixels"],
        ],
        sent: [name, "encode", bodyOf(patches[0])],
      };
    },
  },
  {
    id: "masked",
    title: "Masked",
    sees: "Hide pixels (blue): those that are left say what must have been there.",
    slider: {
      label: "Pixels hidden",
      min: 0,
      max: 0.7,
      step: 0.05,
      value: 0.4,
      text: (share) => percent(share),
    },
    async draw(ask, share) {
      const row = digit(3);
      const order = normals(64, 11);
      const hidden = new Set(
        [...row.keys()].sort((a, b) => order[a] - order[b]).slice(0, Math.round(64 * share)),
      );
      const seen = Float32Array.from(row, (value, i) => (hidden.has(i) ? NaN : value));
      const [filled] = await ask.reconstruct("digits-masked", [seen]);
      const error = mean([...hidden].map((i) => (filled[i] - row[i]) ** 2));
      const blank = mean([...hidden].map((i) => row[i] ** 2));
      return {
        shows: [picture("before", row), picture("hidden", seen), picture("filled in", filled)],
        says: [
          [
            "error of what was hidden",
            hidden.size ? number(error) : "–",
            `mean square, ${hidden.size} pixels`,
          ],
          ["left blank it would be", hidden.size ? number(blank) : "–", "mean square"],
        ],
        sent: ["digits-masked", "reconstruct", bodyOf(seen)],
      };
    },
  },
  {
    id: "losses",
    title: "A loss by the kind of data",
    sees:
      "The squared error knows no bounds and answers with less than no ink or more than all " +
      "(blue); cross-entropy takes ink as a probability and cannot.",
    slider: ofDigit,
    async draw(ask, which) {
      const names = ["digits-squared", "digits-undercomplete"];
      const rows = await Promise.all(names.map((name) => ask.reconstruct(name, ALL_DIGITS)));
      const told = (all) => {
        const beyond = all.flat().filter((value) => value < -0.05 || value > 1.05).length;
        return [
          `${two(Math.min(...all[which]))} to ${two(Math.max(...all[which]))}`,
          `ink; ${counted(beyond, "pixel")} of 640 beyond; ` +
            `mean squared error ${errorOf(all, ALL_DIGITS)}`,
        ];
      };
      return {
        shows: [
          picture("input", digit(which)),
          picture("squared error", rows[0][which]),
          picture("cross-entropy", rows[1][which]),
        ],
        says: [
          ["squared error", ...told(rows[0])],
          ["cross-entropy", ...told(rows[1])],
        ],
        sent: [names[0], "reconstruct", bodyOf(digit(which))],
      };
    },
  },
  {
    id: "anomaly",
    title: "Anomaly detection by reconstruction error",
    sees:
      "Scramble the pixels, or invert them: what the model has never seen it cannot rebuild, " +
      "and the score passes the threshold.",
    slider: {
      label: "Pixels scrambled",
      min: 0,
      max: 1,
      step: 0.02,
      value: 0.2,
      text: (share) => percent(share),
    },
    others: ["Invert"],
    async draw(ask, share, invert) {
      const name = "shapes-plain";
      let row = scrambled(shape(7), share);
      if (invert) row = row.map((value) => 1 - value);
      const [scores, [rebuilt]] = await Promise.all([
        ask.score(name, [row]),
        ask.reconstruct(name, [row]),
      ]);
      const [score, ratio, alarms] = [scores.score[0], scores.ratio[0], scores.is_anomaly[0]];
      return {
        shows: [
          picture("input", row),
          picture("given back", rebuilt),
          picture("error", minus(rebuilt, row), { kind: "error" }),
          meter(ratio),
        ],
        says: [
          ["score", number(score), `${number(ratio)} times the threshold`],
          [
            "threshold",
            number(scores.threshold),
            `α ${percent(scores.alpha)}, ${scores.guarantee}`,
            true,
          ],
          ["p-value", number(scores.p_value[0]), ""],
          ["alarm", alarms ? "yes" : "no", ""],
        ],
        sent: [name, "score", bodyOf(row)],
      };
    },
  },
];

/** An orthonormal basis of the plane of two vectors. */
function basis([first, second]) {
  const one = first.map((value) => value / norm(first));
  const rest = plus(second, one, -dot(second, one));
  return [one, rest.map((value) => value / norm(rest))];
}

/** The larger angle between two planes: the sine is the norm of what one has outside the other. */
function planeAngle(one, other) {
  const rest = one.map((each) =>
    other.reduce((left, direction) => plus(left, direction, -dot(each, direction)), each),
  );
  const [a, b, c] = [dot(rest[0], rest[0]), dot(rest[0], rest[1]), dot(rest[1], rest[1])];
  return Math.asin(Math.min(1, Math.sqrt((a + c + Math.hypot(a - c, 2 * b)) / 2)));
}

/** Points of the circle of radius 1 with noise. */
function scattered(count, sd) {
  const noise = normals(2 * count, 5);
  return Array.from({ length: count }, (_, i) => {
    const angle = (2 * Math.PI * i) / count;
    return [Math.cos(angle) + sd * noise[2 * i], Math.sin(angle) + sd * noise[2 * i + 1]];
  });
}

/** The mean of the circle's points given one with noise: its direction, times I1(k) / I0(k). */
export function bestGuess(point, sd) {
  const r = norm(point);
  const k = r / sd ** 2;
  let [above, below] = [0, 0];
  for (let i = 0; i < 720; i += 1) {
    const c = Math.cos((Math.PI * (i + 0.5)) / 720);
    const weight = Math.exp(k * (c - 1));
    above += c * weight;
    below += weight;
  }
  return point.map((value) => (value / r) * (above / below));
}

/** The nine patches of a shape, and a shape of nine patches. */
const placeOf = (i) => [
  Math.floor(Math.floor(i / 12) / 4) * 3 + Math.floor((i % 12) / 4),
  (Math.floor(i / 12) % 4) * 4 + (i % 4),
];
function cut(row) {
  const patches = Array.from({ length: 9 }, () => new Float32Array(16));
  row.forEach((value, i) => (patches[placeOf(i)[0]][placeOf(i)[1]] = value));
  return patches;
}
const joined = (patches) =>
  Float32Array.from({ length: 144 }, (_, i) => patches[placeOf(i)[0]][placeOf(i)[1]]);

/** A share of the pixels in another order. */
function scrambled(row, share) {
  const order = normals(row.length, 9);
  const moved = [...row.keys()]
    .sort((a, b) => order[a] - order[b])
    .slice(0, Math.round(share * row.length));
  const mixed = Float32Array.from(row);
  moved.forEach((from, i) => (mixed[moved[(i + 1) % moved.length]] = row[from]));
  return mixed;
}

/** The score as a bar, and the threshold as a line across it. */
function meter(ratio) {
  const bar = node("i", { class: ratio > 1 ? "over" : null });
  bar.style.width = `${Math.min(100, (100 * ratio) / 4)}%`;
  return node(
    "div.meter",
    { role: "img", "aria-label": `Score ${number(ratio)} times the threshold` },
    bar,
    node("b"),
  );
}

const CIRCLE = Array.from({ length: 97 }, (_, i) => [
  Math.cos((i * Math.PI) / 48),
  Math.sin((i * Math.PI) / 48),
]);
export const CURVE = Array.from({ length: 41 }, (_, i) => i / 20 - 1).map((along) => {
  const across = 0.12 * Math.sin(Math.PI * along); // as training/pictures.py bends it
  return [along - across, along + across].map((value) => value / Math.SQRT2);
});

/**
 * Lines from points of the square from -2 to 2, each field in its colour, over where the data is;
 * of a field of thickness 0 the ends alone.
 */
function arrows(name, points, fields, path, size) {
  const drawn = node("canvas.field", { role: "img", "aria-label": name });
  drawn.repaint = () => {
    const dense = Math.min(3, devicePixelRatio || 1);
    drawn.width = drawn.height = size * dense;
    drawn.style.width = drawn.style.height = `${size}px`;
    const context = drawn.getContext("2d");
    const at = ([x, y]) => [((x + 2) * size) / 4, ((2 - y) * size) / 4];
    context.scale(dense, dense);
    context.strokeStyle = `rgb(${colour("ordinary")})`;
    context.lineWidth = 2;
    context.beginPath();
    path.forEach((point) => context.lineTo(...at(point)));
    context.stroke();
    for (const [steps, name, thick] of fields) {
      context.strokeStyle = `rgb(${colour(name)})`;
      points.forEach((point, i) => {
        const end = at(plus(point, steps[i]));
        if (thick) {
          context.lineWidth = thick;
          context.beginPath();
          context.moveTo(...at(point));
          context.lineTo(...end);
          context.stroke();
        }
        context.fillStyle = context.strokeStyle;
        context.fillRect(
          end[0] - (thick || 2),
          end[1] - (thick || 2),
          2 * (thick || 2),
          2 * (thick || 2),
        );
      });
    }
  };
  queueMicrotask(drawn.repaint);
  return drawn;
}
