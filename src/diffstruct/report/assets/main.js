// Reads the data, fills the choices, and begins.

function show(data, again = false) {
  const atEnd = !again || state.step >= run().step;
  state.runs = data.runs.map(readRun);
  state.across = data.across;
  fillChoices(again);
  drawRuns();
  fitSlider();
  setStep(atEnd ? run().step : state.step);
  changed("data");
}

function fillChoices(again) {
  const { widths, events } = run();
  const names = widths.map((each) => [each.name, clip(each.name, 60)]);
  if (!widths.some((each) => each.name === state.width)) {
    // The width in which most has happened.
    const counts = widths.map((each) => each.steps.length);
    state.width = widths[counts.indexOf(Math.max(...counts))]?.name ?? "";
  }
  for (const select of $$(".width-choice")) fill(select, names, state.width);
  const which = $("#events-width");
  fill(which, [["", "all"], ...names.map(([name, text]) => [`=${name}`, text])], again && names.some(([name]) => `=${name}` === which.value) ? which.value : "");
  if (state.across) {
    $("#across-label").hidden = false;
    const sizes = state.across.sizes.map(({ name }) => (name === null ? ["", "all widths together"] : [`=${name}`, clip(name, 60)]));
    fill($("#across"), sizes, sizes.some(([value]) => value === $("#across").value) ? $("#across").value : "");
  }
  return events;
}

function setWidth(name) {
  state.width = name;
  for (const select of $$(".width-choice")) select.value = name;
  changed("width");
}

function setRun(index) {
  play(false);
  state.run = index;
  state.hidden.clear();
  fillChoices(false);
  fitSlider();
  setStep(run().step);
  changed("run");
}

for (const select of $$(".width-choice")) select.addEventListener("change", () => setWidth(select.value));

let resized = null;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => changed("size"), 150);
});

show(JSON.parse($("#data").textContent));
if (document.documentElement.dataset.live === "yes") poll(null);
