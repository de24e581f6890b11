// Challenger: what is said in Models of the version that is scored beside that in service.
import { node } from "../charts/frame.js";
import { count, moment, percent } from "../charts/words.js";
import { facts, fail } from "../parts.js";

const said = ({ alarm_rate: rate, interval, promised, version }, name) => [
  name,
  rate === null ? "–" : percent(rate),
  `${version.slice(0, 12)}; 95 %: ${interval.map((each) => percent(each)).join(" – ")}; ` +
    `promised ${percent(promised)}`,
  true,
];

/** Fills a place; leaves it empty where there is no challenger. */
export async function drawChallenger(place, { get, model }) {
  try {
    const answer = await get(`models/${model}/challenger`);
    const { champion, challenger, rows, dropped, unjudged, since } = answer;
    place.replaceChildren(
      ...(answer.state === "none"
        ? []
        : [
            node("h2", "In shadow"),
            node("p", answer.sentence),
            node("p", node("strong", "To do: "), answer.advice),
            facts(
              said(champion, "alarms in service"),
              said(challenger, "alarms of the challenger"),
              [
                "both say the same",
                rows ? percent(answer.agreement) : "–",
                `of ${count(rows)} rows since ${moment(since)}`,
                true,
              ],
              [
                "not compared",
                count(dropped + unjudged),
                `${count(dropped)} without the time, ${count(unjudged)} that the challenger cannot judge`,
              ],
            ),
          ]),
    );
  } catch (problem) {
    fail(place, problem);
  }
}
