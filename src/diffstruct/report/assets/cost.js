// What the model costs over time, against the budget.

function drawCost() {
  const one = run();
  const curves = one.cost;
  const box = $("#chart-cost");
  if (!curves.length) {
    $("#cost-hint").textContent = "";
    return empty("chart-cost", "This run has recorded no cost.");
  }
  const ends = curves.map(({ name, values, budget }) => {
    const [first, last] = [values[0], values[values.length - 1]];
    const share = budget === null ? "" : `, budget ${number(budget)}`;
    return `${name}: ${whole(first)} at first, ${whole(last)} now${share}`;
  });
  $("#cost-hint").textContent = `${ends.join("; ")}.`;
  const height = 60 + 240 * curves.length;
  box.style.height = `${height}px`;
  const layout = { height, hovermode: "x unified", margin: { l: 56, r: 22, t: 30, b: 42 }, annotations: [], uirevision: String(state.run) };
  const traces = [];
  const tall = 1 / curves.length;
  curves.forEach(({ name, steps, values, budget }, i) => {
    const suffix = i ? String(i + 1) : "";
    const top = 1 - i * tall;
    traces.push({ ...stairs(steps, values, one.step), yaxis: `y${suffix}`, name: plain(name), mode: "lines", line: { color: lineColor(i), width: 1.8, shape: "hv" }, hovertemplate: `%{y:,.0f} ${plain(name)}<extra></extra>` });
    if (budget !== null) {
      traces.push({ x: [0, one.step], y: [budget, budget], yaxis: `y${suffix}`, mode: "lines", line: { color: lineColor(3), width: 2, dash: "dash" }, hovertemplate: `budget %{y:,.0f}<extra></extra>` });
      layout.annotations.push({ text: "budget", xref: "paper", x: 1, xanchor: "right", yref: `y${suffix}`, y: budget, yanchor: "bottom", showarrow: false, font: { color: lineColor(3), size: 12 } });
    }
    layout[`yaxis${suffix}`] = axis({ domain: [top - tall + (i + 1 < curves.length ? 0.1 : 0), top - (i ? 0.06 : 0)], rangemode: "tozero", tickformat: "~s", nticks: 6 });
    layout.annotations.push(corner(name, top - (i ? 0.055 : -0.01)));
  });
  layout.xaxis = stepAxis(one, { anchor: `y${curves.length > 1 ? curves.length : ""}` });
  draw("chart-cost", traces, layout, { label: `Chart: ${ends.join("; ")}` });
  box.fullRange = [0, Math.max(one.step, 1)];
}

part("cost", ["run"], drawCost);
