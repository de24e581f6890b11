// The console: which view is shown of which model, as the URL says, and the keys that lead there.
import { ask, AWAY, BASE, keptKey, Problem, useKey } from "./api.js";
import { node } from "./charts/frame.js";
import { button, failure, stepping } from "./parts.js";
import { counted, duration, number, percent } from "./charts/words.js";

// In the order of the menu; one is shown where the server has its module.
const VIEWS = [
  ["budget", "b"],
  ["alarms", "a"],
  ["explain", "e"],
  ["time", "t"],
  ["drift", "d"],
  ["models", "m"],
  ["map", "p"],
  ["learn", "l"],
];
const WITHOUT_MODEL = ["learn"];
const LOOK_SECONDS = 5;
const STALE_SECONDS = 15;

const root = document.documentElement;
const place = (id) => document.getElementById(id);
const present = VIEWS.filter(([name]) => root.dataset.views.split(" ").includes(name));
const readOnly = root.dataset.readOnly === "true";

let models = null; // the last answer of /v1/models
let seen = 0; // when it came
let shown = null; // {model, view, leave} of the view on the page
let turn = 0; // counts navigations, so that a late one draws nothing

/** Where the URL leads: #/MODEL/VIEW?key=value. */
function where() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [model, view] = path.split("/").map(decodeURIComponent);
  return { model, view, state: Object.fromEntries(new URLSearchParams(query)) };
}

function address(model, view, state = {}) {
  const query = new URLSearchParams(state).toString();
  return `#/${encodeURIComponent(model ?? "-")}/${view}${query && `?${query}`}`;
}

async function look() {
  try {
    models = await ask("GET", "models");
    seen = Date.now();
  } catch (error) {
    if (models === null || error.status === 401) throw error;
  }
  drawLive();
}

async function lookAgain() {
  if (document.hidden) return;
  const waited = models !== null && models.models.length === 0;
  try {
    await look();
  } catch (problem) {
    // of all else the view says that nothing came
    if (problem.status === 401 && !document.querySelector("input[type=password]")) {
      models = null;
      navigate();
    }
    return;
  }
  if (waited && models.models.length > 0 && !WITHOUT_MODEL.includes(shown?.view)) navigate();
}

function drawLive() {
  const age = (Date.now() - seen) / 1000;
  const stale = age > STALE_SECONDS;
  const words = seen ? `stale: no answer for ${duration(age)}` : "no answer yet";
  const live = place("live");
  if (stale && live.className === "live") place("said").textContent = words;
  live.className = stale ? "stale" : "live";
  const text = stale ? words : "live";
  if (live.textContent !== text) live.textContent = text;
}

async function navigate() {
  const mine = ++turn;
  const asked = where();
  try {
    if (models === null) await look();
  } catch (problem) {
    return drawFailed(problem);
  }
  const names = models.models.map(({ name }) => name);
  const model = asked.model && asked.model !== "-" ? asked.model : (names[0] ?? null);
  const view = present.some(([name]) => name === asked.view) ? asked.view : present[0][0];
  if (model !== asked.model || view !== asked.view) {
    history.replaceState(null, "", address(model, view, asked.view === view ? asked.state : {}));
  }
  drawHeader(model, view);
  drawKey();
  const main = place("view");
  const heading = node("h1", { tabindex: "-1" }, "…");
  const body = node("div", { class: `view ${view}` }, node("p.state", "Loading."));
  const again = shown !== null;
  shown?.leave();
  const stop = new AbortController();
  const clocks = [];
  let finish = null;
  shown = { model, view, leave: () => (stop.abort(), clocks.forEach(clearInterval), finish?.()) };
  main.replaceChildren(heading, body);
  const state = { ...asked.state };
  const request = (method) => (path, sent) =>
    ask(method, path, { body: sent, signal: stop.signal });
  const context = {
    model,
    models: models.models,
    readOnly,
    state,
    base: BASE,
    signal: stop.signal,
    get: request("GET"),
    post: request("POST"),
    patch: request("PATCH"),
    set(changes, { push = false } = {}) {
      for (const [key, value] of Object.entries(changes)) {
        if (value === null || value === undefined) delete state[key];
        else state[key] = String(value);
      }
      history[push ? "pushState" : "replaceState"](null, "", address(model, view, state));
    },
    go(to, toState = {}, toModel = model) {
      location.hash = address(toModel, to, toState);
    },
    again: navigate,
    title(text) {
      heading.replaceChildren(node("span", text));
      document.title = [text, model, "Hourglass"].filter(Boolean).join(" · ");
    },
    say(text) {
      place("said").textContent = text;
    },
    every(seconds, call) {
      clocks.push(setInterval(() => document.hidden || call(), 1000 * seconds));
    },
  };
  try {
    const module = await import(`./views/${view}.js`).catch(() => {
      throw new Problem(...AWAY);
    });
    if (mine !== turn) return undefined;
    context.title(module.title);
    const needsModel = !WITHOUT_MODEL.includes(view);
    if (needsModel && model === null) return drawEmpty(body);
    context.detail =
      model === null || (!needsModel && !names.includes(model))
        ? null
        : await context.get(`models/${model}`);
    if (mine !== turn) return undefined;
    body.replaceChildren();
    finish = (await module.show(body, context)) ?? null;
    if (mine !== turn) finish?.();
    else if (again) heading.focus({ preventScroll: true });
  } catch (problem) {
    if (mine === turn && problem.name !== "AbortError") drawFailed(problem, body);
  }
  return undefined;
}

