// Dumbbell: for each feature what was expected, with its band of two standard deviations in blue,
// and what came, on one scale: how many standard deviations apart they are.
import { bottomAxis, box, frame, picture, rule, scale, shape } from "./frame.js";
import { cut, number, value } from "./words.js";

/**
 * data: contributions as /explain has them: [{feature, unit, actual, expected, expected_sd,
 * deviation, probability, blamed, share}]. options: name, note, most (sd shown at either side),
 * secret: the values themselves are not known, only how far apart they are.
 */
export function dumbbell(container, data, options) {
  const { name, note, secret = false } = options;
  const said = (one) => (secret ? "" : values(one));
  const sentence = (one) => {
    const words = said(one) || `${number(one.deviation)} sd`;
    return `${one.feature}: ${words}${one.blamed ? ", to blame" : ""}`;
  };
  const largest = Math.max(4, ...data.map(({ deviation }) => Math.abs(deviation ?? 0)));
  const most = Math.min(options.most ?? 12, Math.ceil(largest * 1.05));
  frame(container, {
    name,
    note:
      note ?? "Dots: actual; an arrow lies further out. Blue: expected ± 2 sd. Filled: to blame.",
    table: () => ({
      head: ["feature", "actual", "expected", "sd", "sd apart", "to blame", "share of the score"],
      rows: data.map((one) => [
        one.feature,
        secret ? "not kept" : cell(one.actual),
        secret ? "not kept" : cell(one.expected),
        one.expected_sd ?? null,
        one.deviation ?? null,
        one.blamed === undefined ? "–" : one.blamed ? "yes" : "no",
        one.share ?? null,
      ]),
    }),
    paint(width) {
      const narrow = width < 520 && !secret; // what was expected then has a line of its own
      const each = narrow ? 60 : 44;
      const [left, right, bottom] = [8, width - 8, 4 + each * data.length];
      const x = scale(-most, most, left, right);
      return picture(
        width,
        bottom + 40,
        `${name}. ${data.map(sentence).join("; ")}`,
        data.map((one, i) => {
          const y = 4 + i * each;
          const track = y + each - 14;
          const known = Number.isFinite(one.deviation);
          const at = known ? x(Math.max(-most, Math.min(most, one.deviation))) : null;
          const beyond = known && Math.abs(one.deviation) > most;
          const apart = known
            ? `${number(one.deviation, 3)} sd`
            : one.probability
              ? `p = ${number(one.probability, 2)}`
              : "";
          const letters = (width - 32) / 6.8 - apart.length; // that fit into the line of words
          const name = cut(one.feature, narrow ? letters : letters / 2);
          return shape(
            one.blamed ? "g.dumbbell.blamed" : "g.dumbbell",
            shape(
              "text",
              { x: left, y: y + 14 },
              shape("tspan.strong", name),
              !narrow && shape("tspan", { dx: 8 }, cut(said(one), letters - name.length)),
            ),
            narrow && shape("text", { x: left, y: y + 30 }, cut(said(one), (width - 16) / 6.5)),
            shape("text.figure", { x: right, y: y + 14, "text-anchor": "end" }, apart),
            rule("track", left, track, right, track),
            (known || one.expected_sd) && [
              box("band", x(-2), track - 5, x(2) - x(-2), 10),
              rule("promise", x(0), track - 7, x(0), track + 7),
            ],
            known && [
              rule("span", x(0), track, at, track),
              beyond
                ? shape("path.actual", {
                    d: `M${at} ${track}l${one.deviation > 0 ? "-9" : "9"} -5v10z`,
                  })
                : shape("circle.actual", { cx: at, cy: track, r: 5 }),
            ],
          );
        }),
        bottomAxis(x, [-most, most], {
          top: bottom,
          left,
          right,
          title: "standard deviations from what was expected",
        }),
      );
    },
  });
}

function values({ actual, expected, expected_sd: sd, unit }) {
  const spread = Number.isFinite(sd) ? ` ± ${number(sd, 2)}` : "";
  const known = expected === null ? "nothing certain" : value(expected);
  return `${value(actual)}, expected ${known}${spread} ${unit ?? ""}`;
}

function cell(actual) {
  return typeof actual === "number" ? actual : value(actual);
}
