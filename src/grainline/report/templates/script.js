"use strict";
// What the page can do beyond being read: values under the pointer, and arrow keys from token to token. Everything is
// there without it. It builds nodes and text, never HTML, so what stands in the data stays text.

// ---- curves: a pointer or the arrow keys read values off a drawing

function curvesOf(svg) {
  return Array.from(svg.querySelectorAll("[data-points]"), (g) => ({
    label: g.dataset.label,
    style: g.dataset.style,
    points: g.dataset.points.split(" ").map((point) => point.split(",").map(Number)),
  })).filter((curve) => curve.points.length && curve.points[0].length > 1);
}

function number(value) {
  const short = Math.abs(value) >= 1e6 || (value && Math.abs(value) < 1e-4) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
  return short.replace("-", "−");
}

function place(svg, name, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  svg.append(node);
}

function readable(svg) {
  const curves = curvesOf(svg);
  const said = svg.parentElement.querySelector(".readout");
  if (!curves.length || !said) return;
  const [x0, x1, left, right, y0, y1, bottom, top] = svg.querySelector("[data-axes]").dataset.axes.split(" ").map(Number);
  const across = (x) => left + ((x - x0) / (x1 - x0)) * (right - left);
  const up = (y) => bottom + ((y - y0) / (y1 - y0)) * (top - bottom);
  const unit = svg.dataset.x || "";
  const ticks = svg.dataset.ticks ? svg.dataset.ticks.split("|") : null;
  const cloud = svg.dataset.kind === "points";
  const every = curves.flatMap((curve) => curve.points.map((point) => ({ curve, point })));
  const places = cloud ? every.map((_, i) => i) : [...new Set(every.map(({ point }) => point[0]))].sort((a, b) => a - b);
  let at = -1;

  function clear() {
    svg.querySelectorAll(".at").forEach((node) => node.remove());
    said.textContent = "";
  }

  function show(i) {
    at = Math.max(0, Math.min(places.length - 1, i));
    clear();
    const here = cloud ? [every[places[at]]] : curves.flatMap((curve) => curve.points.filter((point) => point[0] === places[at]).map((point) => ({ curve, point })));
    const x = here[0].point[0];
    if (!cloud) place(svg, "line", { class: "at", x1: across(x), x2: across(x), y1: bottom, y2: top, stroke: "var(--ink)", "stroke-width": 0.7 });
    for (const { curve, point } of here) place(svg, "circle", { class: "at", cx: across(point[0]), cy: up(point[1]), r: 3.4, fill: `var(--c${curve.style})`, stroke: "var(--card)", "stroke-width": 1 });
    const parts = here.map(({ curve, point }) => `${curve.label} ${number(point[1])}` + (point.length > 3 ? ` [${number(point[2])}, ${number(point[3])}]` : ""));
    const where = ticks ? ticks[Math.round(x)] : number(x);
    said.textContent = cloud ? `${here[0].curve.label}: ${unit} ${where}, ${svg.dataset.y} ${number(here[0].point[1])}` : `${unit} ${where}: ${parts.join("; ")}`;
  }

  function nearest(event) {
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * scale;
    const y = (event.clientY - box.top) * scale;
    const far = (i) => cloud ? (across(every[i].point[0]) - x) ** 2 + (up(every[i].point[1]) - y) ** 2 : Math.abs(across(places[i]) - x);
    show(places.reduce((best, _, i) => (far(i) < far(best) ? i : best), 0));
  }

  svg.tabIndex = 0;
  svg.addEventListener("pointermove", nearest);
  svg.addEventListener("pointerdown", nearest);
  svg.addEventListener("pointerleave", clear);
  svg.addEventListener("blur", clear);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) show(at + step);
    else if (event.key === "Home") show(0);
    else if (event.key === "End") show(places.length - 1);
    else if (event.key === "Escape") clear();
    else return;
    event.preventDefault();
  });
}

// ---- pairs: one token at a time, by pointer or by key

const quantities = Array.from(document.querySelectorAll('#pairs input[name="shade"]'));
const figures = document.getElementById("figures");
const runs = Array.from(document.querySelectorAll('#pairs input[name="run"]'));
const answers = Array.from(document.querySelectorAll("#pairs .tokens"));

