// Keeps a page current: replaces its main part when the server sends it again.

const main = document.querySelector("main"), away = document.getElementById("away");
let source = null, latest = null;

function placeOf(element) { // what finds an element again after its part was replaced
  if (!main.contains(element)) return "";
  if (element.id) return `#${CSS.escape(element.id)}`;
  const name = element.hasAttribute("href") ? "href" : "aria-label";
  const value = element.getAttribute(name);
  return value ? `[${name}="${CSS.escape(value)}"]` : "";
}

function show() {
  if (latest === null || document.activeElement.matches("main input, main select")) return;
  const fresh = new DOMParser().parseFromString(latest.main, "text/html").body;
  document.title = latest.title;
  latest = null;
  if (fresh.innerHTML.trim() === main.innerHTML.trim()) return;
  const place = placeOf(document.activeElement);
  const across = [...main.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
  main.replaceChildren(...fresh.childNodes);
  main.querySelectorAll(".scroll").forEach((one, at) => { one.scrollLeft = across[at] || 0; });
  if (place) main.querySelector(place)?.focus({ preventScroll: true });
}

async function watch() { // a browser has few connections to a host: a hidden page keeps none
  source?.close();
  if (!main.dataset.live || document.hidden) return;
  source = new EventSource(location.href);
  source.onopen = () => { away.hidden = true; };
  source.onmessage = (event) => { latest = JSON.parse(event.data); show(); };
  source.addEventListener("end", () => { main.dataset.live = ""; source.close(); });
  source.onerror = () => { source.close(); retry(); };
}

async function retry() { // an event source does not say that the service asks to sign in
  away.hidden = false;
  if (document.hidden) return; // `watch` goes on
  try {
    const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(8000) });
    if (answer.status === 401) return location.reload(); // the service was started again
    if (answer.ok || answer.status === 404) return watch();
  } catch { /* still away */ }
  setTimeout(retry, 2000);
}

main.addEventListener("submit", (event) => { // sent once, however often its button is clicked
  const form = event.target;
  if (form.method !== "post") return;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "sent";
});
main.addEventListener("focusout", () => setTimeout(show));
document.addEventListener("visibilitychange", watch);

const next = document.querySelector("a[data-next]");
if (next) location.replace(next.href);
watch();
