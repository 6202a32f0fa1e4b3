// Draws /ui/state.json, once a second. No library, nothing from elsewhere, no markup from numbers.
"use strict";

const EVERY_MS = 1000;
const SPAN_S = 120;
const KEY = "paddock.key";
const THEME = "paddock.theme";

const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/* A browser may forbid a page to keep anything; then it is kept as long as the page is open. */

function keeper(kind) {
  try {
    const kept = window[kind];
    kept.getItem("");
    return kept;
  } catch {
    const kept = new Map();
    return {
      getItem: (name) => kept.get(name) ?? null,
      setItem: (name, value) => kept.set(name, value),
      removeItem: (name) => kept.delete(name),
    };
  }
}

const forTab = keeper("sessionStorage"), forEver = keeper("localStorage");

/* Words */

function count(n, one, many = one + "s") {
  return `${whole.format(n)} ${n === 1 ? one : many}`;
}

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1000 && i < units.length - 1) { n /= 1024; i += 1; }
  return [n >= 100 || i === 0 ? n.toFixed(0) : n.toFixed(1), units[i]];
}

function span(s) {
  if (s < 0.0995) return `${(s * 1000).toFixed(s < 0.00995 ? 1 : 0)} ms`;
  if (s < 100) return `${s.toFixed(s < 10 ? 2 : 1)} s`;
  return long(s);
}

function long(s) {
  s = Math.round(s);
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const at = parts.findIndex(([size]) => s >= size);
  if (at < 0) return "0 s";
  const first = Math.floor(s / parts[at][0]);
  const rest = at < 3 ? Math.floor((s % parts[at][0]) / parts[at + 1][0]) : 0;
  return `${first} ${parts[at][1]}` + (rest ? ` ${rest} ${parts[at + 1][1]}` : "");
}

function rate(n) {
  return n >= 10 || n === 0 ? whole.format(n) : n.toFixed(1);
}

/* Writing into the page: only what has changed, so that a selection or a focus stays. */

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function sayParts(element, main, small) {
  const whole = small ? `${main} ${small}` : main;
  if (element.dataset.said === whole) return;
  element.dataset.said = whole;
  element.replaceChildren(main);
  if (small) {
    const tail = document.createElement("small");
    tail.textContent = small;
    element.append(" ", tail);
  }
}

function keyed(parent, items, keyFor, make, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, i) => {
    const key = String(keyFor(item));
    let child = old.get(key);
    if (child) {
      old.delete(key);
    } else {
      child = make();
      child.dataset.key = key;
    }
    update(child, item);
    if (parent.children[i] !== child) parent.insertBefore(child, parent.children[i] || null);
  });
  old.forEach((child) => child.remove());
}

/* Speeds: from two looks at what was counted. A model that was loaded anew counts from nothing. */

const keyOf = (model) => [model.name, ...model.adapters].join(" ");
const history = [];
let before = null;

function speeds(state) {
  const told = new Map();
  let answers = 0, prompts = 0;
  for (const model of state.models) {
    const was = before && before.models.find((one) => keyOf(one) === keyOf(model));
    const dt = before ? state.now - before.now : 0;
    let answer = 0, prompt = 0;
    if (was && dt > 0.05) {
      const said = Math.max(0, (model.said || 0) - (was.said || 0));
      const computed = Math.max(0, (model.computed || 0) - (was.computed || 0));
      answer = said / dt;
      prompt = Math.max(0, computed - said) / dt;
    }
    told.set(keyOf(model), model.role === "embed" ? prompt : answer);
    answers += answer;
    prompts += prompt;
  }
  before = state;
  history.push({ at: state.now, answers, prompts });
  while (history.length && history[0].at < state.now - SPAN_S - 2) history.shift();
  // The large number is a mean of some seconds: one that jumps cannot be read.
  const lately = history.slice(-4);
  const steady = lately.reduce((sum, one) => sum + one.answers, 0) / lately.length;
  return { answers, prompts, steady, of: told };
}

/* The chart */

const WIDE = 1000, HIGH = 100;

function topOf(most) {
  const size = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
  return [1, 1.2, 1.5, 2, 3, 4, 5, 6, 8, 10].map((n) => n * size).find((n) => n >= most) || 10 * size;
}

function place(point, now, top) {
  const x = WIDE * (1 - (now - point.at) / SPAN_S);
  return (value) => `${x.toFixed(1)},${(HIGH - (HIGH * value) / top).toFixed(2)}`;
}

