// Alarms: those of the model in groups, newest first; an open group shows its alarms one by one.
import { dumbbell } from "../charts/dumbbell.js";
import { node, table } from "../charts/frame.js";
import { count, counted, duration, moment, number, severityStep, value } from "../charts/words.js";
import { button, fail, longList, stepping, swatch } from "../parts.js";

export const title = "What has alarmed?";

const LOOK_SECONDS = 5;
const MUTES = { "1 hour": 3600, "8 hours": 28800, "1 day": 86400, "1 week": 604800 };

export async function show(container, context) {
  const { model, state, detail, readOnly } = context;
  const look = () => context.get(`models/${model}/alarms?limit=200`);
  let answer = await look();
  const [summary, list, open] = [node("p"), node("ul.list"), node("div")];
  container.append(summary, list, open);

  function draw() {
    const { alarms, rows_scored: rows, since, groups, muted } = answer;
    const seconds = Math.max(1, (Date.now() - new Date(since).getTime()) / 1000);
    context.title(alarms ? "What has alarmed?" : "Has anything alarmed?");
    summary.replaceChildren(
      node(
        "strong",
        alarms
          ? `${counted(alarms, "alarm")} in ${counted(groups.length, "group")}`
          : `No alarm in ${duration(seconds)}`,
      ),
      `; ${counted(rows, "row")} scored since ${moment(since)}.`,
      muted ? ` ${counted(muted, "alarm")} muted.` : "",
    );
    list.replaceChildren(...groups.map(line));
    list.hidden = groups.length === 0;
  }

  function line(group) {
    const { key, entity, count: alarms, first, last, worst, sentence, verdict } = group;
    const opened = state.group === key;
    return node(
      "li",
      node(
        "button",
        {
          type: "button",
          "aria-expanded": String(opened),
          "data-key": key,
          onclick: () => pick(opened ? null : key),
        },
        node(
          "span.figure.severity",
          swatch(severityStep(worst.severity)),
          `severity ${number(worst.severity, 2)}`,
        ),
        node("span.figure.count", counted(alarms, "alarm")),
        node(
          "span.figure.quiet.span",
          first === last ? moment(last) : `${moment(first)} – ${moment(last)}`,
        ),
        entity ? node("strong", entity) : null,
        node("span.grow", sentence ?? worst.sentence ?? "no reason was computed"),
        verdict ? node("span.quiet", verdict) : null,
        isMuted(group) ? node("span.quiet", `muted until ${moment(group.muted_until)}`) : null,
      ),
    );
  }

  async function pick(key) {
    context.set({ group: key, alarm: null }, { push: true });
    draw();
    list.querySelector(`[data-key="${CSS.escape(key ?? "")}"]`)?.focus();
    await drawGroup();
  }

  async function drawGroup() {
    if (!state.group) return open.replaceChildren();
    open.replaceChildren(node("p.state", "Loading."));
    let group;
    try {
      group = await context.get(`models/${model}/alarms/${encodeURIComponent(state.group)}`);
    } catch (problem) {
      return problem.status === 404
        ? open.replaceChildren(
            node("p.state", "This group is no longer kept: newer alarms took its place."),
          )
        : fail(open, problem);
    }
    const { alarms } = group;
    const one = node("div");
    const at = Math.min(Math.max(0, Number(state.alarm ?? 0)), alarms.length - 1);
    const choose = (i) => {
      context.set({ alarm: i || null });
      drawAlarm(one, alarms[i], i, alarms.length);
    };
    open.replaceChildren(
      node(
        "h2",
        alarms.length === 1
          ? "One alarm"
          : `${count(alarms.length)} alarms, newest first: arrows step through them`,
      ),
      group.group && group.group.count > alarms.length
        ? node(
            "p.quiet",
            `${count(group.group.count)} were counted; of these ${count(alarms.length)} are kept.`,
          )
        : "",
      readOnly ? "" : verdicts(group.group),
      node(
        "div.columns",
        longList(
          "Alarms of the group",
          alarms.length,
          (i) => [
            severityStep(alarms[i].severity),
            moment(alarms[i].time),
            namesOf(alarms[i].reasons ?? []),
            alarms[i].severity,
          ],
          choose,
          at,
        ),
        one,
      ),
    );
    drawAlarm(one, alarms[at], at, alarms.length);
    return undefined;
  }

  /** What a person says of the group: the next fit learns from it. */
  function verdicts(group) {
    const said = node("span.quiet", { role: "status" });
    const say = async (body, words) => {
      try {
        const { rows } = await context.post(`models/${model}/feedback`, { key: group.key, ...body });
        const learnt = rows
          ? ` with ${counted(rows, "row")}`
          : " without a row: their values are not kept, that takes --journal";
        said.replaceChildren(body.until ? words : `${words}${learnt}.`);
        answer = await look();
        draw();
      } catch (problem) {
        fail(said, problem);
      }
    };
    const judge = (verdict) =>
      button(verdict === "real" ? "Real" : "Expected", () =>
        say({ verdict }, `Kept as ${verdict}`),
      );
    const mute = (seconds) => {
      const until = new Date(Date.now() + seconds * 1000).toISOString();
      const words = seconds ? `Muted until ${moment(until)}.` : "Not muted any more.";
      return say({ verdict: "mute", until }, words);
    };
    const choice = node(
      "select",
      {
        "aria-label": "Mute alarms like these",
        onchange: () => choice.value && mute(Number(choice.value)),
      },
      node("option", { value: "" }, "Mute…"),
      Object.entries(MUTES).map(([name, value]) => node("option", { value }, `for ${name}`)),
      isMuted(group) ? node("option", { value: 0 }, "no longer") : null,
    );
    return node("div.row", judge("real"), judge("expected"), choice, said);
  }

  function drawAlarm(place, alarm, i, of) {
    const { time, version, severity, p_value: p, row, reasons, sentence } = alarm;
    const chart = node("div");
    const alone = row && (detail.window?.rows ?? 1) === 1; // the row itself is all that is needed
    place.replaceChildren(
      sentence ? node("p.reason", sentence) : "",
      node(
        "p.quiet",
        `Alarm ${i + 1} of ${of}, ${moment(time)}: severity ${number(severity)}, `,
        `p-value ${number(p, 2)}, version `,
        node("code", version.slice(0, 12)),
        ".",
      ),
      chart,
      row
        ? node(
            "details",
            node("summary", `The row, ${counted(row.length, "value")}`),
            table(
              "The row",
              null,
              row.map((cell, d) =>
                node(
                  "tr",
                  node("th", { scope: "row" }, detail.features[d]?.name ?? d),
                  node("td.figure", value(cell, detail.features[d]?.unit ?? "")),
                ),
              ),
            ),
          )
        : node("p.quiet", "Rows and their values are not kept: that takes --journal."),
      alone
        ? node(
            "p",
            button("Explain it anew", () => context.go("explain", { rows: JSON.stringify([row]) })),
          )
        : "",
    );
    if (!reasons && alone) explain(chart, alarm);
    else if (reasons?.length)
      dumbbell(chart, reasons, { name: "Actual against expected", secret: row === null });
    else chart.replaceChildren(node("p.quiet", "No reasons were computed for this alarm."));
  }

  /** A storm leaves no time to explain each alarm: one that is looked at is explained then. */
  async function explain(chart, alarm) {
    try {
      const answer = await context.post(`models/${model}/explain?top=8`, { rows: [alarm.row] });
      if (!chart.isConnected) return;
      const note =
        answer.version === alarm.version
          ? undefined
          : "By the version in service now, which is another than the one that alarmed.";
      dumbbell(chart, answer.explanations[0], { name: "Actual against expected", note });
      if (answer.reason[0]) chart.prepend(node("p.reason", answer.reason[0]));
    } catch (problem) {
      fail(chart, problem);
    }
  }

  stepping(list);

  draw();
  await drawGroup();
  context.every(LOOK_SECONDS, async () => {
    const next = await look().catch(() => null);
    if (!next || JSON.stringify(next) === JSON.stringify(answer)) return;
    const focused = list.contains(document.activeElement)
      ? document.activeElement.dataset.key
      : null;
    answer = next;
    draw();
    if (focused) list.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  });
}

const isMuted = ({ muted_until: until }) => until !== null && new Date(until) > new Date();

/** The features that are to blame; where none is, the two that add most. */
function namesOf(reasons) {
  const blamed = reasons.filter((each) => each.blamed);
  return (blamed.length ? blamed : reasons.slice(0, 2)).map(({ feature }) => feature).join(", ");
}
