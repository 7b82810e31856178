// Elements, numbers as text, the state of the page, and who is told when it changes.

const $ = (selector, from = document) => from.querySelector(selector);
const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];

// Text is only ever set as text: names that contain markup stay names.
function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// Plotly reads a little markup in its texts; this is text without any.
const plain = (text) =>
  String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/%\{/g, "% {");

const whole = (value) => Math.round(value).toLocaleString("en");

function number(value) {
  if (value === null || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e9) return value.toLocaleString("en");
  if (size >= 1e6 || size < 1e-3) return value.toExponential(2).replace("e+", "e");
  return value.toLocaleString("en", { maximumSignificantDigits: 4 });
}

const counted = (count, word) => `${whole(count)} ${word}${count === 1 ? "" : "s"}`;
const clip = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

const state = {
  runs: [],
  across: null,
  run: 0, // the one that is shown in detail
  width: "", // by name
  step: 0,
  drawn: new Set(), // single runs that are drawn beside the medians, by index
  hidden: new Set(), // widths that are not drawn, by name
};
const run = () => state.runs[state.run];
const width = () => run().widths.find((each) => each.name === state.width) ?? run().widths[0];

// A part of the page is drawn again when something changes that it depends on, once it can be seen.
const parts = [];

function part(id, depends, draw) {
  const each = { id, depends: new Set([...depends, "data", "theme"]), draw, dirty: true, seen: false };
  parts.push(each);
  const element = $(`#${id}`);
  new IntersectionObserver(
    (entries) => {
      each.seen = entries[entries.length - 1].isIntersecting;
      if (each.seen && each.dirty) schedule();
    },
    { rootMargin: "300px" },
  ).observe(element);
}

let scheduled = false;

function changed(...what) {
  for (const each of parts) if (what.some((name) => each.depends.has(name))) each.dirty = true;
  schedule();
}

function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    for (const each of parts) {
      if (!each.dirty || !each.seen) continue;
      each.dirty = false;
      each.draw();
    }
  });
}

function tip(text, x, y) {
  const box = $("#tip");
  box.hidden = text === null;
  if (text === null) return;
  box.textContent = text;
  const { width: wide, height: tall } = box.getBoundingClientRect();
  box.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - wide - 8))}px`;
  box.style.top = `${y + 18 + tall > innerHeight - 60 ? Math.max(4, y - tall - 10) : y + 18}px`;
}

function fill(select, options, chosen) {
  select.replaceChildren(
    ...options.map(([value, text]) => el("option", { value, selected: value === chosen }, text)),
  );
  select.value = chosen;
}

function row(tag, cells) {
  return el("tr", {}, ...cells.map((cell) => (cell instanceof Node ? cell : el(tag, {}, String(cell)))));
}

const numeric = (tag, text) => el(tag, { class: "number" }, text);
