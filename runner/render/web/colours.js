// Colours as the system has them, light, or dark: the button of the navigation, for all pages.
"use strict";

{
  const NAMES = { "": "as the system has them", light: "light", dark: "dark" };
  const MEDIA = { "": "(prefers-color-scheme: dark)", light: "not all", dark: "all" };
  const STORED = "paddock.theme";
  const button = document.getElementById("colours");
  const rules = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules])
    .filter((rule) => rule.conditionText === MEDIA[""]);
  const stored = () => { // a browser may forbid a page to keep anything
    try { return localStorage.getItem(STORED) || ""; } catch { return ""; }
  };
  let chosen = stored() in NAMES ? stored() : "";

  const paint = () => {
    for (const rule of rules) rule.media.mediaText = MEDIA[chosen];
    document.documentElement.style.colorScheme = chosen;
    button.setAttribute("aria-label", `Colours: ${NAMES[chosen]}`);
    button.title = `Colours: ${NAMES[chosen]}`;
    button.hidden = false;
  };

  button.addEventListener("click", () => {
    const names = Object.keys(NAMES);
    chosen = names[(names.indexOf(chosen) + 1) % names.length];
    try { localStorage.setItem(STORED, chosen); } catch { /* as long as the page is open */ }
    paint();
  });
  paint();
}
