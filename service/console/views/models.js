// Models: the versions of a model, what changed between two of them, and which one is in service.
import { node, scrolled, table } from "../charts/frame.js";
import { count, counted, moment, number, percent } from "../charts/words.js";
import { ask, keptKey } from "../api.js";
import { button, facts, fail, failure, places } from "../parts.js";
import { drawChallenger } from "./challenger.js";

export const title = "Which version is in service?";

// what is said of a version: [name, text, is a number]
const SAID = [
  ["fitted", ({ fitted_at: at }) => (at ? moment(at) : "–")],
  ["variant", ({ variant }) => variant ?? "–"],
  ["rows", ({ rows }) => count(rows), true],
  ["features", ({ features }) => count(features?.length ?? features), true],
  ["guarantee", ({ guarantee }) => guarantee ?? "–"],
  ["α, δ", ({ alpha, delta }) => `${percent(alpha)}, ${percent(delta)}`, true],
  ["AUROC", ({ auroc }) => number(auroc ?? null, 4).replace("–", "not labelled"), true],
  ["size", ({ size }) => `${count(size / 1024)} KiB`, true],
];
const COLUMNS = ["compare", "version", ...SAID.map(([name]) => name), ""];

export async function show(container, context) {
  const { model, state, readOnly, base } = context;
  let { detail } = context;
  let answer = await context.get(`models/${model}/versions`);
  const [told, shadow, list, diff, report] = places(5);
  container.append(told, shadow, list, diff, report);

  const short = (version) => version.slice(0, 12);

  function draw() {
    const { current, versions } = answer;
    context.title(`Which version of ${model} is in service?`);
    drawChallenger(shadow, context);
    told.replaceChildren(
      facts(
        ["in service", node("code", current ? short(current) : "none"), detail.variant],
        ["guarantee", detail.guarantee, detail.guarantee_reason],
        [
          "budget",
          `α ${percent(detail.alpha)}`,
          `${percent(detail.expected_false_alarm_rate)} of normal rows alarm on average`,
          true,
        ],
        ["calibration", count(detail.calibration_rows), "rows that the model has never seen"],
      ),
      detail.last_error
        ? failure({
            title: "The newest state of its folder is not in service",
            detail: detail.last_error,
          })
        : "",
    );
    list.replaceChildren(
      scrolled("Versions", table("Versions", COLUMNS, versions.map(line))),
      versions.length === 1
        ? node("p.quiet", "One version: another appears here when it is fitted.")
        : "",
    );
  }

  function line(version) {
    const inService = version.version === answer.current;
    const chosen = (state.compare ?? "").split(",").filter(Boolean);
    const box = node("input", {
      type: "checkbox",
      "aria-label": `Compare ${short(version.version)}`,
      checked: chosen.includes(short(version.version)),
    });
    box.addEventListener("change", () => {
      const others = chosen.filter((each) => each !== short(version.version));
      const next = box.checked ? [...others, short(version.version)].slice(-2) : others;
      context.set({ compare: next.join(",") || null });
      draw();
      drawDiff();
    });
    if (version.problem) {
      return node(
        "tr",
        node("td"),
        node("td", node("code", short(version.version))),
        node("td", { colspan: COLUMNS.length - 2 }, version.problem),
      );
    }
    return node(
      "tr",
      { "aria-current": inService ? "true" : null },
      node("td", box),
      node(
        "td",
        node("code", short(version.version)),
        inService ? node("strong", " in service") : "",
      ),
      SAID.map(([, text, figure]) => node(figure ? "td.figure" : "td", text(version))),
      node(
        "td",
        version.report ? button("Report", () => openReport(version.version)) : "",
        " ",
        inService || readOnly
          ? ""
          : button(isNewer(version) ? "Promote" : "Roll back", () => promote(version)),
      ),
    );
  }

  function isNewer(version) {
    const now = answer.versions.find((each) => each.version === answer.current);
    return (
      !now ||
      new Date(version.written_at ?? version.fitted_at) > new Date(now.written_at ?? now.fitted_at)
    );
  }

  function drawDiff() {
    const chosen = (state.compare ?? "").split(",").filter(Boolean);
    const [before, after] = answer.versions
      .filter((each) => chosen.includes(short(each.version)))
      .reverse();
    if (!before || !after) {
      diff.replaceChildren(
        chosen.length === 1
          ? node("p.quiet", "Mark a second version to see what changed between the two.")
          : "",
      );
      return;
    }
    const names = (each) => new Set(each.features ?? []);
    const gone = [...names(before)].filter((name) => !names(after).has(name));
    const come = [...names(after)].filter((name) => !names(before).has(name));
    diff.replaceChildren(
      node("h2", "What changed"),
      table(
        "What changed between two versions",
        ["", short(before.version), short(after.version)],
        SAID.map(([name, of]) => {
          const changed = of(before) !== of(after);
          return node(
            changed ? "tr.changed" : "tr",
            node("th", { scope: "row" }, name),
            node("td", of(before)),
            node("td", changed ? of(after) : node("span.quiet", "the same")),
          );
        }),
      ),
      gone.length ? node("p", `${counted(gone.length, "feature")} gone: ${gone.join(", ")}.`) : "",
      come.length ? node("p", `${counted(come.length, "feature")} new: ${come.join(", ")}.`) : "",
    );
  }

  function openReport(version) {
    context.set({ report: short(version) });
    drawReport();
    report.scrollIntoView({ block: "start" });
  }

  function drawReport() {
    const version = answer.versions.find(
      (each) => short(each.version) === state.report && each.report,
    );
    if (!version) return report.replaceChildren();
    const path = `models/${model}/report?version=${version.version}`;
    const locked = keptKey() !== null; // then no address leads to it: only a request brings the key
    const address = new URL(locked ? "console/report.html" : `v1/${path}`, base).href;
    const frame = node("iframe", {
      src: address,
      title: `Report of ${model}, ${short(version.version)}`,
      sandbox: "allow-scripts allow-popups",
    });
    if (locked) fill(() => frame.contentWindow, path);
    const alone = "In a window of its own";
    return report.replaceChildren(
      node("h2", `Report of ${short(version.version)}`),
      node(
        "p.row",
        locked
          ? button(alone, () => {
              const opened = open(address);
              fill(() => opened, path);
            })
          : node("a", { href: address, target: "_blank", rel: "noopener" }, alone),
        button("Close", () => (context.set({ report: null }), drawReport())),
      ),
      frame,
    );
  }

  /** Hands the page at that path to a window, as soon as console/report.html in it is ready. */
  function fill(target, path) {
    const asked = ask("GET", path, { accept: "text/html", signal: context.signal });
    asked.catch((problem) => fail(report, problem));
    const heard = async ({ source }) => {
      if (source !== target()) return;
      removeEventListener("message", heard);
      source.postMessage(await asked, "*"); // its origin is one of its own, which has no name
    };
    addEventListener("message", heard, { signal: context.signal });
  }

  function promote(version) {
    const word = isNewer(version) ? "Promote" : "Roll back";
    const name = node("input", {
      type: "text",
      "aria-label": "The model's name",
      autocomplete: "off",
      placeholder: model,
    });
    const sure = node("button.main", { disabled: true }, word);
    const failed = node("div");
    const form = node(
      "form",
      { method: "dialog" },
      node(
        "p",
        `${short(version.version)} will answer for ${model}, at once and for everybody. `,
        `Now it is ${answer.current ? short(answer.current) : "nothing"}.`,
      ),
      node("p", node("label", `Type ${model} to confirm `, name)),
      failed,
      node(
        "p.row",
        sure,
        button("Cancel", () => dialog.close()),
      ),
    );
    const dialog = node(
      "dialog",
      { "aria-label": `${word} ${short(version.version)}` },
      node("h2", `${word} ${short(version.version)}`),
      form,
    );
    name.addEventListener("input", () => (sure.disabled = name.value !== model));
    dialog.addEventListener("close", () => dialog.remove());
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (name.value !== model) return;
      sure.disabled = true;
      try {
        await context.post(`models/${model}/promote`, { version: version.version });
        [detail, answer] = await Promise.all([
          context.get(`models/${model}`),
          context.get(`models/${model}/versions`),
        ]);
        dialog.close();
        draw();
        drawDiff();
        context.say(`${short(version.version)} is in service.`);
      } catch (problem) {
        fail(failed, problem);
        sure.disabled = false;
      }
    });
    document.body.append(dialog);
    dialog.showModal();
    name.focus();
  }

  draw();
  drawDiff();
  drawReport();
}