function drawEmpty(body) {
  const { broken, waiting } = models;
  body.replaceChildren(
    node(
      "p.state",
      "No model yet: ",
      node("code", "make demo"),
      " fits one and serves it; ",
      node("code", "hourglass-train fit"),
      " makes one of your rows.",
    ),
    ...broken.map(({ name, last_error: error }) => node("p.state.failed", `${name}: ${error}`)),
    waiting.length ? node("p.state", `Not read yet: ${waiting.join(", ")}.`) : "",
  );
}

function drawFailed(problem, body = place("view")) {
  const known = problem instanceof Problem;
  if (!known) console.error(problem);
  if (problem.status === 401) return drawLocked(problem);
  body.replaceChildren(
    failure(known ? problem : { title: "The console itself failed", detail: String(problem) }),
  );
  body.firstChild.append(button("Try again", navigate));
  return undefined;
}

/** Asks for a key, which this tab keeps until it is closed, and which is never in an address. */
function drawLocked(problem) {
  shown?.leave();
  shown = null;
  const field = node("input", {
    type: "password",
    "aria-label": "Key",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
  });
  const form = node(
    "form.state",
    node("h1", node("span", "This service asks for a key")),
    keptKey() ? node("p.failed", { role: "alert" }, problem.detail) : "",
    node("p.row", field, node("button.main", "Use it")),
    node("p.quiet", "It stays in this tab until the tab is closed."),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    useKey(field.value.trim());
    navigate();
  });
  place("view").replaceChildren(form);
  drawKey();
  field.focus();
}

function drawKey() {
  place("key").hidden = !keptKey();
}

function forgetKey() {
  useKey(null);
  location.reload();
}

function drawHeader(model, view) {
  place("model").replaceChildren(
    node("span", model ?? "no model"),
    node("span.quiet", { "aria-hidden": "true" }, " ▾"),
  );
  place("model").setAttribute("aria-label", `Model: ${model ?? "none"}. Choose another`);
  place("menu").replaceChildren(
    ...present.map(([name, key]) =>
      node(
        "a",
        {
          href: address(model, name),
          "aria-current": name === view ? "page" : null,
          "aria-keyshortcuts": `g ${key}`,
        },
        label(name),
      ),
    ),
  );
  place("menu")
    .querySelector("[aria-current]")
    .scrollIntoView({ block: "nearest", inline: "nearest" });
}

function label(name) {
  return name[0].toUpperCase() + name.slice(1);
}

