// Loss and sizes over time, what was added and removed; of several runs medians and quartiles.

const BINS = 120;

// Lines that change at steps; the last value lasts until `end`.
function stairs(steps, values, end) {
  const last = steps.length - 1;
  return end > steps[last] ? { x: [...steps, end], y: [...values, values[last]] } : { x: [...steps], y: [...values] };
}

function lossTraces(run) {
  const name = run.lossUnit || "loss";
  const traces = [{
    x: run.loss.steps, y: run.loss.values, name: "loss", mode: "lines", line: { color: lineColor(0), width: 1.6 },
    hovertemplate: `loss %{y:.5~g}<extra></extra>`, meta: name,
  }];
  if (run.floor.length) {
    traces.push({
      ...stairs(run.floor.map(([step]) => step), run.floor.map(([, value]) => value), run.step), name: "floor", mode: "lines",
      line: { color: themed("soft"), width: 1.4, dash: "dash", shape: "hv" }, hovertemplate: "floor %{y:.5~g}<extra></extra>",
    });
  }
  return traces;
}

function sizeTraces(run) {
  return run.widths.filter((each) => !state.hidden.has(each.name)).map((each) => {
    const few = each.steps.length <= 60;
    const line = stairs(each.steps, each.sizes, Math.min(run.step, each.end));
    return {
      ...line, yaxis: "y2", name: plain(clip(each.name, 34)), mode: few ? "lines+markers" : "lines",
      line: { color: lineColor(each.index), dash: lineDash(each.index), width: 1.8, shape: "hv" }, marker: { size: 5 },
      hovertemplate: `%{y:,d} ${plain(each.kind)}<extra>${plain(clip(each.name, 34))}</extra>`,
    };
  });
}

// Units added and removed, in bins of equal length: thousands of events come to a few bars.
function eventTraces(run, [from, to]) {
  const size = Math.max((to - from) / BINS, 1);
  const added = new Float64Array(BINS);
  const removed = new Float64Array(BINS);
  const { steps, widths } = run.events;
  for (let i = upTo(steps, from - 1); i < steps.length && steps[i] <= to; i++) {
    if (state.hidden.has(run.widths[widths[i]].name)) continue;
    const bin = Math.min(BINS - 1, Math.floor((steps[i] - from) / size));
    added[bin] += run.events.added[i];
    removed[bin] -= run.events.removed[i];
  }
  const x = Array.from(added, (_, bin) => from + (bin + 0.5) * size);
  const bars = (y, name, color) => ({
    type: "bar", x, y, width: size * 0.9, yaxis: "y3", name, marker: { color, line: { width: 0 } },
    customdata: Array.from(y, Math.abs), hovertemplate: `%{customdata:,d} ${name}<extra></extra>`,
  });
  return [bars(added, "added", lineColor(0)), bars(removed, "removed", lineColor(1))];
}

function bandTraces(band, steps, index, yaxis, name) {
  const x = unpack(steps);
  const color = lineColor(index);
  const edge = { x, mode: "lines", line: { width: 0, shape: yaxis === "y2" ? "hv" : "linear" }, yaxis, hoverinfo: "skip" };
  return [
    { ...edge, y: unpack(band.lower), name: "quartiles" },
    { ...edge, y: unpack(band.upper), name: "quartiles", fill: "tonexty", fillcolor: `${color}38` },
    { ...edge, y: unpack(band.median), name, line: { ...edge.line, color, width: 2.8 }, hoverinfo: "all", hovertemplate: "%{y:.5~g}<extra>median</extra>" },
  ];
}

function severalTraces() {
  const { across } = state;
  const name = $("#across").value === "" ? null : $("#across").value.slice(1);
  const traces = across.loss ? bandTraces(across.loss, across.steps, 0, "y", "median") : [];
  traces.push(...bandTraces(across.sizes.find((each) => each.name === name), across.steps, 0, "y2", "median"));
  for (const index of [...state.drawn].sort((one, other) => one - other)) {
    const each = state.runs[index];
    const curve = sizeCurve(each, name);
    const line = { color: lineColor(index + 1), dash: lineDash(index + 1), width: 1.3 };
    const title = plain(clip(each.title, 34));
    traces.push(
      { x: each.loss.steps, y: each.loss.values, mode: "lines", line, name: title, hovertemplate: `%{y:.5~g}<extra>${title}</extra>` },
      { ...stairs(curve.steps, curve.sizes, each.step), yaxis: "y2", mode: "lines", line: { ...line, shape: "hv" }, name: title, hovertemplate: `%{y:,d}<extra>${title}</extra>` },
    );
  }
  traces.push(...lossTraces(run()).slice(1));
  return traces;
}

