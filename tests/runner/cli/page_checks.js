// What tests of the console's pages look at in the browser.

// Elements that reach beyond the window.
function outside() {
  const sticksOut = (box) => box.width && (box.right > innerWidth + 1 || box.left < -1);
  return [...document.querySelectorAll("main *")]
    .filter((one) => !one.closest("svg, thead") && sticksOut(one.getBoundingClientRect()))
    .map((one) => one.className || one.tagName);
}

// Texts with less contrast than WCAG's 4.5 to 1.
function pale() {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const painted = (colors) => { // over each other, the lowest first
    canvas.clearRect(0, 0, 1, 1);
    for (const color of colors) {
      canvas.fillStyle = color;
      canvas.fillRect(0, 0, 1, 1);
    }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const linear = (n) => (n / 255 <= 0.03928 ? n / 255 / 12.92 : ((n / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const hasWords = (one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  const found = [];
  for (const one of document.querySelectorAll("body *")) {
    if (!hasWords(one) || !one.checkVisibility() || one.closest("svg, .skip, noscript")) continue;
    const grounds = [];
    for (let up = one; up; up = up.parentElement) grounds.unshift(getComputedStyle(up).backgroundColor);
    const ground = painted(["white", ...grounds]);
    const ink = painted([`rgb(${ground})`, getComputedStyle(one).color]);
    const [dark, bright] = [light(ground), light(ink)].sort((a, b) => a - b);
    const contrast = (bright + 0.05) / (dark + 0.05);
    if (contrast < 4.5) found.push(`${one.className || one.tagName}: ${one.textContent.trim().slice(0, 30)} ${contrast.toFixed(2)}`);
  }
  return found;
}
