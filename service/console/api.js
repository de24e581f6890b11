// The service's routes, as the views ask them; whatever is refused becomes a Problem.

export const BASE = new URL("../", import.meta.url); // below which /v1 lies, behind any proxy

/** What went wrong, in words: `status` is 0 where no answer came. */
export class Problem extends Error {
  constructor(title, detail, status) {
    super(detail || title);
    this.title = title;
    this.detail = detail;
    this.status = status;
  }
}

/** Of no answer at all. */
export const AWAY = [
  "The service does not answer",
  "It may be restarting, or the network is away.",
  0,
];

/** The JSON that a route under /v1 answers. */
export async function ask(method, path, { body, signal } = {}) {
  const headers = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  const sent = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
  let answer;
  try {
    answer = await fetch(new URL(`v1/${path}`, BASE), { method, headers, body: sent, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(...AWAY);
  }
  const text = await answer.text();
  if (answer.ok) return JSON.parse(text);
  let problem = {};
  try {
    problem = JSON.parse(text);
  } catch {
    // a proxy's page, say
  }
  throw new Problem(
    problem.title ?? `The service answered ${answer.status}`,
    problem.detail ?? "",
    answer.status,
  );
}

/** A curl line that sends this body to a route under /v1. */
export function curl(method, path, body) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const verb = method === "POST" ? "" : `-X ${method} `;
  return (
    `curl -s ${verb}${quoted(new URL(`v1/${path}`, BASE).href)} \\\n` +
    `  -H 'content-type: application/json' -d ${quoted(JSON.stringify(body))}`
  );
}
