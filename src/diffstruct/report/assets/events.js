// Every event in a table: filtered, sorted, and a page at a time.

const ROWS = 50;
const shownEvents = { sort: "step", up: true, page: 0, list: [] };

const COLUMNS = [
  ["step", "step", (e, i) => e.steps[i]],
  ["width", "width", (e, i) => e.widths[i]],
  ["removed", "removed", (e, i) => e.removed[i]],
  ["added", "added", (e, i) => e.added[i]],
  ["size", "size after", (e, i) => e.sizes[i]],
  ["cost", "cost of removal", (e, i) => (Number.isNaN(e.costs[i]) ? -Infinity : e.costs[i])],
  ["units", "units removed", null],
];

function listEvents() {
  const { events, widths } = run();
  const name = $("#events-width").value;
  const kind = $("#events-kind").value;
  const list = [];
  for (let i = 0; i < events.steps.length; i++) {
    if (name !== "" && widths[events.widths[i]].name !== name.slice(1)) continue;
    if (kind !== "all" && events[kind][i] === 0) continue;
    list.push(i);
  }
  const [, , key] = COLUMNS.find(([id]) => id === shownEvents.sort);
  const sign = shownEvents.up ? 1 : -1;
  list.sort((one, other) => sign * (key(events, one) - key(events, other)) || sign * (one - other));
  shownEvents.list = list;
}

function head() {
  const cells = COLUMNS.map(([id, text, key]) => {
    const textual = id === "width" || id === "units";
    if (!key) return el("th", {}, text);
    const sorted = shownEvents.sort === id;
    const sort = () => {
      shownEvents.up = sorted ? !shownEvents.up : true;
      Object.assign(shownEvents, { sort: id, page: 0 });
      changed("events");
    };
    const arrow = sorted ? (shownEvents.up ? " ▲" : " ▼") : "";
    return el("th", { class: textual ? false : "number", "aria-sort": sorted ? (shownEvents.up ? "ascending" : "descending") : "none" },
      el("button", { type: "button", "data-sort": id, onclick: sort }, text + arrow));
  });
  return el("thead", {}, row("th", cells));
}

function eventRow(one, i) {
  const { events, widths } = one;
  const units = events.units.subarray(events.from[i], events.from[i + 1]);
  const which = units.length > 12 ? `${[...units.subarray(0, 12)].join(", ")} … (${units.length})` : [...units].join(", ");
  const go = el("button", { type: "button", onclick: () => setStep(events.steps[i]), "aria-label": `Go to step ${whole(events.steps[i])}` }, whole(events.steps[i]));
  return row("td", [
    el("td", { class: "number" }, go),
    el("td", { class: "name" }, widths[events.widths[i]].name),
    numeric("td", events.removed[i] ? `−${events.removed[i]}` : ""),
    numeric("td", events.added[i] ? `+${events.added[i]}` : ""),
    numeric("td", whole(events.sizes[i])),
    numeric("td", Number.isNaN(events.costs[i]) ? "" : number(events.costs[i])),
    el("td", { class: "wide" }, which),
  ]);
}

function drawEvents() {
  listEvents();
  const { list } = shownEvents;
  const pages = Math.max(1, Math.ceil(list.length / ROWS));
  shownEvents.page = Math.min(shownEvents.page, pages - 1);
  const { page } = shownEvents;
  const focused = document.activeElement?.dataset?.sort;
  const rows = list.slice(page * ROWS, (page + 1) * ROWS).map((i) => eventRow(run(), i));
  $("#events-table").replaceChildren(head(), el("tbody", {}, ...rows));
  if (focused) $(`#events-table [data-sort="${focused}"]`).focus();
  $("#events-page").textContent = list.length ? `${whole(page * ROWS + 1)} to ${whole(Math.min((page + 1) * ROWS, list.length))} of ${whole(list.length)}` : "No events";
  $("#events-first").disabled = $("#events-previous").disabled = page === 0;
  $("#events-last").disabled = $("#events-next").disabled = page === pages - 1;
}

function turn(where) {
  const last = Math.ceil(shownEvents.list.length / ROWS) - 1;
  shownEvents.page = Math.max(0, Math.min(last, where(shownEvents.page, last)));
  changed("events");
}

part("events", ["run", "events"], drawEvents);
for (const id of ["events-width", "events-kind"]) {
  $(`#${id}`).addEventListener("change", () => {
    shownEvents.page = 0;
    changed("events");
  });
}
$("#events-first").addEventListener("click", () => turn(() => 0));
$("#events-previous").addEventListener("click", () => turn((page) => page - 1));
$("#events-next").addEventListener("click", () => turn((page) => page + 1));
$("#events-last").addEventListener("click", () => turn((_, last) => last));