function draw(now) {
  const seen = history.filter((one) => one.at >= now - SPAN_S);
  const most = Math.max(...seen.map((one) => Math.max(one.answers, one.prompts)), 0);
  const top = topOf(Math.max(most * 1.05, 10));
  const plot = $("plot");
  plot.setAttribute("viewBox", `0 0 ${WIDE} ${HIGH}`);
  for (const name of ["answers", "prompts"]) {
    const points = seen.map((one) => place(one, now, top)(one[name]));
    $(`${name}-line`).setAttribute("d", points.length > 1 ? `M${points.join("L")}` : "");
    const first = seen.length && place(seen[0], now, top)(0);
    const last = seen.length && place(seen[seen.length - 1], now, top)(0);
    $(`${name}-area`).setAttribute("d", points.length > 1 ? `M${first}L${points.join("L")}L${last}Z` : "");
  }
  if (plot.dataset.top !== String(top)) {
    plot.dataset.top = top;
    const steps = [0, 0.5, 1];
    $("grid").replaceChildren(...steps.map((part) => {
      const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      const y = HIGH * (1 - part);
      for (const [name, value] of [["x1", 0], ["x2", WIDE], ["y1", y], ["y2", y]]) line.setAttribute(name, value);
      return line;
    }));
    $("scale").replaceChildren(...steps.map((part) => {
      const label = document.createElement("span");
      label.textContent = short.format(top * part);
      label.style.top = `${100 * (1 - part)}%`;
      return label;
    }));
  }
  $("chart-empty").hidden = most > 0;
  pointAt(pointed);
}

let pointed = null; // the share of the chart's width that is looked at

function pointAt(share) {
  pointed = share;
  const now = history.length ? history[history.length - 1].at : 0;
  const at = now - SPAN_S * (1 - (share ?? 0));
  const near = share === null ? null : history.reduce(
    (best, one) => (!best || Math.abs(one.at - at) < Math.abs(best.at - at) ? one : best), null);
  const isThere = near !== null && Math.abs(near.at - at) < 3;
  $("tip").hidden = !isThere;
  $("cursor").toggleAttribute("hidden", !isThere);
  if (!isThere) return;
  const x = 1 - (now - near.at) / SPAN_S;
  for (const [name, value] of [["x1", x * WIDE], ["x2", x * WIDE], ["y1", 0], ["y2", HIGH]]) {
    $("cursor").setAttribute(name, value);
  }
  const plot = $("plot").getBoundingClientRect(), chart = $("chart").getBoundingClientRect();
  const left = plot.left - chart.left + x * plot.width;
  say($("tip"), `${rate(near.answers)} answered · ${rate(near.prompts)} read`);
  const half = $("tip").offsetWidth / 2;
  $("tip").style.left = `${Math.min(Math.max(left, half), chart.width - half)}px`;
}

$("chart").addEventListener("pointermove", (event) => {
  const box = $("plot").getBoundingClientRect();
  pointAt(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
});
$("chart").addEventListener("pointerleave", () => pointAt(null));
$("chart").addEventListener("blur", () => pointAt(null));
$("chart").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  event.preventDefault();
  pointAt(Math.min(1, Math.max(0, (pointed ?? 1) + step / SPAN_S)));
});

/* The parts of the page */

function tiles(state, told) {
  say($("rate"), rate(told.steady));
  say($("answers-now"), rate(told.answers));
  say($("prompts-now"), rate(told.prompts));
  const all = state.totals;
  say($("rate-note"), `${short.format(all.said)} since it started`);

  say($("running"), whole.format(state.n_running));
  say($("queue-note"), state.n_waiting ? `${whole.format(state.n_waiting)} waiting` : "none waiting");

  const hasPrompts = all.prompt > 0;
  say($("reuse"), hasPrompts ? whole.format((100 * all.reused) / all.prompt) : "–");
  say($("reuse-unit"), hasPrompts ? "%" : "");
  say($("reuse-note"), hasPrompts
    ? `${short.format(all.reused)} of ${short.format(all.prompt)} tokens` : "no prompt was read yet");
  memory(state);
}

function memory(state) {
  const gpus = state.devices;
  const onDevice = gpus.length > 0;
  const total = onDevice ? gpus.reduce((sum, one) => sum + one.total, 0) : state.memory.total;
  const free = onDevice ? gpus.reduce((sum, one) => sum + one.free, 0) : state.memory.free;
  const sizes = state.models.map((one) => (onDevice ? one.device_bytes : one.host_bytes));
  const models = Math.min(sizes.reduce((sum, n) => sum + n, 0), total - free);
  const [amount, unit] = bytes(free);
  say($("free"), amount);
  say($("free-unit"), unit);
  const of = bytes(total).join(" "), held = bytes(models).join(" ");
  const where = onDevice ? (gpus.length > 1 ? ` on ${gpus.length} devices` : " on the device") : "";
  say($("memory-note"), `models hold ${held} of ${of}${where}`);
  $("memory").setAttribute("aria-label", `Models hold ${held}, ${amount} ${unit} of ${of} are free`);
  const parts = [["model-part", models], ["other-part", total - free - models], ["free-part", free]];
  keyed($("memory"), parts, ([name]) => name, () => document.createElement("i"), (part, [name, n]) => {
    part.className = name;
    part.style.flex = `0 1 ${((100 * n) / total).toFixed(2)}%`;
    part.hidden = n <= 0;
  });
}

