// The review page. No library, nothing from elsewhere; texts of documents are never markup.
"use strict";

const API = "/review/api";
const POLL_MS = 3000, AWAY_MS = 1500, RENEW_MS = 40000, CHECK_MS = 250;
const ROW_PX = 52, SPARE_ROWS = 8, LEAD_CHARS = 1500;
const DRAFT = "paddock.review.draft.";
const UNUSED_MS = 600000;
const LOW = 0.6, MIDDLE = 0.85; // how the bar of a confidence is coloured
const RIVAL = 0.1; // a second value is shown from this part of the first one's probability on

const $ = (id) => document.getElementById(id);

// A name with marks of direction would read otherwise than it is.
const plainName = (words) => words.replace(/[\u202a-\u202e\u2066-\u2069]/g, (mark) => `\\u${mark.charCodeAt(0).toString(16)}`);

function make(tag, words = "", kind = "") {
  const made = document.createElement(tag);
  if (words) made.textContent = plainName(words);
  if (kind) made.className = kind;
  return made;
}

function button(words, act) {
  const made = make("button", words);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

function show(element, words) {
  element.textContent = words;
  element.hidden = !words;
}

const count = (n, one, many = one + "s") => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
const date = (s) => new Date(s * 1000).toLocaleDateString([], { day: "numeric", month: "short" });
const day = (s) => new Date(s * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

/* A browser may forbid a page to keep anything; then it is kept as long as the page is open. */

const kept = (() => {
  try {
    sessionStorage.getItem("");
    return sessionStorage;
  } catch {
    const values = new Map();
    return {
      getItem: (name) => values.get(name) ?? null,
      setItem: (name, value) => values.set(name, value),
      removeItem: (name) => values.delete(name),
    };
  }
})();

function keepDraft(id, draft) {
  try {
    if (draft) kept.setItem(DRAFT + id, JSON.stringify(draft));
    else kept.removeItem(DRAFT + id);
  } catch { /* full: the open form still has it */ }
}

function draftOf(id) {
  try { return JSON.parse(kept.getItem(DRAFT + id)) || {}; } catch { return {}; }
}

const DECIDED = ["accepted", "edited", "rejected"];

/* What the page knows */

const page = {
  me: "",
  view: "waiting",
  waiting: [],
  decided: [],
  rows: [], // those of the view that pass the filter
  at: -1,
  id: "",
  review: null,
  field: 0,
  mode: "read", // or "edit"
  changes: {},
  places: {}, // field → bounds in the text of what was clicked for it
  marks: {}, // key of what is left over → "never" or "always"
  spot: null, // what is left over, shown in place of the chosen field
  asJson: false,
  isBusy: false,
  wantsText: false,
  source: 0,
  pictures: {}, // source/page → the address of its picture
  number: 1, // of the page of the document
  done: [], // ids that were decided here, the newest last
  times: [],
  mark: "", // of the queue as it was sent last
  n: 0, // of changes made here
  looked: "", // the queue's mark and the review for which the page looked again
  isAway: false,
  isLoading: false, // the document of the open review is not shown yet
  unsent: null, // a decision that the server has not confirmed
};

/* The server */

class Away extends Error {}
class Refused extends Error {
  constructor(status, words) { super(words); this.status = status; }
}

async function call(path, body, more = {}) {
  const headers = { ...more.headers };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const wish = { method: body === undefined ? "GET" : "POST", headers, keepalive: Boolean(more.isLast) };
  if (body !== undefined) wish.body = JSON.stringify(body);
  let answer;
  try { answer = await fetch(API + path, wish); } catch { throw new Away(); }
  if (answer.ok || answer.status === 304) return answer;
  let words = `The server answers with status ${answer.status}.`;
  try {
    const told = (await answer.json()).error;
    words = told?.message ?? told ?? words;
  } catch { /* no JSON */ }
  if (answer.status === 401) askForToken(words);
  throw new Refused(answer.status, words);
}

const read = async (path) => (await call(path)).json();
const write = async (path, body = {}, more = {}) => (await call(path, body, more)).json();
const ofReview = (id, act = "") => `/reviews/${encodeURIComponent(id)}${act}`;

function askForToken(words) {
  show($("token-why"), words);
  if (!$("token-dialog").open) $("token-dialog").showModal();
}

function setAway(isAway) {
  if (isAway === page.isAway) return;
  page.isAway = isAway;
  const unsent = page.unsent ? " Your decision was not confirmed; it is sent again then." : "";
  show($("away"), isAway
    ? `The server does not answer. What you typed stays here, and the page goes on when it is back.${unsent}`
    : "");
}

/* The queue */

async function refresh() {
  let answer;
  const n = page.n;
  try {
    answer = await call("/queue", undefined, { headers: page.mark ? { "If-None-Match": page.mark } : {} });
  } catch (error) {
    if (error instanceof Away) setAway(true);
    else if (error.status !== 401) { // such as a ledger that cannot be read now
      page.isAway = true;
      show($("away"), error.message);
    }
    return;
  }
  const wasAway = page.isAway;
  setAway(false);
  if (wasAway) await resend();
  if (wasAway && page.id && page.review?.id !== page.id) reload(); // it could not be opened
  if (answer.status === 304 || n !== page.n) return; // a list from before a decision is old
  const told = await answer.json();
  if (n !== page.n) return;
  page.mark = answer.headers.get("ETag") || "";
  page.me = told.by;
  page.waiting = told.rows;
  show($("who"), `You decide as ${told.by}.`);
  if (page.view === "waiting") listRows();
  notice();
  pace();
}

async function refreshDecided() {
  try { page.decided = (await read("/decided")).rows; } catch (error) { failed(error); }
  if (page.view === "decided") listRows();
}

function listRows() {
  const wanted = $("filter").value.trim().toLowerCase();
  const all = page.view === "waiting" ? page.waiting : page.decided;
  const least = Number($("least").value);
  page.rows = all.filter((row) => (!least || (row.least ?? -1) >= least)
    && (!wanted || `${row.item} ${row.folder || ""} ${row.step} ${row.pipeline} ${row.by || ""}`.toLowerCase().includes(wanted)));
  tellCounts();
  const at = page.rows.findIndex((row) => row.id === page.id);
  if (at >= 0) page.at = at;
  show($("queue-empty"), page.rows.length ? "" : emptyWords(all.length));
  drawRows();
  if (page.rows.length && (at < 0 && !page.id)) open(free(0));
}

// What a decision answers is read as that says, not accepted as the model had it.
const acceptable = () => (page.view === "waiting" ? page.rows.filter((row) => !row.answered) : []);

function tellCounts() {
  const n = acceptable().length;
  $("accept-all").disabled = !n;
  $("accept-all").textContent = n ? `Accept all ${n.toLocaleString("en")}` : "Accept all";
  $("n-waiting").textContent = page.waiting.length.toLocaleString("en");
  $("rows").style.height = `${page.rows.length * ROW_PX}px`;
}

function narrow() { // what is seen is what is decided: one that the filter leaves out is closed
  listRows();
  if (page.rows.some((row) => row.id === page.id)) return;
  page.id = "";
  if (page.rows.length) open(free(0));
  else clear();
}

function emptyWords(n) {
  if (n) return `Nothing passes the filter; ${n.toLocaleString("en")} without it.`;
  return page.view === "waiting"
    ? "Nothing waits for review. Items appear here as runs ask."
    : "Nothing has been decided yet.";
}

function drawRows() {
  const box = $("queue");
  const first = Math.max(0, Math.floor(box.scrollTop / ROW_PX) - SPARE_ROWS);
  const last = Math.min(page.rows.length, Math.ceil((box.scrollTop + box.clientHeight) / ROW_PX) + SPARE_ROWS);
  const made = [];
  for (let at = first; at < last; at += 1) made.push(drawnRow(page.rows[at], at));
  $("rows").replaceChildren(...made);
  const on = page.rows[page.at]?.id === page.id && page.at >= first && page.at < last;
  if (on) box.setAttribute("aria-activedescendant", `row-${page.at}`);
  else box.removeAttribute("aria-activedescendant");
}

function drawnRow(row, at) {
  const made = make("div", "", "row");
  made.id = `row-${at}`;
  made.setAttribute("role", "option");
  made.setAttribute("aria-selected", String(row.id === page.id));
  made.setAttribute("aria-setsize", page.rows.length);
  made.setAttribute("aria-posinset", at + 1);
  made.style.top = `${at * ROW_PX}px`;
  const words = rowWords(row);
  made.append(make("b", row.item), make("small", words));
  made.title = words;
  made.addEventListener("click", () => open(at));
  return made;
}

function rowWords(row) {
  if (row.state !== "open") return `${row.by ? `${row.state} by ${row.by}` : row.state}, ${day(row.decided_at)}`;
  if (row.answered) return `Read as you decided on ${row.answered}: the next run goes on with it`;
  if (isTaken(row)) return `${row.lease} looks at this`;
  const again = row.is_again ? "asked again, " : "";
  const until = row.expires_at ? `, until ${date(row.expires_at)}` : "";
  const why = row.due?.length ? row.due.join("; ") : `${row.step}, ${row.pipeline}`;
  return `${row.folder ? `${row.folder}: ` : ""}${again}${why}${until}`;
}

const isTaken = (row) => Boolean(row.lease && row.lease !== page.me && row.lease_until * 1000 > Date.now());

function free(from) { // the first item from here on that no one else looks at
  const isFree = (at) => !isTaken(page.rows[at]) && !page.rows[at].answered;
  for (let at = from; at < page.rows.length; at += 1) if (isFree(at)) return at;
  for (let at = Math.min(from, page.rows.length) - 1; at >= 0; at -= 1) if (isFree(at)) return at;
  return Math.min(from, page.rows.length - 1);
}

function reveal() {
  const box = $("queue"), top = page.at * ROW_PX;
  if (top < box.scrollTop) box.scrollTop = top;
  else if (top + ROW_PX > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW_PX - box.clientHeight;
  drawRows();
}

function pace() {
  const n = page.done.reduce((sum, one) => sum + (one.n || 1), 0), left = page.waiting.filter((row) => !row.answered).length;
  $("bar").setAttribute("aria-valuemax", n + left);
  $("bar").setAttribute("aria-valuenow", n);
  $("bar").firstElementChild.style.width = n + left ? `${(100 * n) / (n + left)}%` : "0";
  const words = [`${count(n, "decision")} here`, left ? `${left.toLocaleString("en")} left` : "nothing left"];
  if (page.times.length > 1) {
    const some = page.times.slice(-20);
    const minutes = (some.at(-1) - some[0]) / 60000 / (some.length - 1);
    const rate = 1 / Math.max(minutes, 1 / 600);
    words.push(`${rate < 10 ? rate.toFixed(1) : Math.round(rate)} a minute`);
    if (left) words.push(`about ${count(Math.max(1, Math.round(left * minutes)), "minute")}`);
  }
  $("left").textContent = words.join(", ");
}

/* One review */

async function open(at) {
  const row = page.rows[at];
  if (!row) return;
  leaveLast(row.id);
  page.at = at;
  page.id = row.id;
  reveal();
  problem("");
  if (page.review?.id !== row.id) emptyReview(row.item);
  let review;
  try { review = await read(ofReview(row.id)); } catch (error) { return failed(error); }
  if (page.id !== row.id) return; // another one was opened meanwhile
  take(review);
}

function emptyReview(item) { // nothing of one item stands under the title of another
  page.review = null;
  leaseWords = "";
  for (const id of ["fields", "notices", "earlier"]) $(id).replaceChildren();
  $("notices").dataset.key = "";
  show($("calibration"), "");
  show($("answers"), "");
  $("document-name").textContent = plainName(item);
  $("asked").textContent = "";
  $("document-tools").hidden = true;
  show($("document-note"), "");
  emptyPane("");
  setMode("read");
}

function take(review) {
  const isSame = page.review !== null && identity(page.review) === identity(review);
  page.review = review;
  const draft = draftOf(review.id);
  if (!isSame) {
    page.spot = review.state === "open" ? review.left[0] || null : null;
    page.field = doubtful(review);
    page.source = 0;
    page.number = 1;
    forgetPictures();
  }
  page.spot = review.left.find((one) => one.path === page.spot?.path) || null;
  page.field = Math.min(page.field, Math.max(0, review.fields.length - 1));
  page.changes = draft.changes || {};
  const isSameQuestion = draft.question === review.question; // another document has others
  page.places = isSameQuestion ? draft.places || {} : { ...review.places };
  page.marks = isSameQuestion ? draft.marks || {} : { ...review.marks };
  page.asJson = draft.json !== undefined;
  $("document-name").textContent = plainName(review.item);
  $("asked").textContent = plainName([review.folder, review.step, review.pipeline].filter(Boolean).join(", "));
  drawSources();
  drawFields();
  drawEarlier();
  setMode(draft.isOpen && review.state === "open" ? "edit" : "read");
  notice();
  seek();
  renew();
  if (page.mode === "read") foretell();
}

const identity = (review) => `${review.id} ${review.question}`; // copies of a document have one question

function doubtful(review) { // what is new opens it, no text shows it, or the model was least sure of it
  const is = [(field) => page.spot?.fields.includes(field.keys[0]), (field) => field.evidence?.match === "none"];
  const isNumber = (field) => field.kind === "number" && is[0](field) && /\d/.test(page.spot.text);
  const at = [isNumber, ...is].map((isSo) => review.fields.findIndex(isSo)).find((found) => found >= 0);
  if (at !== undefined) return at;
  let least = 0, p = 2;
  review.fields.forEach((field, at) => { if ((field.confidence?.p ?? 2) < p) { least = at; p = field.confidence.p; } });
  return least;
}

async function reload(words = "") {
  const id = page.id;
  if (!id) return;
  try {
    const review = await read(ofReview(id));
    if (page.id !== id) return;
    take(review);
    if (words) $("said").textContent = words;
  } catch (error) { failed(error); }
}

/* A lease for the open item, which no one else decides meanwhile. */

let leased = "", leaseWords = "", usedAt = Date.now();

async function renew() {
  const review = page.review;
  if (Date.now() - usedAt > UNUSED_MS) return; // a forgotten page keeps no item from others
  leaseWords = "";
  if (!review || review.state !== "open" || review.refusal) return;
  try {
    await write(ofReview(review.id, "/lease"));
    leased = review.id;
  } catch (error) {
    if (error instanceof Refused && error.status === 409) leaseWords = error.message;
  }
  if (page.review?.id === review.id) notice();
}

function leaveLast(next, isLast = false) {
  if (!leased || leased === next) return;
  write(ofReview(leased, "/release"), {}, { isLast }).catch(() => {});
  leased = "";
}

function notice() {
  const review = page.review, words = [];
  if (!review) return;
  const row = page.waiting.find((one) => one.id === review.id);
  words.push(...new Set([review.refusal, leaseWords].filter(Boolean)));
  if (row?.answered) words.push(`${rowWords(row)}.`);
  const isOld = review.state === "open" ? !row || !review.question.startsWith(row.question) || hasOtherTerms(review, row) : Boolean(row);
  const look = `${page.mark} ${review.id}`;
  if (isOld && page.mark && !page.isBusy && page.looked !== look) { // once for each state of the queue
    page.looked = look;
    reload(row ? `${review.item} is asked again: its document, its answer, its decision or its terms were changed.` : "");
    return;
  }
  if (review.state !== "open") {
    const why = review.reason ? `: ${review.reason}` : "";
    const then = review.is_applied ? "" : " The next run goes on with it.";
    const who = review.by ? ` by ${review.by}` : "";
    words.push(`${review.state[0].toUpperCase()}${review.state.slice(1)}${who}, ${day(review.decided_at)}${why}.${then}`);
  }
  if (review.expires_at && review.state === "open") words.push(`Decide until ${day(review.expires_at)}; then it is ${{ accept: "accepted", skip: "skipped" }[review.on_expiry] || "set aside"}.`);
  const due = review.due || [], key = JSON.stringify([review.id, review.state, words, due, page.marks, page.spot]);
  if ($("notices").dataset.key === key) return allow(); // what is open in it stays open
  $("notices").dataset.key = key;
  $("notices").replaceChildren(...words.map((one) => make("p", one)), ...drawnLeft(review), ...drawnReasons(due, review));
  if (review.together && review.state === "accepted") {
    const all = button("Undo all that were accepted together", () => undoAll({ together: [review.together] }));
    all.disabled = Boolean(review.refusal);
    $("notices").append(all);
  }
  allow();
}

/* What is left over on the paper, and what a person says of it */

const SAID = { never: "never matters here", always: "asked each time" };

function keyed(words, key, isOn = false) {
  const made = button(`${words} `, KEYS[key]);
  made.disabled = Boolean(refusal());
  made.setAttribute("aria-pressed", String(isOn));
  made.append(make("kbd", key));
  return made;
}

function drawnLeft({ left, state }) {
  const made = left.map((one) => {
    const isOn = one === page.spot, mark = page.marks[one.key], box = make("div", "", isOn ? "left on" : "left");
    const line = make("p", one.is_missing ? "Missing: " : "New on this paper: ");
    line.append(make("b", `“${one.text}”`), mark ? `, ${SAID[mark]}` : "");
    line.addEventListener("click", () => look(one));
    box.append(line);
    if (isOn && state === "open") box.append(keyed("It changes a field", "e"),
      keyed("It never matters here", "n", mark === "never"), keyed("Ask each time", "a", mark === "always"));
    return box;
  });
  if (state === "open" && left[1]) made[left[4] ? "unshift" : "push"](keyed("Free letters: always ask", "A"));
  return made;
}

function look(one) { // at what is left over
  page.spot = one;
  if (!one.fields.includes(field()?.keys[0])) page.field = doubtful(page.review);
  drawFields();
  notice();
  seek();
}

function say(mark, some = [page.spot]) { // the same once more takes it back
  if (!some[0] || !openReview() || !mayDecide()) return;
  const isSaid = some.every((one) => page.marks[one.key] === mark);
  for (const one of some) page.marks[one.key] = isSaid ? undefined : mark;
  keepDraft(page.id, { ...draftOf(page.id), ...draftNow() });
  if (page.mode === "read") foretell();
  const { left } = page.review, from = left.indexOf(page.spot);
  look([...left.slice(from), ...left].find((one) => !page.marks[one.key]) || page.spot || left[0]);
}

function drawnReasons(due, { when, left }) {
  const made = [];
  if (due.length) {
    const list = make("ul"), box = make(left.length ? "details" : "div");
    list.append(...due.map((one) => make("li", one)));
    box.append(make(left.length ? "summary" : "p", "Asked because:"), list);
    made.push(box);
  }
  if (when && !["true", "unsure"].includes(when)) {
    const rule = make("details");
    rule.append(make("summary", "The condition"), make("code", when));
    made.push(rule);
  }
  return made;
}

// Rows lack what has no value.
const hasOtherTerms = (review, row) => ["reviewers", "due", "expires_at"]
  .some((name) => JSON.stringify(review[name] ?? null) !== JSON.stringify(row[name] ?? null));

// Why the open review cannot be decided by this person now.
const refusal = () => page.review?.refusal || leaseWords;

function allow() {
  const review = page.review, isOpen = Boolean(review && review.id === page.id && review.state === "open");
  const why = isOpen ? refusal() : "";
  for (const id of ["accept", "change", "reject"]) {
    $(id).disabled = !isOpen || Boolean(why);
    $(id).title = why;
  }
  if (mayReplace()) $("change").disabled = false;
  if (isOpen && !why && page.isLoading) {
    $("accept").disabled = true;
    $("accept").title = "The document is being loaded.";
  }
  const isOfOthers = page.view === "decided" && Boolean(review?.refusal);
  $("undo").disabled = isOfOthers;
  $("undo").title = isOfOthers ? review.refusal : "";
}

const mayReplace = () => Boolean(page.review?.id === page.id && page.review.state !== "open" && !page.review.refusal);

function mayDecide() { // else the reason is shown
  const review = openReview();
  if (review && refusal()) problem(refusal());
  return Boolean(review && !refusal());
}

function problem(words) { show($("problem"), words); }

function failed(error) {
  if (error instanceof Away) setAway(true);
  else if (error instanceof Refused) { if (error.status !== 401) problem(error.message); }
  else throw error;
}

/* The fields */

function drawFields() {
  const review = page.review;
  const made = review.fields.map((field, at) => drawnField(field, at));
  $("fields").replaceChildren(...made);
  $("fields").setAttribute("aria-activedescendant", `field-${page.field}`);
  const all = review.fields.map((field) => field.confidence).filter(Boolean);
  show($("measured"), review.measured && `${review.model} ${review.measured}.`);
  show($("calibration"), !all.length ? "" : all.every((one) => one.is_calibrated)
    ? "Confidence is calibrated by earlier decisions: of values with 90 %, about 9 in 10 were right."
    : "Confidence is the model's own; it is not calibrated yet.");
}

function drawnField(field, at) {
  const made = make("div", "", "field");
  made.id = `field-${at}`;
  made.setAttribute("role", "option");
  made.setAttribute("aria-selected", String(at === page.field));
  made.append(make("div", field.path || "text", "name"), drawnValue(field), ...drawnReading(field), ...drawnDoubt(field));
  if (field.description) made.title = field.description;
  made.addEventListener("click", () => { pick(at); $("fields").focus({ preventScroll: true }); });
  return made;
}

function drawnValue(field) {
  const was = page.review.was[field.path];
  const value = make("div", "", "value");
  const words = (text, isNull) => (isNull ? make("span", "no value", "null") : make("span", text === "" ? "“”" : text));
  value.append(...(was === undefined ? [] : [make("span", was, "was"), " "]), field.is_empty ? make("span", "empty", "null") : words(field.text, field.is_null));
  return value;
}

// How a field was read that no one is asked about, and the way to take back what it rests on.
function drawnReading(field) {
  const how = field.reading;
  if (!how) return [];
  if (how.open) return [make("div", `asked: ${how.text}`, "reading")];
  const where = how.label ? `read behind “${how.label}”` : "the same in each paper of this sender";
  const made = make("div", !how.decision ? (how.by === "xml" ? "as its e-invoice states it" : `read by ${how.by}`) : `${where}, as ${how.who === page.me ? "you" : how.who} decided on ${date(how.at)} (${how.item})`, "reading");
  if (how.decision && page.review.state === "open") made.append(" ", takeBack(how.decision));
  return [made];
}

function takeBack(id) {
  const made = button("Take that back", (event) => { event.stopPropagation(); undoOne(id); });
  made.title = "The decision waits again; the next run reads without it.";
  return made;
}

function drawnDoubt(field) {
  const made = [], sure = field.confidence, found = field.evidence;
  if (field.is_empty) return made; // neither a bar nor a place says more
  if (sure) {
    const line = make("div", "", "sure"), bar = make("i"), part = make("span");
    bar.className = sure.p < LOW ? "low" : sure.p < MIDDLE ? "middle" : "";
    bar.setAttribute("aria-hidden", "true");
    part.style.width = `${Math.round(sure.p * 100)}%`;
    bar.append(part);
    line.append(make("span", `${Math.round(sure.p * 100)} %`), bar);
    if (hasRival(sure)) line.append(make("span", `or ${plain(sure.second)} (${Math.round(sure.second_p * 100)} %)`));
    made.push(line);
    if (field.like_this) made.push(make("div", field.like_this, "quote"));
  }
  if (found) {
    const kind = isMissing(found) ? "quote none" : "quote";
    made.push(make("div", quoteWords(found), kind));
  }
  return made;
}

// A value that came second counts where the first is in doubt, and it is not far behind.
const hasRival = (sure) => sure && sure.p < MIDDLE && sure.second !== null && sure.second !== undefined
  && sure.second_p !== null && sure.second_p >= RIVAL * sure.p;
const plain = (value) => (typeof value === "string" ? value : JSON.stringify(value));

// What is only similar is a hint: the value itself is not in the document.
const isMissing = (found) => found.match === "none" || found.match === "fuzzy";

function quoteWords(found) {
  if (found.match === "none") return "not found in the document";
  const place = found.page ? `page ${found.page}` : found.line ? `line ${found.line}` : "";
  const like = found.match === "fuzzy" ? "not found; similar: " : "";
  const others = found.others ? `${count(found.others, "other place")}` : "";
  return [`${like}“${found.quote}”`, place, others].filter(Boolean).join(", ");
}

function pick(at) {
  const n = page.review?.fields.length || 0;
  if (!n) return;
  page.spot = null;
  page.field = Math.max(0, Math.min(n - 1, at));
  for (const [index, one] of [...$("fields").children].entries()) one.setAttribute("aria-selected", String(index === page.field));
  $("fields").setAttribute("aria-activedescendant", `field-${page.field}`);
  $("fields").children[page.field].scrollIntoView({ block: "nearest" });
  seek();
}

function pickPath(path) {
  const left = page.review.left.find((one) => one.path === path);
  if (left) return look(left);
  const at = page.review.fields.findIndex((one) => one.path === path);
  if (at < 0) return;
  if (page.mode === "edit") $(`input-${at}`).focus();
  else pick(at);
}

function drawEarlier() {
  const made = page.review.earlier.map((one) => {
    const box = make("div"), list = make("dl");
    const what = one.is_other_document ? "before the document changed" : "before";
    const who = DECIDED.includes(one.state) ? `${one.by} ${one.state} it` : "It expired";
    box.append(make("p", `${who}, ${what}, ${day(one.at)}${one.reason ? `: ${one.reason}` : ""}.`));
    for (const field of page.review.fields) {
      const text = one.fields[field.path];
      if (text !== undefined && text !== field.text) list.append(make("dt", field.path || "text"), make("dd", text === "" ? "no value" : text));
    }
    if (list.children.length) box.append(list, button("Edit with these values", () => useEarlier(one)));
    return box;
  });
  if (made.length) made.unshift(make("h2", "Decided before"));
  $("earlier").replaceChildren(...made);
}

function useEarlier(decision) {
  if (!mayDecide()) return;
  const names = new Set(page.review.fields.map((field) => field.path));
  for (const [path, text] of Object.entries(decision.fields)) {
    if (!names.has(path)) continue;
    page.changes[path] = text;
    delete page.places[path];
  }
  page.asJson = false;
  setMode("edit");
  typed();
}

/* The document */

function drawSources() {
  const sources = page.review.sources;
  $("document-tools").hidden = !sources.length;
  $("source-label").hidden = sources.length < 2;
  $("source").replaceChildren(...sources.map((one, at) => {
    const option = make("option", one.name || `Source ${at + 1}`);
    option.value = at;
    return option;
  }));
}

const source = () => page.review?.sources[page.source];
const field = () => page.review?.fields[page.field];
const chosen = () => (page.spot?.source ? page.spot : field()?.evidence); // what is to be seen in the document

/* The pane shows one thing: a page of a source, or its text. What is asked for next empties it at once. */

const pane = { key: "", n: 0 };

function emptyPane(key) {
  pane.key = key;
  pane.n += 1;
  $("picture").hidden = $("text").hidden = true;
  $("image").removeAttribute("src");
  $("image").alt = "";
  $("boxes").replaceChildren();
  $("text-parts").replaceChildren();
  boxed = [];
  shown = { start: 0, end: 0, total: 0 };
  setLoading(true);
}

function setLoading(isLoading) {
  page.isLoading = isLoading;
  $("document").setAttribute("aria-busy", String(isLoading));
  $("loading").hidden = !isLoading;
  allow();
}

function prepared(what) { // the number of what is being shown now: later answers to earlier wishes have others
  const key = `${identity(page.review)} ${page.source} ${what}`;
  if (pane.key !== key) emptyPane(key);
  return pane.n;
}

function seek() { // show where the chosen field stands
  if (!page.review) return;
  const sources = page.review.sources, found = chosen();
  if (!sources.length) {
    emptyPane("none");
    show($("document-note"), "The step names no source, so there is no document to show.");
    setLoading(false);
    return;
  }
  const named = found?.source ? sources.findIndex((one) => one.name === found.source) : -1;
  if (named >= 0) page.source = named;
  if (found?.page) page.number = found.page;
  $("source").value = page.source;
  drawDocument(found?.start ?? null);
}

function drawDocument(start) {
  const one = source();
  if (!one) return;
  const isPicture = one.has_picture && !page.wantsText;
  $("as-text").setAttribute("aria-pressed", String(!isPicture));
  $("as-text").hidden = !one.has_picture;
  const pages = isPicture ? one.n_pages : 0;
  for (const id of ["page-before", "page-after", "page-number"]) $(id).hidden = pages < 2;
  page.number = Math.max(1, Math.min(pages || page.number, page.number));
  $("page-number").textContent = `Page ${page.number} of ${pages}`;
  show($("document-note"), one.note || "");
  if (isPicture) drawPicture();
  else drawText(start);
}

function forgetPictures() {
  for (const one of Object.values(page.pictures)) one.then(URL.revokeObjectURL, () => {});
  page.pictures = {};
}

async function drawPicture() {
  const n = prepared(`page ${page.number}`), at = page.source, number = page.number, place = `${at}/${number}`;
  page.pictures[place] ??= call(ofReview(page.review.id, `/picture?source=${at}&page=${number}`))
    .then((answer) => answer.blob()).then((blob) => URL.createObjectURL(blob));
  const image = $("image");
  try {
    const url = await page.pictures[place];
    if (n !== pane.n) return;
    if (image.src !== url) image.src = url;
    await image.decode();
  } catch (error) {
    if (n !== pane.n) return;
    if (error instanceof Away || error.status === 401) {
      delete page.pictures[place]; // it is asked for again with the review
      return failed(error);
    }
    const note = error instanceof Refused ? error.message : "This page's picture cannot be shown.";
    Object.assign(page.review.sources[at], { has_picture: false, note });
    return drawDocument(chosen()?.start ?? null);
  }
  if (n !== pane.n) return;
  image.alt = `Page ${number} of ${source().name || page.review.item}`;
  $("picture").hidden = false;
  setLoading(false);
  drawBoxes();
  try {
    const told = await read(ofReview(page.review.id, `/words?source=${at}&page=${number}`));
    if (n !== pane.n) return;
    boxed = told.words;
    if (page.review.left.length) drawBoxes();
  } catch (error) {
    if (n === pane.n) failed(error);
  }
}

let boxed = []; // words of the page that is shown: what a click means, its bounds in the text, and the word's box
let pressed = null; // where the pointer went down on the picture, in parts of the page

function pointOf(event) {
  const box = $("picture").getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

function fillFromPicture(event) { // the word that was clicked, or those between press and release
  const [from, to] = [pressed || pointOf(event), pointOf(event)];
  pressed = null;
  if (page.mode === "read" && page.review && isLong(field())) // else one word for the whole text
    return problem("This is a long text. Press `e` to edit it: then a click puts words at the cursor.");
  const [left, right] = [from[0], to[0]].sort((a, b) => a - b), [top, bottom] = [from[1], to[1]].sort((a, b) => a - b);
  const some = boxed.filter(([, , , l, t, r, b]) => l <= right && left <= r && t <= bottom && top <= b);
  if (!some.length) return;
  const parts = [...new Map(some.map((one) => [one[1], one])).values()];
  fill(parts.map((one) => one[0]).join(" "), [parts[0][1], parts.at(-1)[2]]);
}

function drawBoxes() {
  const name = source().name;
  const made = [];
  const draw = (sides, kind, path) => {
    const [left, top, right, bottom] = sides.map((part) => part * 100), box = make("div", "", kind);
    Object.assign(box.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
    box.addEventListener("click", (event) => {
      if (page.mode !== "read") return;
      event.stopPropagation(); // the picture would take it for a new value
      pickPath(path);
    });
    made.push(box);
  };
  page.review.fields.forEach((one, at) => {
    const found = one.evidence;
    if (!found?.box || found.page !== page.number || (found.source && found.source !== name)) return;
    draw(found.box, found === chosen() ? "box on" : "box", one.path);
  });
  for (const one of page.review.left.filter((left) => left.source === name)) {
    const some = boxed.filter(([, start, end]) => start < one.end && one.start < end);
    for (const word of some) draw(word.slice(3), one === chosen() ? "box left on" : "box left", one.path);
  }
  $("boxes").replaceChildren(...made);
  made.find((box) => box.classList.contains("on"))?.scrollIntoView({ block: "center" });
}

let shown = { start: 0, end: 0, total: 0 };

async function drawText(start) {
  const wanted = start ?? 0, n = prepared("text");
  if (page.isLoading || wanted < shown.start || wanted >= shown.end) {
    const told = await textWindow(Math.max(0, wanted - LEAD_CHARS));
    if (n !== pane.n) return;
    if (told) {
      shown = told;
      $("text-parts").replaceChildren(...drawnParts(told.parts));
    } else if (page.isAway) return;
  }
  $("text").hidden = false;
  $("text-before").hidden = shown.start <= 0;
  $("text-after").hidden = shown.end >= shown.total;
  setLoading(false);
  markField();
}

async function textWindow(start, n = 0) {
  const wish = pane.n;
  try {
    return await read(ofReview(page.review.id, `/text?source=${page.source}&start=${start}${n ? `&n=${n}` : ""}`));
  } catch (error) {
    if (wish !== pane.n) return null;
    if (error instanceof Refused && error.status !== 401) {
      show($("document-note"), error.message);
      $("text-parts").replaceChildren();
    } else failed(error);
    return null;
  }
}

const drawnParts = (parts) => parts.map(([words, paths]) => {
  if (!paths.length) return document.createTextNode(words);
  const made = make("mark");
  made.textContent = words; // a document's own
  made.dataset.paths = JSON.stringify(paths);
  made.classList.toggle("left", page.review.left.some((one) => paths.includes(one.path)));
  made.addEventListener("click", () => pickPath(paths[0]));
  return made;
});

function markField() {
  const path = (page.spot?.source ? page.spot : field())?.path;
  let first = null;
  for (const one of $("text-parts").querySelectorAll("mark")) {
    const isOn = JSON.parse(one.dataset.paths).includes(path);
    one.classList.toggle("on", isOn);
    if (isOn) first ??= one;
  }
  first?.scrollIntoView({ block: "center" });
}

function fillFrom(event) { // the words that were chosen, or the one that was clicked, into the field
  const chosen = getSelection(), node = chosen.anchorNode;
  if (page.mode !== "edit" || node?.nodeType !== Node.TEXT_NODE || !event.target.closest("#text-parts")) return;
  const text = node.data;
  let from = chosen.anchorOffset, part = chosen.toString();
  if (!part) {
    from -= /\S*$/.exec(text.slice(0, from))[0].length;
    part = /^\S*/.exec(text.slice(from))[0].replace(/[.,;:|)]+$/, "");
  } else if (chosen.focusNode === node) from = Math.min(from, chosen.focusOffset);
  const lead = /^[\s|(]*/.exec(part)[0].length, value = part.slice(lead).trim();
  const before = document.createRange();
  before.selectNodeContents($("text-parts"));
  before.setEnd(node, from + lead);
  const start = shown.start + Array.from(before.toString()).length; // characters as Python counts them
  fill(value, [start, start + Array.from(value).length]);
}

function fill(value, place) { // the chosen field, from a place in the document
  if (page.asJson || !page.review || !value) return;
  const one = field();
  if (one.kind === "choice" || (page.mode === "read" && !mayDecide())) return;
  if (page.mode === "read") setMode("edit");
  const input = $(`input-${page.field}`), { selectionStart: from, selectionEnd: to } = input;
  if (isLong(one)) {
    const before = /[^\s([]$/.test(input.value.slice(0, from)) ? " " : "", behind = /^[\p{L}\p{N}([]/u.test(input.value.slice(to)) ? " " : "";
    input.setRangeText(before + value + behind, from, to, "end");
  } else input.value = value;
  input.dispatchEvent(new Event("input"));
  if (!page.review.sources[1] && input.value === value) page.places[one.path] = place;
  typed();
  input.focus();
}

async function moreText(isBefore) {
  const size = 6000, start = isBefore ? Math.max(0, shown.start - size) : shown.end;
  const wish = pane.n, told = await textWindow(start, isBefore ? shown.start - start : size);
  if (!told || wish !== pane.n) return;
  const view = $("view"), height = view.scrollHeight;
  if (isBefore) {
    $("text-parts").prepend(...drawnParts(told.parts));
    shown.start = told.start;
    view.scrollTop += view.scrollHeight - height;
  } else {
    const cut = told.start < shown.end ? shown.end - told.start : 0; // the window began with its line
    $("text-parts").append(...drawnParts(cut ? withoutFirst(told.parts, cut) : told.parts));
    shown.end = told.end;
  }
  $("text-before").hidden = shown.start <= 0;
  $("text-after").hidden = shown.end >= shown.total;
}

function withoutFirst(parts, n) { // n characters as Python counts them
  const left = [];
  for (const [words, paths] of parts) {
    const letters = Array.from(words);
    if (n < letters.length) left.push([letters.slice(n).join(""), paths]);
    n = Math.max(0, n - letters.length);
  }
  return left;
}

function turn(by) {
  if (!source()?.has_picture || page.wantsText) return;
  page.number += by;
  drawDocument(null);
}

/* Deciding */

function setMode(mode) {
  page.mode = mode;
  const isEdit = mode === "edit";
  $("fields").hidden = isEdit;
  $("actions").hidden = isEdit || !page.id;
  $("edit").hidden = !isEdit;
  show($("edit-problem"), "");
  show($("row-note"), "");
  allow();
  if (isEdit) drawForm();
}

function drawForm() {
  const review = page.review;
  $("as-json").hidden = review.is_text;
  $("as-json").setAttribute("aria-pressed", String(page.asJson));
  $("inputs").hidden = page.asJson;
  $("json-label").hidden = !page.asJson;
  if (page.asJson) {
    $("json").value = draftOf(review.id).json ?? review.json; // numbers as the server wrote them
  }
  $("inputs").replaceChildren(...review.fields.map(drawnInput));
  const target = page.asJson ? $("json") : $(`input-${page.field}`);
  target?.focus();
  if (!page.asJson && !isLong(field())) target?.select?.();
}

// A text to be changed at the cursor, not a value to be replaced.
const isLong = (one) => page.review.is_text || [one.text, page.changes[one.path] ?? ""].some((text) => text.length > 60 || text.includes("\n"));

function drawnInput(one, at) {
  const made = make("div", "", "input"), label = make("label", one.path || "text");
  const input = make(one.kind === "choice" ? "select" : isLong(one) ? "textarea" : "input");
  input.id = label.htmlFor = `input-${at}`;
  if (one.kind === "choice") {
    const choices = [...(one.is_nullable ? [""] : []), ...one.choices];
    if (!choices.includes(one.text)) choices.unshift(one.text);
    input.append(...choices.map((choice) => {
      const option = make("option", choice === "" ? "no value" : choice);
      option.value = choice;
      return option;
    }));
  } else {
    input.autocomplete = "off";
    input.spellcheck = false;
    if (one.kind === "number") input.inputMode = "decimal";
    if (input.tagName === "TEXTAREA") input.rows = Math.min(12, 2 + Math.floor(one.text.length / 50));
    if (one.is_nullable) input.placeholder = "no value";
  }
  input.value = page.changes[one.path] ?? one.text;
  input.setAttribute("aria-describedby", `wrong-${at}`);
  const doubt = drawnDoubt({ evidence: one.evidence }); // of the value that was there
  const tellDoubt = () => { for (const line of doubt) line.hidden = input.value !== one.text; };
  tellDoubt();
  input.addEventListener("input", () => {
    delete page.places[one.path];
    if (input.value === one.text) delete page.changes[one.path];
    else page.changes[one.path] = input.value;
    tellDoubt();
    typed();
  });
  input.addEventListener("focus", () => { if (page.field !== at) { page.field = at; page.spot = null; seek(); } });
  const wrong = make("p", "", "wrong");
  wrong.id = `wrong-${at}`;
  made.append(label, input, ...second(one, input), ...newRow(one), wrong, ...doubt);
  return made;
}

function second(one, input) {
  if (!hasRival(one.confidence)) return [];
  const other = one.confidence.second;
  return [button(`Use ${plain(other)}`, () => {
    input.value = plain(other);
    input.dispatchEvent(new Event("input"));
    input.focus();
  })];
}

/* A label that the list has not: a row more in the table that the list comes from */

let table = null; // the field whose table gets a row

function newRow(one) {
  if (!one.table) return [];
  if (!one.table.columns.length) return [make("p", `A label that is not in the list: add it in ${one.table.name}.`, "soft small")];
  return [button(`Not in the list: add it to ${one.table.name}`, () => {
    table = one;
    $("row-title").textContent = plainName(`Add to ${one.table.name}`);
    $("row-inputs").replaceChildren(...one.table.columns.map((column, at) => {
      const label = make("label", column), input = make("input");
      input.id = label.htmlFor = `row-${one.path}-${at}`;
      input.name = column;
      input.required = one.table.needed.includes(column);
      input.autocomplete = "off";
      const box = make("div", "", "input");
      box.append(label, input);
      return box;
    }));
    show($("row-problem"), "");
    $("row-dialog").showModal();
    $("row-inputs").querySelector("[required]")?.focus();
  })];
}

async function addRow() {
  const id = page.id, one = table;
  const cells = Object.fromEntries([...$("row-inputs").querySelectorAll("input")].map((input) => [input.name, input.value]));
  let told;
  try { told = await write(ofReview(id, "/label"), { field: one.path.replace(/\.\d+(?=\.|$)/g, ""), cells }); } catch (error) {
    if (error instanceof Refused) return show($("row-problem"), error.message);
    return failed(error);
  }
  $("row-dialog").close();
  const draft = page.review?.id === id ? draftNow() : draftOf(id);
  keepDraft(id, { ...draft, changes: { ...draft.changes, [one.path]: told.label }, places: { ...draft.places, [one.path]: undefined }, isOpen: true });
  const others = told.others ? ` ${count(told.others, "other document that waits is", "other documents that wait are")} asked about again with it.` : "";
  await reload();
  const words = `'${told.label}' is in ${one.table.name}. The next run knows it.${others}`;
  if (page.id === id) show($("row-note"), words);
  $("said").textContent = words;
}

const editBody = () => ({ marks: page.marks, ...(page.asJson ? { json: $("json").value } : { changes: page.changes, places: page.places }) });

const draftNow = () => ({ question: page.review.question, changes: page.changes, places: page.places, ...editBody() });

let checkTimer = 0;

function typed() { // keep what was typed, and check it in a moment
  keepDraft(page.id, { ...draftNow(), isOpen: true });
  clearTimeout(checkTimer);
  checkTimer = setTimeout(check, CHECK_MS);
}

async function check() {
  const id = page.id;
  if (page.mode !== "edit") return;
  let told;
  try { told = await write(ofReview(id, "/check"), editBody()); } catch (error) { return failed(error); }
  if (page.review?.id !== id || page.id !== id || page.mode !== "edit") return;
  place(told.faults);
  tellAnswers(told.answers, told.looked_at);
}

function tellAnswers(items, most = 0) { // what the decision does beyond its own document
  const some = items.slice(0, 3).join(", "), more = items.length > 3 ? ` and ${items.length - 3} more` : "";
  const cut = most ? ` Only the first ${most} that wait were looked at.` : "";
  const told = items.length ? `${count(items.length, "waiting paper needs", "waiting papers need")} no decision any more then: ${some}${more}.` : "";
  show($("answers"), plainName(`${told}${cut}`.trim()));
}

async function foretell() { // of the answer as it is
  const review = page.review;
  tellAnswers([]);
  if (review.state !== "open" || !review.teaches) return;
  let told;
  try { told = await write(ofReview(review.id, "/check"), { changes: {}, marks: page.marks }); } catch { return; }
  if (page.review?.id === review.id && page.mode === "read") tellAnswers(told.answers, told.looked_at);
}

function place(faults) {
  const rest = [];
  const byPath = new Map(page.review.fields.map((one, at) => [one.path, at]));
  const found = new Map();
  for (const one of faults) {
    const at = page.asJson ? undefined : byPath.get(one.path);
    if (at === undefined) rest.push(one.path ? `${one.path}: ${one.message}` : one.message);
    else found.set(at, one.message);
  }
  page.review.fields.forEach((one, at) => {
    $(`wrong-${at}`).textContent = found.get(at) || "";
    $(`input-${at}`).setAttribute("aria-invalid", String(found.has(at)));
  });
  show($("edit-problem"), rest.join(" "));
  return faults.length;
}

// The review that is to be decided, once it is the one that the queue shows as chosen; edits replace a decision.
const openReview = () => (page.review?.id === page.id && (page.review.state === "open" || page.mode === "edit") ? page.review : null);

async function decide(verb, more = {}) {
  const review = openReview();
  if (!review || page.isBusy || !mayDecide()) return false;
  if (verb === "accept" && page.isLoading) return false; // nothing unseen is accepted
  if (page.unsent && page.unsent.id !== review.id) {
    problem(`The decision on ${page.unsent.item} is not confirmed yet. Wait until the server answers.`);
    return false;
  }
  const body = { question: review.question, verb, marks: page.marks, ...more };
  if (review.state !== "open") body.over = review.decided_at;
  page.isBusy = true;
  page.unsent = { id: review.id, item: review.item, body };
  try {
    const row = await write(ofReview(review.id, "/decide"), body);
    page.unsent = null;
    decided(review.id, review.item, row);
    return true;
  } catch (error) {
    if (error instanceof Away) return setAway(true), false;
    if (!(error instanceof Refused && error.status === 401)) page.unsent = null;
    if (!(error instanceof Refused)) throw error;
    await refused(error.message);
    return false;
  } finally {
    page.isBusy = false;
  }
}

async function refused(words) {
  const wasReason = $("reason-dialog").open;
  if (wasReason) show($("reason-problem"), words);
  changed();
  await refresh();
  await reload();
  if (page.mode === "edit") show($("edit-problem"), words);
  else problem(words);
}

function decided(id, item, { state, answers, opened }) {
  for (const row of page.waiting) {
    if (answers.includes(row.id)) row.answered = item;
    if (opened.includes(row.id)) row.answered = "";
  }
  keepDraft(id, null);
  page.done.push(id);
  page.times.push(Date.now());
  leased = leased === id ? "" : leased;
  page.waiting = page.waiting.filter((row) => row.id !== id);
  changed();
  $("said").textContent = `${plainName(item)}: ${state}. ${page.waiting.length} left.`;
  pace();
  if (page.view !== "waiting") return reload();
  const at = page.at;
  page.id = "";
  emptyReview("");
  page.rows = page.rows.filter((row) => row.id !== id);
  listRowsAt(at);
}

function listRowsAt(at) {
  tellCounts();
  if (page.rows.length) { open(free(Math.min(at, page.rows.length - 1))); $("queue").focus({ preventScroll: true }); }
  else clear();
}

function clear() {
  drawRows();
  const n = page.view === "waiting" ? page.waiting.length : page.decided.length;
  show($("queue-empty"), emptyWords(n));
  $("rows").replaceChildren();
  emptyReview("");
  setLoading(false);
  show($("document-note"), n || page.view === "decided" ? "" : "Everything is decided. The next run goes on with it.");
}

function changed() { // the queue is another one: fetch it, and forget answers that are under way
  page.mark = "";
  page.n += 1;
}

async function resend() { // the same decision twice is one decision
  const unsent = page.unsent;
  if (!unsent) return;
  page.unsent = null;
  try {
    const row = await write(ofReview(unsent.id, "/decide"), unsent.body);
    if ($("reason-dialog").open) $("reason-dialog").close();
    decided(unsent.id, unsent.item, row);
  } catch (error) {
    if (error instanceof Away) { page.unsent = unsent; setAway(true); } else await refused(error.message);
  }
}

async function save() {
  const body = editBody(), id = page.id;
  let faults;
  try { ({ faults } = await write(ofReview(id, "/check"), body)); } catch (error) {
    if (error instanceof Refused && error.status === 409) return refused(error.message);
    if (!(error instanceof Away)) return failed(error);
    faults = [];
  }
  if (page.review?.id !== id || page.id !== id || page.mode !== "edit") return; // another one is open by now
  if (place(faults)) {
    (document.querySelector("#inputs [aria-invalid='true']") || $("json")).focus();
    return;
  }
  await decide("edit", body);
}

function leave() {
  keepDraft(page.id, Object.keys({ ...page.changes, ...page.places, ...page.marks }).length || page.asJson ? draftNow() : null);
  setMode("read");
  $("queue").focus({ preventScroll: true });
}

function askReason() {
  if (!mayDecide()) return;
  show($("reason-problem"), "");
  $("reason").value = draftOf(page.id).reason || "";
  $("reason-dialog").showModal();
  $("reason").focus();
}

async function sendReason() {
  const reason = $("reason").value.trim();
  if (!reason) return show($("reason-problem"), "A rejection needs a reason, which the run shows and keeps.");
  if (await decide("reject", { reason })) $("reason-dialog").close();
  else if (page.isAway) show($("reason-problem"), $("away").textContent);
}

/* One decision on all that are shown, as they were shown when the question was asked */

let all = []; // rows

function askAll() {
  all = acceptable();
  if (!all.length) return;
  const names = all.slice(0, 3).map((row) => row.item).join(", ");
  const more = all.length > 3 ? ` and ${count(all.length - 3, "more", "more")}` : "";
  $("all-words").textContent = `${count(all.length, "answer is", "answers are")} accepted as they are, without a look at each: ${names}${more}. This is one decision, and can be undone as one.`;
  show($("all-problem"), "");
  $("all-dialog").showModal();
  $("all-send").focus();
}

async function acceptAll() {
  if (page.isBusy) return;
  page.isBusy = true;
  try {
    const told = await write("/accept", { rows: all.map((row) => [row.id, row.question]) });
    $("all-dialog").close();
    for (const row of all) keepDraft(row.id, null);
    if (told.accepted) page.done.push({ together: told.together, n: told.accepted });
    changed();
    page.id = "";
    emptyReview("");
    await refresh();
    if (!page.rows.length) clear();
    const words = `${count(told.accepted, "answer")} accepted. Undo takes them back together.`;
    $("said").textContent = words;
    if (told.left.length) problem(`${words} ${told.left.length.toLocaleString("en")} left as they are: ${told.left[0]}`);
    $("queue").focus({ preventScroll: true });
  } catch (error) {
    if (error instanceof Refused) show($("all-problem"), error.message);
    else failed(error);
  } finally {
    page.isBusy = false;
  }
}

async function undoAll(decision) {
  let told;
  try { told = await write("/undo", { together: decision.together }); } catch (error) { return failed(error); }
  page.done = page.done.filter((one) => one !== decision);
  changed();
  setView("waiting");
  await refresh();
  $("said").textContent = `Undone; ${count(told.opened, "answer waits", "answers wait")} again.`;
}

async function undo() {
  const isChosen = page.view === "decided" && page.review?.state !== "open";
  const id = isChosen ? page.review?.id : page.done.at(-1);
  if (id?.together) return undoAll(id);
  if (!id) return problem("There is nothing to undo: you have decided nothing since this page was opened.");
  return undoOne(id);
}

async function undoOne(id) {
  try { await write(ofReview(id, "/undo")); } catch (error) { return failed(error); }
  page.done = page.done.filter((one) => one !== id);
  page.times.pop();
  changed();
  setView("waiting");
  page.id = id;
  await refresh();
  if (!page.rows.some((row) => row.id === id)) { // the filter leaves it out: what is undone is seen
    $("filter").value = $("least").value = "";
    listRows();
  }
  const at = page.rows.findIndex((row) => row.id === id);
  if (at >= 0) await open(at);
  $("said").textContent = "Undone; it waits again.";
}

/* What decisions teach */

async function showRules() {
  let told;
  try { told = await read("/rules"); } catch (error) { return failed(error); }
  const { unasked, looked_at, wrong } = told.checked;
  const shown = told.rules.map(drawnRule).concat(told.without_rule.map((one) => make("p", `${one.item} makes no rule: ${one.text}.`)));
  if (unasked) shown.unshift(make("p", `Of ${unasked} read without a question ${looked_at} were looked at, ${wrong} wrong.`));
  $("rules").replaceChildren(...(shown.length ? shown : [make("p", "No decision makes a rule yet.")]));
  $("rules-dialog").showModal();
}

function drawnRule(rule) {
  const made = make("section"), list = make("dl");
  made.append(make("h3", rule.sender.join(", ")),
    make("p", `${rule.folder ? `${rule.folder}: ` : ""}${rule.step}, ${rule.pipeline}; used for ${count(rule.documents, "document")}. Layout: ${rule.layout.join(", ")}`, "soft small"));
  for (const [name, readings] of Object.entries(rule.fields)) {
    const how = readings.map((one) => (one.label ? `behind “${one.label}”` : `always ${one.value === null || one.value === "" ? "empty" : plain(one.value)}`));
    list.append(make("dt", name), make("dd", how.join("; ")));
  }
  for (const name of rule.open) list.append(make("dt", name), make("dd", "asked each time"));
  made.append(list, ...rule.decisions.map((one) => {
    const marks = rule.marks.filter(([id]) => one.id.endsWith(id)).map(([, text, mark]) => `; “${text}” ${SAID[mark]}`);
    const line = make("p", `${one.item}, decided by ${one.by}, ${day(Date.parse(one.at) / 1000)}${marks.join("")} `);
    const back = takeBack(one.id);
    back.addEventListener("click", () => $("rules-dialog").close());
    line.append(back);
    return line;
  }));
  return made;
}

/* Keys, clicks, polls */

function setView(view) {
  if (page.view === view) return;
  page.view = view;
  $("tab-waiting").setAttribute("aria-pressed", String(view === "waiting"));
  $("tab-decided").setAttribute("aria-pressed", String(view === "decided"));
  page.id = "";
  emptyReview("");
  if (view === "decided") { page.rows = page.decided; refreshDecided(); }
  listRows();
  if (!page.id) setLoading(false);
}

const KEYS = {
  Enter: () => decide("accept"),
  e: () => { if (mayReplace() || mayDecide()) setMode("edit"); },
  n: () => say("never"),
  a: () => say("always"),
  A: () => say("always", page.review?.left),
  x: askReason,
  j: () => open(Math.min(page.at + (page.rows[page.at]?.id === page.id ? 1 : 0), page.rows.length - 1)),
  k: () => open(Math.max(page.at - 1, 0)),
  u: undo,
  "?": () => $("help").showModal(),
  r: showRules,
  t: () => $("as-text").hidden || toggleText(),
  "[": () => turn(-1),
  "]": () => turn(1),
  ArrowDown: () => pick(page.field + 1),
  ArrowUp: () => pick(page.field - 1),
};

function toggleText() {
  page.wantsText = !page.wantsText;
  seek();
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
  if (page.mode === "edit") {
    if (event.key === "Escape") { event.preventDefault(); leave(); }
    if (event.key === "Enter" && event.ctrlKey) { event.preventDefault(); save(); }
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, textarea, select")) {
    if (event.target.id === "filter" && ["Enter", "Escape"].includes(event.key)) {
      event.preventDefault();
      $("queue").focus();
      if (event.key === "Enter" && !page.rows.some((row) => row.id === page.id)) open(0);
    }
    return;
  }
  if (event.key === "Enter" && event.target.matches("button, a")) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  if (event.key === "Enter" && event.repeat) return; // a key that is held decides once
  act();
});

const on = (id, act, kind = "click") => $(id).addEventListener(kind, act);
on("text-parts", fillFrom);
on("picture", (event) => { pressed = pointOf(event); }, "pointerdown");
on("picture", fillFromPicture);
on("rules-open", KEYS.r);
on("accept", KEYS.Enter);
on("change", KEYS.e);
on("reject", askReason);
on("undo", undo);
on("help-open", KEYS["?"]);
on("as-text", toggleText);
on("page-before", () => turn(-1));
on("page-after", () => turn(1));
on("text-before", () => moreText(true));
on("text-after", () => moreText(false));
on("tab-waiting", () => setView("waiting"));
on("tab-decided", () => setView("decided"));
on("filter", narrow, "input");
on("least", narrow, "change");
on("accept-all", askAll);
on("all-leave", () => $("all-dialog").close());
on("all-form", (event) => { event.preventDefault(); acceptAll(); }, "submit");
on("queue", drawRows, "scroll");
on("leave", leave);
on("json", typed, "input");
for (const kind of ["focusin", "focusout"]) on("edit", (event) => { // in a long text, Enter begins a line
  const saves = kind === "focusin" && event.target.matches("input, #save");
  $("save").firstElementChild.textContent = saves ? "Enter" : "Ctrl Enter";
}, kind);
on("reason-leave", () => $("reason-dialog").close());
on("row-leave", () => $("row-dialog").close());
on("row-form", (event) => { event.preventDefault(); addRow(); }, "submit");
on("edit", (event) => { event.preventDefault(); save(); }, "submit");
on("reason-form", (event) => { event.preventDefault(); sendReason(); }, "submit");
on("reason", () => keepDraft(page.id, { ...draftOf(page.id), reason: $("reason").value }), "input");
on("reason", (event) => {
  if (event.key === "Enter" && event.ctrlKey) { event.preventDefault(); sendReason(); }
}, "keydown");
on("source", () => {
  page.source = Number($("source").value);
  page.number = 1;
  drawDocument(null);
}, "change");
on("as-json", () => {
  page.asJson = !page.asJson;
  if (!page.asJson) keepDraft(page.id, { ...draftNow(), isOpen: true });
  drawForm();
});
on("token-form", async (event) => {
  event.preventDefault();
  const body = new URLSearchParams({ token: $("token").value.trim() });
  let answer;
  try { answer = await fetch("/review", { method: "POST", body }); } catch { return setAway(true); }
  if (!answer.ok) return show($("token-why"), await answer.text());
  $("token").value = "";
  $("token-dialog").close();
  changed();
  await refresh();
  if (page.unsent) await resend();
  else if (!page.review) listRows();
}, "submit");
addEventListener("resize", drawRows);
addEventListener("pagehide", () => leaveLast("", true));
addEventListener("pageshow", renew);
for (const kind of ["keydown", "pointerdown", "wheel"]) {
  addEventListener(kind, () => {
    const wasUnused = Date.now() - usedAt > UNUSED_MS;
    usedAt = Date.now();
    if (wasUnused) renew();
  }, { passive: true, capture: true });
}

setInterval(renew, RENEW_MS);

async function keepAsking() {
  if (!document.hidden || page.isAway) await refresh().catch(() => {});
  setTimeout(keepAsking, page.isAway ? AWAY_MS : POLL_MS);
}

$("queue").focus({ preventScroll: true });
keepAsking();
