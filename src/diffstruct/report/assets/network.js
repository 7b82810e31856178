// The network at the present step, layer by layer: each unit a dot, shaded by its importance.

const canvas = $("#network-canvas");
let placed = []; // boxes of widths, and the dots in them, where the pointer finds them

const HEIGHT = 400; // of columns
const LABEL = 46; // above columns
const DOT = 26;

// Columns from left to right where they fit, else rows from top to bottom; dots of one size, so that areas compare.
function arrange(widths, wide) {
  const largest = Math.max(1, ...widths.map((each) => each.largest));
  const columns = widths.length > 2 && wide / widths.length >= 84;
  if (columns) {
    const each = wide / widths.length;
    const boxes = widths.map((_, i) => ({ x: (i + 0.16) * each, y: LABEL, wide: each * 0.68, tall: HEIGHT - LABEL - 8 }));
    return { columns, boxes, height: HEIGHT, size: fitting(boxes[0], largest) };
  }
  const size = fitting({ wide: wide - 8, tall: widths.length > 2 ? 90 : 170 }, largest);
  const across = Math.floor((wide - 8) / size);
  let y = 0;
  const boxes = widths.map((each) => {
    const tall = Math.max(1, Math.ceil(each.largest / across)) * size;
    const box = { x: 4, y: y + 24, wide: wide - 8, tall };
    y += tall + 38;
    return box;
  });
  return { columns, boxes, height: Math.max(y, 60), size };
}

// The size of the largest dots of which `count` fit in a box.
function fitting({ wide, tall }, count) {
  let size = Math.min(DOT, Math.sqrt((wide * tall) / count));
  while (size > 1 && Math.floor(wide / size) * Math.floor(tall / size) < count) size *= 0.97;
  return size;
}

