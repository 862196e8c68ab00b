// Our own components. Chart draws what figures.py laid out: paths that stretch with the page, texts beside them, and a box that shows
// the numbers of a place. Plain draws a tree of Dash's html components without the bookkeeping that Dash has for each of them.
(function () {
  "use strict";
  const { createElement: el, useState } = React;
  const KEYS = { ArrowLeft: -1, ArrowRight: 1 };

  function valuesBox(titles, rows, places, at) {
    const right = places[at] > 50;
    const lines = rows.filter((row) => row.texts[at] !== null).map((row, here) => el("tr", { key: here },  // names may repeat
      el("td", null, el("span", { className: "swatch", style: { background: row.color || "none" } })),
      el("td", { className: "name" }, row.name), el("td", null, row.texts[at])));
    return [
      el("i", { key: "spike", className: "spike", style: { left: places[at] + "%" } }),
      el("div", { key: "box", className: "values", style: right ? { right: 100 - places[at] + "%" } : { left: places[at] + "%" } },
        el("b", null, titles[at]), el("table", null, el("tbody", null, lines))),
    ];
  }

  function Chart(props) {
    const { marks, up, across, places, titles, rows } = props;
    const [chosen, setChosen] = useState(null);
    const at = chosen !== null && chosen < places.length ? chosen : null;
    function point(event) {
      const box = event.currentTarget.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * 100;
      setChosen(places.reduce((best, place, here) => Math.abs(place - x) < Math.abs(places[best] - x) ? here : best, 0));
    }
    function step(event) {
      if (event.key in KEYS) {
        event.preventDefault();
        setChosen(Math.min(Math.max((at === null ? places.length : at) + KEYS[event.key], 0), places.length - 1));
      }
    }
    return el("div", { id: props.id, className: "chart " + (props.className || ""), style: { height: props.height }, role: "img",
      "aria-label": props.label, tabIndex: 0, onKeyDown: step, onBlur: () => setChosen(null) },
    el("div", { className: "plot", onPointerMove: point, onPointerDown: point, onPointerLeave: () => setChosen(null) },
      el("svg", { viewBox: "0 0 1000 1000", preserveAspectRatio: "none" },
        marks.map((mark, here) => el("path", { key: here, d: mark.d, className: mark.kind, style: { color: mark.color } }))),
      up.map(([y, text]) => el("span", { key: "up" + y, className: "up", style: { top: y + "%" } }, text)),
      across.map(([x, text], here) => el("span", { key: "across" + x, className: here % 2 ? "across odd" : "across", style: { left: x + "%" } }, text)),
      at === null ? null : valuesBox(titles, rows, places, at)));
  }

  function follow(event) {
    if (event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey) {
      event.preventDefault();
      window.dash_clientside.set_props("url", { search: new URL(event.currentTarget.href).search });
    }
  }

  function drawn(node, key) {
    if (node === null || typeof node !== "object") { return node; }
    if (Array.isArray(node)) { return node.map(drawn); }
    const { children, ...props } = node.props;
    if (node.type === "Chart") { return el(Chart, { key, ...props }); }
    if (node.type === "Link") { return el("a", { key, onClick: follow, ...props }, drawn(children ?? null)); }
    return el(node.type.toLowerCase(), { key, ...props }, drawn(children ?? null));
  }

  function Plain({ id, className, tree }) {
    return el("div", { id, className }, drawn(tree));
  }

  window.otel_openai_usage = { Chart, Plain };
})();
