// Importances against the threshold: of all units at the present step, and over time.

const LINES = 120; // units up to which each has a line of its own
const BARS = 160; // likewise of bars

// What is far from the threshold, and on a log scale what is not positive, is drawn at the edge.
function importanceAxis(values, threshold) {
  const known = ascending(values);
  const middle = threshold > 0 ? threshold : quantile(known.filter((value) => value > 0), 0.5);
  const top = Math.min(known[known.length - 1], middle > 0 ? 1000 * middle : Infinity);
  const positive = known.filter((value) => value > 0);
  const log = $("#log-importances").checked && positive.length > 0;
  const bottom = log ? Math.max(positive[0], middle / 1000) : known[0];
  const shown = (value) => Math.min(Math.max(value, bottom), top);
  const ends = [bottom, top, ...(threshold > 0 ? [threshold] : [])].sort((one, other) => one - other);
  const [low, high] = [ends[0], ends[ends.length - 1]];
  const room = log ? 1 : (high - Math.min(low, 0)) * 0.06 || 1;
  const range = log ? [Math.log10(low * 0.7), Math.log10(high * 1.4)] : [Math.min(low, 0) - (low < 0 ? room : 0), high + room];
  return { log, shown, base: log ? low * 0.7 : 0, axis: axis({ ...scaled(log, ends), range, uirevision: String(log) }) };
}

function drawSorted(one, each) {
  const { importances, threshold } = momentOf(one, each, state.step);
  const sorted = ascending(importances).reverse();
  const scale = scaleOf(one);
  // Bars on a log scale begin at the bottom of what is shown, a little below the least.
  const { log, shown, base, axis: yaxis } = importanceAxis(sorted, threshold);
  // Of very many units several share a bar, which is as high as the one in their middle.
  const per = Math.ceil(sorted.length / BARS);
  const groups = Array.from({ length: Math.ceil(sorted.length / per) }, (_, i) => sorted.slice(i * per, (i + 1) * per));
  const middles = groups.map((group) => group[group.length >> 1]);
  const bars = {
    type: "bar", x: groups.map((group, i) => i * per + (group.length + 1) / 2), y: middles.map((value) => shown(value) - base), base, width: per * (sorted.length > 60 ? 1 : 0.85),
    marker: { color: middles.map((value) => shade(scale.part(value))), line: { width: 0 } }, customdata: middles.map(number), hovertemplate: "%{x:.0f}.: importance %{customdata}<extra></extra>",
  };
  const line = Number.isFinite(threshold)
    ? [{ type: "line", xref: "paper", x0: 0, x1: 1, yref: "y", y0: threshold, y1: threshold, line: { color: lineColor(3), width: 2, dash: "dash" } }]
    : [];
  const box = draw("chart-sorted", [bars], {
    xaxis: axis({ range: [0.4, Math.max(sorted.length, 1) + 0.6], tickformat: ",d", nticks: 6 }), yaxis, shapes: line, uirevision: `${state.run}/${each.name}/${log}`,
    annotations: line.length ? [{ text: `price ${number(threshold)}`, xref: "paper", x: 1, xanchor: "right", yref: "y", y: log ? Math.log10(threshold) : threshold, yanchor: "bottom", showarrow: false, font: { color: lineColor(3), size: 12 } }] : [],
  }, { label: `Chart: importances of ${each.name} at step ${whole(state.step)}`, clicks: false });
  box.fullRange = [0.4, Math.max(sorted.length, 1) + 0.6];
}

function spreadTraces(one, each, shown) {
  const x = Array.from(each.samples.steps);
  const all = x.map((_, at) => sampleOf(each, at));
  const rows = all.map((pairs) => ascending(pairs.map(([, value]) => value)));
  const part = (share) => rows.map((sorted) => (sorted.length ? shown(quantile(sorted, share)) : null));
  const color = lineColor(0);
  const edge = (share, more) => ({ x, y: part(share), mode: "lines", line: { width: 0 }, hoverinfo: "skip", ...more });
  const traces = [];
  if (each.born.length <= LINES) {
    const lines = { x: [], y: [] };
    const ofLife = new Map();
    all.forEach((pairs, at) => pairs.forEach(([life, value]) => {
      if (!ofLife.has(life)) ofLife.set(life, []);
      if (!Number.isNaN(value)) ofLife.get(life).push([x[at], shown(value)]);
    }));
    for (const points of ofLife.values()) {
      for (const [step, value] of points) lines.x.push(step) && lines.y.push(value);
      lines.x.push(null);
      lines.y.push(null);
    }
    traces.push({ ...lines, mode: "lines", line: { color: `${color}66`, width: 1 }, hoverinfo: "skip", connectgaps: false });
  } else {
    traces.push(edge(0), edge(1, { fill: "tonexty", fillcolor: `${color}1f` }), edge(0.25), edge(0.75, { fill: "tonexty", fillcolor: `${color}40` }));
  }
  traces.push(edge(0.5, { line: { color, width: 2 }, hoverinfo: "all", hovertemplate: "median importance %{y:.3~g}<extra></extra>" }));
  const price = Array.from(each.samples.thresholds, (value) => (Number.isFinite(value) ? value : null));
  if (price.some((value) => value !== null)) {
    traces.push({ x, y: price, mode: "lines", line: { color: lineColor(3), width: 2, dash: "dash" }, hovertemplate: "price %{y:.3~g}<extra></extra>" });
  }
  return traces;
}

function drawSpread(one, each) {
  const thresholds = ascending(each.samples.thresholds);
  const { shown, axis: yaxis } = importanceAxis(each.samples.values, quantile(thresholds, 0.5));
  const box = draw("chart-spread", spreadTraces(one, each, shown), { hovermode: "x", xaxis: stepAxis(one), yaxis, uirevision: `${state.run}/${each.name}` },
    { label: `Chart: importances of ${each.name} over time, with the price` });
  box.fullRange = [0, Math.max(one.step, 1)];
}

function drawImportances() {
  const one = run();
  const each = width();
  const known = each.samples.values.length > 0;
  const lines = each.born.length <= LINES ? "Each thin line is a unit, the thick one their median" : "The line is the median of the units, the bands are their middle half and all of them";
  $("#importances-hint").textContent = known
    ? `In ${one.importanceUnit}. Units below the price (dashed) are the first to go. ${lines}.`
    : "";
  if (!known) {
    empty("chart-sorted", "This run has recorded no importances.");
    empty("chart-spread", "");
    return;
  }
  for (const id of ["chart-sorted", "chart-spread"]) $(`#${id}`).style.height = "";
  drawSorted(one, each);
  drawSpread(one, each);
}

part("importances", ["run", "width", "log-importances"], drawImportances);
part("chart-sorted", ["step"], () => width().samples.values.length && drawSorted(run(), width()));
$("#log-importances").addEventListener("change", () => changed("log-importances"));
