"use strict";
// Sortable tables and values under the pointer. The page says all it has to without this.

const tip = document.getElementById("pointed-at");

function show(event, text) {
  tip.textContent = text;
  tip.hidden = false;
  const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 6);
  const below = event.clientY + 16;
  const top = below + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 12 : below;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, top)}px`;
}

for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => row.cells[column].dataset.value;
    const rows = [...table.tBodies[0].rows].sort((one, other) => compare(value(one), value(other), up));
    table.tBodies[0].append(...rows);
  }));
}

function compare(one, other, up) {
  if (one === "" || other === "") return (one === "") - (other === "");  // what is missing comes last
  const numbers = [Number(one), Number(other)];
  const order = numbers.some(Number.isNaN)
    ? one.localeCompare(other, "en", { numeric: true })
    : numbers[0] - numbers[1];
  return up ? order : -order;
}

for (const cell of document.querySelectorAll("[data-tip-text]")) {
  cell.addEventListener("pointermove", (event) => show(event, cell.dataset.tipText));
  cell.addEventListener("pointerleave", () => { tip.hidden = true; });
}

for (const figure of document.querySelectorAll("figure")) {
  const tips = JSON.parse(figure.dataset.tips);
  const panels = JSON.parse(figure.dataset.panels);
  const svg = figure.querySelector("svg");
  svg.addEventListener("pointermove", (event) => {
    const mark = event.target.closest("[data-tip]");
    const said = mark ? tips[mark.dataset.tip] : readOff(svg, panels, event);
    if (said) show(event, said); else tip.hidden = true;
  });
  svg.addEventListener("pointerleave", () => { tip.hidden = true; });
}

// The values of every curve at the epoch under the pointer.
function readOff(svg, panels, event) {
  const box = svg.getBoundingClientRect();
  const scale = svg.viewBox.baseVal.width / box.width;
  const x = (event.clientX - box.left) * scale;
  const y = (event.clientY - box.top) * scale;
  for (const panel of panels) {
    const [left, top, width, height] = panel.box;
    if (x < left || x > left + width || y < top || y > top + height) continue;
    const [low, high] = panel.span;
    const wanted = low + ((x - left) / width) * (high - low);
    const epochs = panel.series.flatMap((series) => series.x);
    if (!epochs.length) return "";
    const near = epochs.reduce((a, b) => (Math.abs(b - wanted) < Math.abs(a - wanted) ? b : a));
    const lines = panel.series
      .map((series) => [series.label, series.y[series.x.indexOf(near)]])
      .filter(([, value]) => value !== undefined)
      .map(([label, value]) => `${label}: ${panel.percent ? `${(100 * value).toFixed(2)} %` : value.toFixed(4)}`);
    return [`epoch ${near}`, ...lines].join("\n");
  }
  return "";
}