function told(token) {
  const parts = quantities.map((choice) => [choice.dataset.title, token.dataset[choice.value]]).filter(([, value]) => value);
  const shown = quantities.find((choice) => choice.checked);
  parts.sort(([one], [other]) => (other === shown?.dataset.title) - (one === shown?.dataset.title));
  return parts.map(([title, value]) => `${title} ${value}`).join(" · ");
}

function choose(token, box) {
  const pair = box.closest(".pair");
  pair.querySelectorAll(".on").forEach((other) => { other.classList.remove("on"); other.removeAttribute("aria-selected"); });
  token.classList.add("on");
  token.setAttribute("aria-selected", "true");
  box.setAttribute("aria-activedescendant", token.id);
  const out = pair.querySelector(".said");
  const tokens = Array.from(box.querySelectorAll(".t"));
  const piece = token.dataset.s && box.parentElement.querySelector(`[data-segment="${Number(token.dataset.s)}"]`);
  out.replaceChildren();
  const name = document.createElement("b");
  name.textContent = `“${token.firstChild ? token.firstChild.textContent : ""}”`;
  out.append(name, ` ${box.dataset.side}, token ${tokens.indexOf(token) + 1} of ${box.dataset.count}: ${told(token)}`);
  if (piece) {
    const line = document.createElement("span");
    line.textContent = piece.textContent;
    out.append(line);
  }
}

function walk(box) {
  const tokens = Array.from(box.querySelectorAll(".t"));
  if (!tokens.length) return;
  box.setAttribute("role", "listbox");
  box.setAttribute("aria-orientation", "horizontal");
  tokens.forEach((token, i) => {
    token.id = `${box.id}-${i}`;
    token.setAttribute("role", "option");
    token.addEventListener("pointerenter", () => choose(token, box));
    token.addEventListener("pointerdown", () => choose(token, box));
  });
  const here = () => Math.max(0, tokens.findIndex((token) => token.classList.contains("on")));
  box.addEventListener("focus", () => choose(tokens[here()], box));
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const jump = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (step) go(here() + step);
    else if (event.key === "Home") go(0);
    else if (event.key === "End") go(tokens.length - 1);
    else if (jump) neighbour(box, jump);
    else if (event.key === "0" && figures) figures.click();
    else if (event.key === "r" && runs.length) turn(box);
    else if (quantities[Number(event.key) - 1]) quantities[Number(event.key) - 1].click();
    else return;
    event.preventDefault();
    function go(i) {
      const token = tokens[Math.max(0, Math.min(tokens.length - 1, i))];
      choose(token, box);
      token.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  });
}

// Marks the same token of the same answer as the chosen run reads it, where that run has read the pair.
function counterpart(token, box, run) {
  const of = (number) => Array.from(box.closest(".pair").querySelectorAll(`.tokens[data-run="${number}"]`));
  const other = of(run)[of(box.dataset.run).indexOf(box)];
  if (!other) return;
  const tokens = Array.from(other.querySelectorAll(".t"));
  const i = Array.from(box.querySelectorAll(".t")).indexOf(token);
  if (tokens.length) choose(tokens[Math.min(i, tokens.length - 1)], other);
}

function turn(box) {
  const pair = box.closest(".pair");
  const there = runs.filter((choice) => pair.classList.contains(`by-${choice.value}`));
  there[(there.findIndex((choice) => choice.checked) + 1) % there.length].click();
  pair.querySelector(".on").closest(".tokens").focus({ preventScroll: true });
}

function neighbour(box, jump) {
  const shown = answers.filter((other) => other.dataset.run === box.dataset.run);
  const next = shown[shown.indexOf(box) + jump];
  if (!next) return;
  const pair = next.closest("details");
  if (pair) pair.open = true;
  next.focus();
}

function again(act) {
  document.querySelectorAll("#pairs .on").forEach((token) => act(token, token.closest(".tokens")));
}

quantities.forEach((choice) => choice.addEventListener("change", () => again(choose)));
runs.forEach((choice) => choice.addEventListener("change", () => again((token, box) => counterpart(token, box, choice.value))));
document.querySelectorAll("figure > svg").forEach(readable);
answers.forEach(walk);
