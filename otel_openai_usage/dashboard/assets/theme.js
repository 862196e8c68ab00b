// Light, dark, or as the system has it: kept by the browser, applied before anything is drawn.
(function () {
  "use strict";
  const NEXT = { "": "dark", dark: "light", light: "" };
  const NAMES = { "": "Theme: system", dark: "Theme: dark", light: "Theme: light" };
  const root = document.documentElement;
  function stored() {
    try { return localStorage.getItem("theme") || ""; } catch { return ""; }
  }
  function apply(theme) {
    if (theme) { root.dataset.theme = theme; } else { delete root.dataset.theme; }
    const button = document.getElementById("theme");
    if (button) { button.textContent = NAMES[theme]; }
  }
  apply(stored());
  document.addEventListener("click", function (event) {
    if (event.target.id === "theme") {
      const theme = NEXT[stored()];
      try { localStorage.setItem("theme", theme); } catch { /* a private window keeps nothing */ }
      apply(theme);
    }
  });
  new MutationObserver(function (_, observer) {
    if (document.getElementById("theme")) { apply(stored()); observer.disconnect(); }
  }).observe(root, { childList: true, subtree: true });
})();
