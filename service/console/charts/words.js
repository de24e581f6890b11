// Words: how numbers, times and names are written, the same in every chart and view.

const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** A text as it is shown: what cannot be seen, or turns the direction of what follows, is named. */
export function shown(text) {
  return String(text).replace(HIDDEN, (sign) => {
    const code = sign.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    return `‹U+${code.toString(16).toUpperCase().padStart(4, "0")}›`;
  });
}

/** The same, cut to so many letters. */
export function cut(text, most) {
  const seen = shown(text);
  return seen.length > most ? `${seen.slice(0, Math.max(6, Math.floor(most) - 1))}…` : seen;
}

/** A number with so many significant digits; a missing one is a dash. */
export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e9)) {
    const [head, power] = value.toExponential(Math.max(0, digits - 1)).split("e");
    const raised = [...String(Number(power))].map(
      (sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)],
    );
    return `${head.replace("-", "−")} × 10${raised.join("")}`;
  }
  const places = size === 0 ? 0 : Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  const rounded = Number(value.toFixed(Math.min(places, 12)));
  const text = rounded.toLocaleString("en-US", { maximumFractionDigits: Math.min(places, 12) });
  return text.replace("-", "−");
}

/** A whole number, with commas. */
export function count(value) {
  return value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en-US");
}

/** So many of them: "1 alarm", "2 alarms". */
export function counted(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** A share as per cent. */
export function percent(share, digits = 2) {
  return share === null || share === undefined ? "–" : `${number(100 * share, digits)} %`;
}

/** A value of a row: a number, a category, true or false, or missing. */
export function value(cell, unit = "") {
  if (cell === null || cell === undefined) return "missing";
  const text = typeof cell === "number" ? number(cell, 4) : String(cell);
  return unit ? `${text} ${unit}` : text;
}

/** How long ago, or how long: "40 s", "12 min", "6 h", "3 days". */
export function duration(seconds) {
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** A moment, in the reader's zone: the time alone of today, the date before it of another day. */
export function moment(time) {
  const text = local(new Date(time).getTime());
  return text.slice(0, 10) === local(Date.now()).slice(0, 10) ? text.slice(11) : text.slice(0, 16);
}

/** Milliseconds since 1970 as "2026-11-29 05:43:21", in the reader's zone. */
export function local(time) {
  if (!Number.isFinite(time)) return "–";
  const at = new Date(time - 60_000 * new Date(time).getTimezoneOffset());
  return at.toISOString().replace("T", " ").slice(0, 19);
}

/** Round places on an axis from low to high, about so many. */
export function ticks(low, high, about = 5) {
  if (!(high > low)) return [low];
  const rough = (high - low) / Math.max(1, about);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((each) => each * power >= rough) * power;
  const places = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) {
    places.push(Number((at * step).toPrecision(12)));
  }
  return places;
}

/** Which of the seven steps of the ramp a severity has: 0 is ordinary, 6 is the strangest. */
export function severityStep(severity) {
  if (!(severity > 0)) return 0;
  return Math.min(6, Math.floor(severity));
}
