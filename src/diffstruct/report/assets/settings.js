// The settings of the chosen run, the tiles at the top, and the table of several runs.

function drawSettings() {
  const rows = run().settings.map(([name, value]) => row("td", [name, el("td", { class: "wide" }, value === null ? "–" : typeof value === "number" ? number(value) : String(value))]));
  const none = el("tr", {}, el("td", {}, "This run has recorded no settings."));
  $("#settings-table").replaceChildren(el("tbody", {}, ...(rows.length ? rows : [none])));
}

function drawTiles() {
  const one = run();
  const last = one.loss.values[one.loss.values.length - 1];
  const floor = one.floor.length ? one.floor[one.floor.length - 1][1] : null;
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const [first, now] = [sum(one.widths.map((each) => each.sizeAt(0))), sum(one.widths.map((each) => each.sizeAt(one.step)))];
  const tiles = [
    [last === undefined ? "–" : number(Number(last.toPrecision(4))), `loss${one.lossUnit ? `, ${one.lossUnit}` : ""}${floor === null ? "" : ` (floor ${number(floor)})`}`],
    [`${whole(first)} → ${whole(now)}`, one.widths.length === 1 ? "units" : `units, in ${counted(one.widths.length, "width")}`],
    [`+${whole(sum(one.events.added))} −${whole(sum(one.events.removed))}`, `units, in ${counted(one.events.steps.length, "event")}`],
  ];
  const cost = one.cost[0];
  if (cost) tiles.push([whole(cost.values[cost.values.length - 1]), `${cost.name}${cost.budget === null ? `, ${whole(cost.values[0])} at first` : `, budget ${number(cost.budget)}`}`]);
  $("#tiles").replaceChildren(...tiles.map(([value, text]) => el("div", { class: "tile" }, el("b", {}, value), el("span", {}, text))));
  const planned = one.total === null ? "" : ` of ${whole(one.total)}`;
  const which = state.runs.length > 1 ? `${clip(one.title, 60)}: ` : "";
  $("#status").textContent = `${which}${one.status}, step ${whole(one.step)}${planned}`;
}

function drawRuns() {
  $("#runs").hidden = state.runs.length < 2;
  const rows = state.runs.map((each, index) => {
    const toggle = (event) => {
      if (event.target.checked) state.drawn.add(index);
      else state.drawn.delete(index);
      changed("drawn");
    };
    const box = el("input", { type: "checkbox", checked: state.drawn.has(index), "aria-label": `Draw ${each.title}`, "data-run": index, onchange: toggle });
    const radio = el("input", { type: "radio", name: "run", checked: state.run === index, "aria-label": `Show ${each.title}`, "data-run": index, onchange: () => setRun(index) });
    const curve = sizeCurve(each, null);
    const last = each.loss.values[each.loss.values.length - 1];
    return row("td", [el("td", {}, el("label", { class: "draws" }, box, swatch(index + 1))), el("td", {}, radio), el("td", { class: "wide" }, each.title), each.status,
      numeric("td", whole(each.step)), numeric("td", last === undefined ? "–" : number(Number(last.toPrecision(4)))), numeric("td", whole(curve.sizes[curve.sizes.length - 1] ?? 0))]);
  });
  const heads = ["draw", "show", "run", "status", ...["steps", "loss", "units"].map((text) => numeric("th", text))];
  $("#runs-table").replaceChildren(el("thead", {}, row("th", heads)), el("tbody", {}, ...rows));
}

part("tiles", ["run"], drawTiles);
part("settings", ["run"], drawSettings);