function drawOverview() {
  const one = run();
  const several = state.runs.length > 1;
  const end = Math.max(1, ...(several ? state.runs.map((each) => each.step) : [one.step]));
  const box = $("#chart-loss");
  const seen = drawnCharts.has("chart-loss") ? box.layout.xaxis.range.map(Number) : null;
  const zoomed = seen && box.fullRange && (seen[0] !== box.fullRange[0] || seen[1] !== box.fullRange[1]) ? seen : [0, end];
  const bars = one.events.steps.length ? eventTraces(one, zoomed) : [];
  const traces = several ? [...severalTraces(), ...bars] : [...lossTraces(one), ...sizeTraces(one), ...bars];
  const unit = one.lossUnit ? `loss, ${one.lossUnit}` : "loss";
  const name = $("#across").value;
  const what = several ? `${name ? name.slice(1) : "all units"}: median and quartiles` : one.widths.length === 1 ? `${one.widths[0].kind} of ${one.widths[0].name}` : "size of each width";
  const log = (id) => $(id).checked;
  const layout = {
    height: narrow() ? 520 : 600, hovermode: one.widths.length > 8 || several ? "closest" : "x unified", bargap: 0, barmode: "overlay",
    hoverdistance: 30, spikedistance: -1, margin: { l: 52, r: 22, t: 30, b: 42 },
    xaxis: stepAxis(one, { range: zoomed, anchor: "y3", showspikes: true, spikemode: "across", spikethickness: 1, spikedash: "solid", spikecolor: themed("line"), uirevision: String(state.runs.length) }),
    yaxis: axis({ domain: [0.57, 1], ...scaled(log("#log-loss"), one.loss.values), uirevision: String(log("#log-loss")) }),
    yaxis2: axis({ domain: [0.2, 0.5], ...scaled(log("#log-sizes"), one.widths.flatMap((each) => each.sizes)), rangemode: "tozero", uirevision: log("#log-sizes") + name }),
    yaxis3: axis({ domain: [0, 0.13], nticks: 5, tickformat: ",d", fixedrange: true, zeroline: true }),
    annotations: [corner(several && state.across.loss ? `${unit}: median and quartiles` : unit, 1.005), corner(clip(what, narrow() ? 44 : 90), 0.505), corner(several ? "units added (up) and removed (down), of the chosen run" : "units added (up) and removed (down)", 0.135)],
  };
  const fresh = !drawnCharts.has("chart-loss");
  draw("chart-loss", traces, layout, { label: `Chart: ${unit} and sizes over ${whole(end)} steps` });
  box.fullRange = [0, end];
  if (fresh) box.on("plotly_relayout", (update) => Object.keys(update).some((key) => key.startsWith("xaxis")) && changed("zoom"));
  drawChips(several);
}

function swatch(index) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  for (const [name, value] of Object.entries({ width: 26, height: 10, "aria-hidden": "true" })) svg.setAttribute(name, value);
  const look = { x1: 0, x2: 26, y1: 5, y2: 5, stroke: lineColor(index), "stroke-width": 3, "stroke-dasharray": DASH_ARRAYS[lineDash(index)] };
  for (const [name, value] of Object.entries(look)) line.setAttribute(name, value);
  svg.append(line);
  return svg;
}

// A button for each width; with a lone one there is nothing to choose.
function drawChips(several) {
  const box = $("#chips");
  const had = document.activeElement?.dataset?.width;
  const widths = several || run().widths.length < 2 ? [] : run().widths;
  box.hidden = !widths.length;
  box.replaceChildren(...widths.map((each) => {
    const pressed = !state.hidden.has(each.name);
    const toggle = () => {
      if (pressed) state.hidden.add(each.name);
      else state.hidden.delete(each.name);
      changed("hidden");
    };
    return el("button", { type: "button", "aria-pressed": String(pressed), "data-width": each.name, onclick: toggle }, swatch(each.index), clip(each.name, 34));
  }));
  if (had !== undefined) $$("button", box).find((button) => button.dataset.width === had)?.focus();
}

part("loss", ["run", "hidden", "zoom", "log-loss", "log-sizes", "across", "drawn"], drawOverview);
for (const id of ["log-loss", "log-sizes", "across"]) $(`#${id}`).addEventListener("change", () => changed(id));
