// The life of each unit as a bar from birth to death, coloured by its importance.

const CELLS = 500;
const GREY = 0.03; // the part of the colour scale that stands for "not measured yet"

// The importance of each life in each of `CELLS` stretches of time: NaN where it is not there, -1 where unmeasured.
function lifeGrid(one, width, lives, [from, to]) {
  const rows = new Map(lives.map((life, i) => [life, i]));
  const size = (to - from) / CELLS;
  const values = lives.map(() => new Float32Array(CELLS).fill(NaN));
  const cell = (step) => Math.floor((step - from) / size);
  const spans = lives.map((life) => {
    const first = Math.max(0, cell(width.bornStep(life)));
    const last = Math.min(CELLS - 1, Math.max(cell(Math.min(width.diedStep(life), one.step) - 1e-9), cell(width.bornStep(life))));
    values[rows.get(life)].fill(-1, first, last + 1);
    return [first, last];
  });
  const { steps } = width.samples;
  for (let at = 0; at < steps.length; at++) {
    // A sample holds until the next one; those that were taken before the range, if the next is within it.
    const first = Math.max(0, cell(steps[at]));
    const last = at + 1 < steps.length ? cell(steps[at + 1]) : CELLS - 1;
    if (last < 0 || first > CELLS - 1) continue;
    for (const [life, importance] of sampleOf(width, at)) {
      const index = rows.get(life);
      if (index === undefined || Number.isNaN(importance)) continue;
      const [begin, end] = spans[index];
      values[index].fill(importance, Math.max(first, begin), Math.min(last, end) + 1);
    }
  }
  return values;
}

function ordered(one, width) {
  const lives = Array.from(width.born, (_, life) => life);
  const order = $("#lives-order").value;
  if (order === "born") return lives;
  const length = (life) => Math.min(width.diedStep(life), one.step) - width.bornStep(life);
  if (order === "length") return lives.sort((life, other) => length(other) - length(life) || life - other);
  const last = new Float32Array(lives.length).fill(-1);
  for (let at = 0; at < width.samples.steps.length; at++) for (const [life, value] of sampleOf(width, at)) if (!Number.isNaN(value)) last[life] = value;
  return lives.sort((life, other) => last[other] - last[life] || life - other);
}

function lifeColors(scale) {
  const inside = [0, 0.25, 0.5, 0.75, 1].map((part) => [GREY + (1 - GREY) * part, shade(part)]);
  const low = Math.ceil(scale.low);
  const powers = [];
  for (let power = low; power <= scale.high; power++) powers.push(power);
  const ticks = powers.length > 1 ? powers : [scale.low, scale.high];
  const part = (power) => GREY + ((1 - GREY) * (power - scale.low)) / (scale.high - scale.low);
  return {
    colorscale: [[0, themed("silent")], [GREY, themed("silent")], ...inside],
    zmin: 0, zmax: 1,
    colorbar: {
      title: { text: "importance", side: "right", font: { size: 12 } }, thickness: 12, outlinewidth: 0, len: 0.9,
      tickvals: ticks.map(part), ticktext: ticks.map((power) => number(Number((10 ** power).toPrecision(3)))),
    },
  };
}

function drawLives() {
  const one = run();
  const each = width();
  $("#lives-hint").textContent = `${counted(each.born.length, "unit")} came in all; ${whole(each.sizeAt(one.step))} are there at the end. Each row is one of them.`;
  if (!each.born.length) return empty("chart-lives", "This width has had no units.");
  const box = $("#chart-lives");
  const seen = drawnCharts.has("chart-lives") && box.runShown === state.run ? box.layout.xaxis.range.map(Number) : null;
  const full = [0, Math.max(one.step, 1)];
  const range = seen && box.fullRange && (seen[0] !== 0 || seen[1] !== box.fullRange[1]) ? [Math.max(0, seen[0]), seen[1]] : full;
  const lives = ordered(one, each);
  const values = lifeGrid(one, each, lives, range);
  const scale = scaleOf(one);
  const shaded = values.map((row) => row.map((value) => (value === -1 ? 0 : GREY + 0.001 + (1 - GREY - 0.001) * Math.min(1, Math.max(0, scale.part(value))))));
  for (let i = 0; i < values.length; i++) for (let j = 0; j < CELLS; j++) if (Number.isNaN(values[i][j])) shaded[i][j] = NaN;
  const size = (range[1] - range[0]) / CELLS;
  const height = Math.max(170, Math.min(narrow() ? 420 : 560, 80 + lives.length * 13));
  box.style.height = `${height}px`;
  const trace = {
    type: "heatmap", z: shaded, x0: range[0] + size / 2, dx: size, y0: 0, dy: 1, hoverinfo: "none", hoverongaps: false,
    ygap: lives.length <= 40 ? 3 : lives.length <= 120 ? 1 : 0, ...lifeColors(scale), showscale: one.measured && !narrow(),
  };
  if (!one.measured) trace.colorscale = [[0, lineColor(0)], [1, lineColor(0)]];
  const layout = {
    height, uirevision: `${state.run}/${each.name}`, margin: { l: 48, r: 22, t: 10, b: 42 },
    xaxis: stepAxis(one, { range, showgrid: false }),
    yaxis: axis({ title: { text: "units", standoff: 4 }, range: [lives.length - 0.5, -0.5], showticklabels: false, ticks: "", showgrid: false }),
  };
  const fresh = !drawnCharts.has("chart-lives");
  draw("chart-lives", [trace], layout, { label: `Chart: the lives of ${counted(lives.length, "unit")} of ${each.name}` });
  Object.assign(box, { fullRange: full, runShown: state.run, shown: { lives, values, each } });
  box.layout.yaxis.whole = false;
  if (!fresh) return;
  box.on("plotly_relayout", (update) => Object.keys(update).some((key) => key.startsWith("xaxis")) && changed("lives-zoom"));
  box.on("plotly_hover", ({ points: [point], event }) => {
    const { lives: rows, values: table, each: shown } = box.shown;
    const [line, column] = point.pointIndex;
    const value = table[line][column];
    tip(describe(shown, rows[line], value === -1 ? NaN : value, NaN), event.clientX, event.clientY);
  });
  box.on("plotly_unhover", () => tip(null));
}

part("lives", ["run", "width", "order", "lives-zoom"], drawLives);
$("#lives-order").addEventListener("change", () => changed("order"));
