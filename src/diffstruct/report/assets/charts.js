// What all charts share: Plotly with the page's look, keys, zooms that stay, and the line at the present step.

const coarse = matchMedia("(pointer: coarse)");
const narrow = () => innerWidth < 760;
const drawnCharts = new Set();

function axis(more = {}) {
  return {
    gridcolor: themed("grid"), linecolor: themed("line"), zerolinecolor: themed("line"), zeroline: false,
    automargin: true, exponentformat: "e", ...more,
  };
}

// An axis on a log scale, labelled at powers of ten where `values` span several, else also between these.
function scaled(log, values) {
  if (!log) return { type: "linear" };
  const sorted = ascending(values).filter((value) => value > 0);
  const decades = sorted.length ? Math.log10(sorted[sorted.length - 1] / sorted[0]) : 1;
  if (decades <= 2.5) return { type: "log", dtick: "D2", tickformat: "~g" };
  return { type: "log", dtick: Math.ceil(decades / 7), exponentformat: "power" };
}

function stepAxis(run, more = {}) {
  return axis({ title: { text: "step", standoff: 6 }, range: [0, Math.max(run.step, 1)], tickformat: ",d", nticks: narrow() ? 5 : 9, ...more });
}

// A title in the corner of a chart, where an axis title would cost width.
function corner(text, y, more = {}) {
  return {
    text: plain(text), xref: "paper", yref: "paper", x: 0, y, xanchor: "left", yanchor: "bottom", showarrow: false,
    font: { size: 12.5, color: themed("soft") }, ...more,
  };
}

function draw(id, traces, layout, { label, clicks = true } = {}) {
  const box = $(`#${id}`);
  $(".empty", box)?.remove();
  const whole = {
    font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: themed("ink") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
    dragmode: coarse.matches ? false : "zoom", uirevision: "kept",
    hoverlabel: { bgcolor: themed("card"), bordercolor: themed("line"), font: { color: themed("ink") }, namelength: 40 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: themed("soft"), activecolor: themed("ink") },
    ...layout,
    // On a touch screen the buttons are always there; titles make room for them.
    margin: { l: 48, r: 22, t: 26, b: 42, ...layout.margin, ...(coarse.matches ? { t: 58 } : {}) },
  };
  const config = {
    responsive: true, displaylogo: false, scrollZoom: false, doubleClick: "reset", displayModeBar: coarse.matches ? true : "hover",
    modeBarButtons: [...(coarse.matches ? [] : [["toImage"]]), ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
    showSendToCloud: false, plotlyServerURL: "", // nothing leaves the page
    showTips: false, showAxisDragHandles: !coarse.matches,
    toImageButtonOptions: { filename: id.replace("chart-", "diffstruct-"), scale: 2 },
  };
  Plotly.react(box, traces, whole, config);
  box.setAttribute("aria-label", label);
  if (drawnCharts.has(id)) return box;
  drawnCharts.add(id);
  box.tabIndex = 0;
  box.setAttribute("role", "group");
  box.setAttribute("aria-describedby", "keys");
  box.addEventListener("keydown", (event) => onKey(box, event));
  if (TIMED.includes(id)) {
    moveCursor(id);
    box.on("plotly_afterplot", () => moveCursor(id));
  }
  if (clicks) box.on("plotly_click", ({ points }) => setStep(Number(points[0].x)));
  return box;
}

// A chart that there is nothing to show in says why.
function empty(id, text) {
  const box = $(`#${id}`);
  if (drawnCharts.delete(id)) Plotly.purge(box);
  box.replaceChildren(el("p", { class: "empty" }, text));
  box.removeAttribute("tabindex");
  box.style.height = "auto";
}

function onKey(box, event) {
  if (event.target !== box || event.ctrlKey || event.metaKey || event.altKey) return;
  const [from, to] = box.layout.xaxis.range.map(Number);
  const wide = to - from;
  const ranges = {
    "+": [from + wide / 4, to - wide / 4], "=": [from + wide / 4, to - wide / 4], "-": [from - wide / 2, to + wide / 2],
    ArrowLeft: [from - wide / 5, to - wide / 5], ArrowRight: [from + wide / 5, to + wide / 5], 0: null,
  };
  if (!(event.key in ranges)) return;
  event.preventDefault();
  const full = box.fullRange;
  let range = ranges[event.key] ?? full;
  if (range[1] - range[0] >= full[1] - full[0]) range = full;
  else if (range[0] < full[0]) range = [full[0], full[0] + range[1] - range[0]];
  else if (range[1] > full[1]) range = [full[1] - range[1] + range[0], full[1]];
  const update = { "xaxis.range": range };
  if (ranges[event.key] === null) for (const name of Object.keys(box.layout)) if (/^yaxis/.test(name) && !box.layout[name].fixedrange) update[`${name}.autorange`] = box.layout[name].whole ?? true;
  Plotly.relayout(box, update);
}

// The line at the present step lies over a chart: to move it, Plotly need not draw anything again.
const TIMED = ["chart-loss", "chart-lives", "chart-spread", "chart-cost"];

function moveCursor(id) {
  const box = $(`#${id}`);
  const areas = drawnCharts.has(id) ? $$(".nsewdrag", box).map((each) => each.getBoundingClientRect()) : [];
  if (!areas.length) return;
  const line = $(".cursor", box) ?? box.appendChild(el("div", { class: "cursor", "aria-hidden": "true" }));
  const around = box.getBoundingClientRect();
  const [from, to] = box.layout.xaxis.range.map(Number);
  const part = (state.step - from) / (to - from);
  const top = Math.min(...areas.map((each) => each.top));
  line.hidden = part < 0 || part > 1;
  line.style.left = `${areas[0].left - around.left + part * areas[0].width}px`;
  line.style.top = `${top - around.top}px`;
  line.style.height = `${Math.max(...areas.map((each) => each.bottom)) - top}px`;
}