function lives(model) {
  if (model.state === "loading") return "being loaded";
  const ready = model.ready_s === null ? "" : `for ${long(model.ready_s)}`;
  const loaded = model.load_s ? `, loaded in ${span(model.load_s)}` : "";
  if (model.pinned) return `here ${ready}${loaded}; pinned`;
  if (model.expires_s !== null) return `here ${ready}${loaded}; goes in ${long(model.expires_s)} unless asked`;
  return `here ${ready}${loaded}; ${model.users ? "in use" : "stays"}`;
}

function seats(card, model) {
  const n = Math.min(model.parallel, 32);
  const taken = Math.min(model.running, model.parallel);
  const box = card.querySelector(".seats");
  box.hidden = !n;
  while (box.children.length > n) box.lastChild.remove();
  while (box.children.length < n) box.append(document.createElement("i"));
  const shown = Math.ceil((taken * n) / model.parallel);
  [...box.children].forEach((seat, i) => seat.classList.toggle("taken", i < shown));
  const waiting = model.waiting ? `, ${whole.format(model.waiting)} waiting` : "";
  const text = n ? `${taken} of ${model.parallel} places taken${waiting}` : "";
  box.setAttribute("aria-label", text);
  say(card.querySelector(".seats-note"), text);
}

function figures(model, pace) {
  const quantiles = (told) => [told ? span(told.p50) : "–", told ? `95 %: ${span(told.p95)}` : ""];
  const share = (part, all) => (all ? `${whole.format((100 * part) / all)} %` : "–");
  const held = bytes(model.device_bytes || model.host_bytes).join(" ");
  const beside = model.device_bytes && model.host_bytes ? `and ${bytes(model.host_bytes).join(" ")} main` : "";
  if (model.role === "embed") {
    return [
      ["Tokens/s", rate(pace), ""],
      ["Texts", short.format(model.texts || 0), `${short.format(model.text_tokens || 0)} tokens`],
      ["Memory", held, beside],
    ];
  }
  return [
    ["Tokens/s", rate(pace), ""],
    ["First token", ...quantiles(model.first_token_s)],
    ["Each next", ...quantiles(model.between_tokens_s)],
    ["Memory", held, beside],
    ["KV cache used", share(model.cells || 0, model.n_cells), model.n_cells ? `of ${short.format(model.n_cells)} tokens` : ""],
    ["Prompts from it", share(model.reused || 0, model.prompt), ""],
  ];
}

function newFigure() {
  const box = document.createElement("div");
  box.append(document.createElement("dt"), document.createElement("dd"));
  return box;
}

function modelCard(card, model, pace) {
  const part = (name) => card.querySelector(`.${name}`);
  say(part("name"), model.name);
  say(part("state"), model.state);
  part("state").dataset.is = model.state;
  say(part("lives"), lives(model));
  seats(card, model);
  keyed(card.querySelector("dl"), figures(model, pace), ([name]) => name, newFigure, (box, [name, main, small]) => {
    say(box.firstChild, name);
    sayParts(box.lastChild, main, small);
  });
  const more = [
    model.placed, model.context && `context ${whole.format(model.context)}`,
    model.adapters.length && `with ${count(model.adapters.length, "adapter")}`, model.leased && "leased by a run",
  ];
  say(part("placed"), more.filter(Boolean).join(" · "));
  say(part("fallback"), model.fallback ? `It ${model.fallback}` : "");
}

function models(state, told) {
  keyed($("models"), state.models, keyOf,
    () => $("model-card").content.firstElementChild.cloneNode(true),
    (card, model) => modelCard(card, model, told.of.get(keyOf(model)) || 0));
  $("models-empty").hidden = state.models.length > 0;
  say($("models-count"), state.models.length ? count(state.models.length, "model") : "");
}

const CELLS = ["time", "what", "model-of", "tokens number", "seconds number", "status-of", "client"];

function newRow() {
  const row = document.createElement("tr");
  for (const name of CELLS) {
    const cell = document.createElement("td");
    cell.className = name;
    row.append(cell);
  }
  const method = document.createElement("small");
  row.children[1].append(method, document.createElement("span"));
  const status = document.createElement("span");
  status.className = "status";
  row.children[5].append(status);
  return row;
}

function grade(one) {
  if (!one.fate) return "live";
  if (one.status >= 500 || one.fate === "failed") return "bad";
  return one.status >= 400 || one.fate === "gone" ? "warn" : "good";
}

function fate(one) {
  if (!one.fate) return one.first_s ? "answering" : "under way";
  return one.fate === "gone" ? "left" : one.fate === "failed" ? `${one.status || 500} broke off` : String(one.status);
}

