// Keeps a page current: fetches it again and replaces its main part while that says so.

const main = document.querySelector("main"), away = document.getElementById("away");

function placeOf(element) { // what finds an element again after its part was replaced
  if (!main.contains(element)) return "";
  if (element.id) return `#${CSS.escape(element.id)}`;
  const name = element.hasAttribute("href") ? "href" : "aria-label";
  const value = element.getAttribute(name);
  return value ? `[${name}="${CSS.escape(value)}"]` : "";
}

async function refresh() {
  const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(8000) });
  if (answer.status === 401) return location.reload(); // the service was started again
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.querySelector("main");
  if (fresh.innerHTML !== main.innerHTML) {
    const place = placeOf(document.activeElement);
    const across = [...main.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
    main.replaceChildren(...fresh.childNodes);
    main.querySelectorAll(".scroll").forEach((one, at) => { one.scrollLeft = across[at] || 0; });
    if (place) main.querySelector(place)?.focus({ preventScroll: true });
  }
  document.title = page.title;
  main.dataset.live = fresh.dataset.live || "";
}

async function keepCurrent() {
  const isTyping = document.activeElement.matches("main input, main select");
  if (!document.hidden && !isTyping) {
    try {
      await refresh();
      away.hidden = true;
    } catch {
      away.hidden = false;
    }
  }
  if (main.dataset.live) setTimeout(keepCurrent, 1000 * Number(main.dataset.live));
}

main.addEventListener("submit", (event) => { // sent once, however often its button is clicked
  const form = event.target;
  if (form.method !== "post") return;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "sent";
});

const next = document.querySelector("a[data-next]");
if (next) location.replace(next.href);
if (main.dataset.live) setTimeout(keepCurrent, 1000 * Number(main.dataset.live));