function openModels() {
  const find = node("input", {
    type: "search",
    placeholder: "Find a model",
    "aria-label": "Find a model",
  });
  const list = node("ul.choices");
  const dialog = openDialog("Models", find, list);
  const draw = () => {
    const found = (models?.models ?? []).filter(({ name }) =>
      name.includes(find.value.trim().toLowerCase()),
    );
    list.replaceChildren(
      ...found
        .slice(0, 200)
        .map((each) =>
          node(
            "li",
            node(
              "button",
              { type: "button", onclick: () => choose(each.name) },
              node("strong", each.name),
              node(
                "span.quiet",
                ` α ${percent(each.alpha)}, ${each.guarantee}, `,
                counted(each.feature_count, "feature"),
              ),
              each.warning || each.last_error
                ? node("span.warns", ` ${each.warning ?? each.last_error}`)
                : null,
            ),
          ),
        ),
      found.length > 200 ? node("li.quiet", `and ${number(found.length - 200, 6)} more`) : "",
      found.length === 0 ? node("li.quiet", "No such model is served.") : "",
      ...(models?.broken ?? [])
        .filter(({ name }) => name.includes(find.value.trim().toLowerCase()))
        .map(({ name, last_error: error }) =>
          node("li.broken", node("strong", name), ` is not served: ${error}`),
        ),
    );
  };
  const choose = (name) => {
    dialog.close();
    location.hash = address(name, shown?.view ?? present[0][0]);
  };
  find.addEventListener("input", draw);
  find.addEventListener("keydown", (event) => {
    if (event.key === "Enter") list.querySelector("button")?.click();
    if (event.key === "ArrowDown") list.querySelector("button")?.focus();
  });
  stepping(list, find);
  draw();
  find.focus();
}

function openHelp() {
  const keys = [
    ["/", "find a model"],
    ...present.map(([name, key]) => [`g ${key}`, label(name)]),
    ["↑ ↓", "step through alarms and rows"],
    ["← → ↑ ↓", "on the map, the heatmap, the lanes and the latent plane: move"],
    ["Shift ← →", "on the lanes: widen the span of time"],
    ["?", "these keys"],
    ["Esc", "close"],
  ];
  openDialog(
    "Keys",
    node(
      "dl.keys",
      keys.flatMap(([key, what]) => [node("dt", node("kbd", key)), node("dd", what)]),
    ),
  );
}

function openDialog(name, ...content) {
  document.querySelector("dialog")?.close();
  const dialog = node(
    "dialog",
    { "aria-label": name },
    node("h2", name),
    ...content,
    button("Close", () => dialog.close()),
  );
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

let wentAt = 0; // when g was pressed

function onKey(event) {
  const typing = event.target.closest(
    "input:not([type=range]), textarea, select, [contenteditable]",
  );
  if (
    typing ||
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    document.querySelector("dialog[open]")
  )
    return;
  const view = Date.now() - wentAt < 1500 && present.find(([, key]) => key === event.key);
  wentAt = 0;
  if (view) location.hash = address(shown?.model, view[0]);
  else if (event.key === "g") wentAt = Date.now();
  else if (event.key === "/") openModels();
  else if (event.key === "?") openHelp();
  else return;
  event.preventDefault();
}

function drawTheme() {
  place("theme").textContent = `Theme: ${root.dataset.theme ?? "system"}`;
}

function switchTheme() {
  const next = { undefined: "light", light: "dark", dark: undefined }[root.dataset.theme];
  if (next) root.dataset.theme = next;
  else delete root.dataset.theme;
  try {
    if (next) localStorage.setItem("hourglass-theme", next);
    else localStorage.removeItem("hourglass-theme");
  } catch {
    // kept for this page alone
  }
  drawTheme();
}

place("model").addEventListener("click", openModels);
place("help").addEventListener("click", openHelp);
place("theme").addEventListener("click", switchTheme);
place("key").addEventListener("click", forgetKey);
place("version").textContent = `Hourglass ${root.dataset.version}${readOnly ? ", read only" : ""}`;
document.addEventListener("keydown", onKey);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  place("view").focus();
});
addEventListener("hashchange", navigate);
// a file dropped beside its place is not to replace the page
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());
setInterval(lookAgain, 1000 * LOOK_SECONDS);
setInterval(drawLive, 1000);
document.addEventListener("visibilitychange", lookAgain);
drawTheme();
navigate();
