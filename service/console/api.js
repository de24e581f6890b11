// The service's routes, as the views ask them; whatever is refused becomes a Problem.

const JSON_TYPE = "application/json";
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

const KEPT = "hourglass-key"; // in the session's storage, which ends with the tab
let key = null;
try {
  key = globalThis.sessionStorage?.getItem(KEPT) ?? null; // workers have none, and are told
} catch {
  // kept for this page alone
}

/** The key that requests bring, if the service asks for one. */
export const keptKey = () => key;

/** Has requests bring a key from now on, or none. */
export function useKey(next) {
  key = next || null;
  try {
    if (key) globalThis.sessionStorage?.setItem(KEPT, key);
    else globalThis.sessionStorage?.removeItem(KEPT);
  } catch {
    // kept for this page alone
  }
}

/** These headers, and the key's. */
export const withKey = (headers) => (key ? { ...headers, authorization: `Bearer ${key}` } : headers);

/** The JSON that a route under /v1 answers; the text of another type, if that is asked for. */
export async function ask(method, path, { body, signal, accept = JSON_TYPE } = {}) {
  const headers = { accept };
  if (body !== undefined) headers["content-type"] = JSON_TYPE;
  const sent = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
  let answer;
  try {
    const asked = { method, headers: withKey(headers), body: sent, signal };
    answer = await fetch(new URL(`v1/${path}`, BASE), asked);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(...AWAY);
  }
  const text = await answer.text();
  if (answer.ok) return accept === JSON_TYPE ? JSON.parse(text) : text;
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
  const bearer = key ? '-H "authorization: Bearer $HOURGLASS_KEY" ' : "";
  return (
    `curl -s ${verb}${quoted(new URL(`v1/${path}`, BASE).href)} \\\n` +
    `  ${bearer}-H 'content-type: application/json' -d ${quoted(JSON.stringify(body))}`
  );
}