function fillRow(row, one) {
  const [time, what, model, tokens, seconds, status, client] = row.children;
  row.dataset.is = one.fate ? "" : "live";
  say(time, new Date(one.at * 1000).toLocaleTimeString("en-GB"));
  say(what.firstChild, one.method);
  say(what.lastChild, one.path);
  say(model, one.model || "");
  const n = one.prompt + one.completion;
  const reused = one.reused ? `(${whole.format(one.reused)} cached)` : "";
  const read = one.prompt ? whole.format(one.prompt) : "";
  const answered = one.completion ? ` → ${whole.format(one.completion)}` : "";
  say(tokens, n ? `${read}${answered}` : "");
  tokens.title = n ? `${whole.format(one.prompt)} read ${reused}, ${whole.format(one.completion)} answered` : "";
  say(seconds, one.seconds.toFixed(one.seconds < 10 ? 2 : 1));
  say(status.firstChild, fate(one));
  status.firstChild.dataset.is = grade(one);
  say(client, one.key || one.client);
}

function requests(state) {
  const newest = (some) => [...some].sort((a, b) => b.id - a.id);
  const rows = [...newest(state.under_way), ...newest(state.last)];
  keyed($("rows"), rows, (one) => one.id, newRow, fillRow);
  $("rows-empty").hidden = rows.length > 0;
  say($("requests-count"), state.under_way.length ? `${whole.format(state.under_way.length)} under way` : "");
}

function totals(state) {
  const all = state.totals;
  const parts = [
    `Up for ${long(state.up_s)}`, count(all.answers, "answer"), all.texts && count(all.texts, "embedded text"),
    count(all.loads, "load"), all.evictions && count(all.evictions, "eviction"),
    all.deaths && count(all.deaths, "dead worker"), all.refused && `${whole.format(all.refused)} refused`,
  ];
  say($("totals"), parts.filter(Boolean).join(" · "));
  say($("version"), state.version);
}

function show(state) {
  const told = speeds(state);
  tiles(state, told);
  draw(state.now);
  models(state, told);
  requests(state);
  totals(state);
  document.title = state.n_running ? `(${state.n_running}) Paddock` : "Paddock";
}

/* Asking */

function link(is, text) {
  document.body.dataset.link = is;
  say($("link-text"), text);
}

async function ask() {
  const key = forTab.getItem(KEY);
  const answer = await fetch("/ui/state.json", {
    headers: key ? { Authorization: `Bearer ${key}` } : {},
    cache: "no-store",
    signal: AbortSignal.timeout(8000),
  });
  if (answer.status === 401) {
    // Of a key that was given meanwhile this answer says nothing.
    if (forTab.getItem(KEY) === key) askForKey(Boolean(key));
    else isDue = true;
    return;
  }
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  show(await answer.json());
  $("forget").hidden = !key;
  link("live", "Live");
}

function askForKey(wasWrong) {
  forTab.removeItem(KEY);
  link("locked", "Locked");
  $("forget").hidden = true;
  if ($("ask").open) return;
  $("ask-wrong").hidden = !wasWrong;
  $("key").value = "";
  $("ask").showModal();
}

$("ask-form").addEventListener("submit", () => {
  forTab.setItem(KEY, $("key").value.trim());
  $("key").value = "";
  look();
});
$("ask").addEventListener("cancel", (event) => event.preventDefault());
$("ask").addEventListener("close", () => { if (!forTab.getItem(KEY)) look(); });
$("forget").addEventListener("click", () => askForKey(false));

let timer = 0, lostAt = 0, isAsking = false, isDue = false;

async function look() {
  clearTimeout(timer);
  if (isAsking) {
    isDue = true;
    return;
  }
  isAsking = true;
  isDue = false;
  try {
    await ask();
    lostAt = 0;
  } catch {
    lostAt = lostAt || Date.now();
    link("lost", `No answer for ${long((Date.now() - lostAt) / 1000 + 1)}; trying again`);
  } finally {
    isAsking = false;
  }
  // A page that nobody sees asks for nothing; a locked one waits for its key.
  if (isDue && !$("ask").open) look();
  else if (!document.hidden && !$("ask").open) timer = setTimeout(look, EVERY_MS);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });

/* Colours */

const THEMES = { "": "as the system has them", light: "light", dark: "dark" };

function paint(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  $("theme").setAttribute("aria-label", `Colours: ${THEMES[theme]}`);
  $("theme").title = `Colours: ${THEMES[theme]}`;
}

$("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(document.documentElement.dataset.theme || "") + 1) % names.length];
  forEver.setItem(THEME, next);
  paint(next);
});

paint(forEver.getItem(THEME) in THEMES ? forEver.getItem(THEME) : "");
look();