function drawNetwork() {
  const one = run();
  const scale = scaleOf(one);
  const widths = one.widths.filter((each) => each.present(state.step));
  const wide = canvas.clientWidth;
  const { columns, height, boxes, size } = arrange(widths, wide);
  const ratio = devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(wide * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const moments = widths.map((each) => momentOf(one, each, state.step));
  placed = widths.map((each, i) => place(each, moments[i], boxes[i], columns, size));
  if (columns) placed.slice(1).forEach((right, i) => connect(pen, placed[i], right));
  placed.forEach((each) => drawWidth(pen, each, scale));
  canvas.setAttribute("aria-label", `The network at step ${whole(state.step)}: ${placed.map((each) => `${each.width.name} ${counted(each.moment.lives.length, "unit")}`).join(", ")}`);
  drawSizes(placed);
  drawLegend(one, scale);
}

function place(width, moment, box, columns, size) {
  const across = Math.max(1, Math.floor(box.wide / size));
  const count = moment.lives.length;
  const side = columns ? Math.min(across, Math.max(1, Math.ceil(count / Math.max(1, Math.floor(box.tall / size))), Math.ceil(Math.sqrt(count / 4)))) : across;
  const lines = Math.ceil(count / side);
  const left = columns ? box.x + (box.wide - Math.min(side, count) * size) / 2 : box.x;
  const top = columns ? box.y + (box.tall - lines * size) / 2 : box.y;
  return { width, moment, box, size, side, lines, left, top, columns };
}

// The band between two columns is as tall as what it connects.
function connect(pen, one, other) {
  if (!one.lines || !other.lines) return;
  const from = one.left + Math.min(one.side, one.moment.lives.length) * one.size + 4;
  const to = other.left - 4;
  const gradient = themed("grid");
  pen.fillStyle = gradient;
  pen.beginPath();
  pen.moveTo(from, one.top);
  pen.bezierCurveTo((from + to) / 2, one.top, (from + to) / 2, other.top, to, other.top);
  pen.lineTo(to, other.top + other.lines * other.size);
  pen.bezierCurveTo((from + to) / 2, other.top + other.lines * other.size, (from + to) / 2, one.top + one.lines * one.size, from, one.top + one.lines * one.size);
  pen.fill();
}

function drawWidth(pen, { width, moment, box, size, side, left, top, columns }, scale) {
  const { lives, importances, threshold } = moment;
  const font = getComputedStyle(document.body).fontFamily;
  const middle = columns ? box.x + box.wide / 2 : box.x;
  pen.textAlign = columns ? "center" : "left";
  pen.fillStyle = themed("ink");
  pen.font = `600 13px ${font}`;
  const count = counted(lives.length, width.kind === "blocks" ? "block" : "unit");
  const room = columns ? box.wide / 0.68 - 8 : box.wide;
  if (columns) {
    pen.fillText(fitted(pen, width.name, room), middle, 14);
    pen.font = `12px ${font}`;
    pen.fillStyle = themed("soft");
    pen.fillText(fitted(pen, count, room), middle, 30);
  } else {
    const name = fitted(pen, width.name, room - 90);
    pen.fillText(name, middle, box.y - 7);
    const after = middle + pen.measureText(name).width + 10;
    pen.font = `12px ${font}`;
    pen.fillStyle = themed("soft");
    pen.fillText(count, after, box.y - 7);
  }
  const square = width.kind === "blocks";
  lives.forEach((_, i) => {
    const x = left + (i % side) * size + size / 2;
    const y = top + Math.floor(i / side) * size + size / 2;
    const radius = Math.max(0.8, size * 0.4);
    const value = importances[i];
    const color = Number.isNaN(value) ? themed("silent") : shade(scale.part(value));
    pen.beginPath();
    if (square) pen.rect(x - radius, y - radius, 2 * radius, 2 * radius);
    else pen.arc(x, y, radius, 0, 2 * Math.PI);
    if (value <= threshold && size > 4) {
      pen.strokeStyle = color;
      pen.lineWidth = Math.max(1, size * 0.12);
      pen.stroke();
    } else {
      pen.fillStyle = color;
      pen.fill();
    }
  });
}

// A long name without its middle: both ends tell widths apart.
function fitted(pen, name, room) {
  let text = name;
  for (let kept = name.length - 1; kept > 4 && pen.measureText(text).width > room; kept--) {
    text = `${name.slice(0, Math.ceil(kept / 2))}…${name.slice(name.length - Math.floor(kept / 2))}`;
  }
  return text;
}

function drawSizes(widths) {
  const rows = widths.map(({ width, moment }) => {
    const below = moment.importances.filter((value) => value <= moment.threshold).length;
    const cells = [numeric("td", whole(width.start)), numeric("td", whole(moment.lives.length)), numeric("td", Number.isFinite(moment.threshold) ? whole(below) : "–"), numeric("td", whole(width.largest))];
    return row("td", [width.name, ...cells, el("td", { class: "wide", title: width.places }, clip(width.places, 90))]);
  });
  const heads = ["at first", "now", "below the price", "at most"].map((text) => numeric("th", text));
  $("#sizes-table").replaceChildren(el("thead", {}, row("th", ["width", ...heads, "places"])), el("tbody", {}, ...rows));
}

function drawLegend(one, scale) {
  const hint = "From input to output. Choose a width by a click, and a moment with the slider at the bottom of the page.";
  $("#network-hint").textContent = hint;
  const bar = el("span", { class: "ramp" });
  bar.style.background = ramp();
  const items = one.measured
    ? [
        el("span", {}, number(Number((10 ** scale.low).toPrecision(2))), bar, number(Number((10 ** scale.high).toPrecision(2)))),
        el("span", {}, el("i"), "below the price"),
        el("span", {}, el("i", { class: "unknown" }), "not measured yet"),
      ]
    : [el("span", {}, "This run has recorded no importances.")];
  $("#network-legend").replaceChildren(...items);
}

function found(event) {
  const area = canvas.getBoundingClientRect();
  const x = event.clientX - area.left;
  const y = event.clientY - area.top;
  const inside = ({ box, columns }) => x >= box.x - 4 && x <= box.x + box.wide + 4 && (columns || (y >= box.y - 22 && y <= box.y + box.tall + 4));
  const each = placed.find(inside);
  if (!each) return null;
  const column = Math.floor((x - each.left) / each.size);
  const index = Math.floor((y - each.top) / each.size) * each.side + column;
  const hit = column >= 0 && column < each.side && index >= 0 && index < each.moment.lives.length;
  return { each, index: hit ? index : null };
}

function describe(width, life, importance, threshold) {
  const died = width.diedStep(life);
  const lines = [`${width.name}, unit ${life + 1} of all that came`, `there from step ${whole(width.bornStep(life))}${Number.isFinite(died) ? ` to ${whole(died)}` : " on"}`];
  lines.push(`importance ${Number.isNaN(importance) ? "not measured yet" : number(importance)}${importance <= threshold ? ", below the price" : ""}`);
  return lines.join("\n");
}

canvas.addEventListener("pointermove", (event) => {
  const at = found(event);
  if (!at) return tip(null);
  const { width, moment } = at.each;
  const text = at.index === null
    ? `${width.name}: ${whole(moment.lives.length)} now, ${whole(width.start)} at first`
    : describe(width, moment.lives[at.index], moment.importances[at.index], moment.threshold);
  return tip(text, event.clientX, event.clientY);
});
canvas.addEventListener("pointerleave", () => tip(null));
canvas.addEventListener("click", (event) => {
  const at = found(event);
  if (at) setWidth(at.each.width.name);
});

part("network", ["run", "step", "size"], drawNetwork);
