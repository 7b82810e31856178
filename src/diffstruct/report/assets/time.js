// The moment that the page shows: a slider, and a button that lets time pass.

const slider = $("#slider");
const PLAYED = 12; // seconds from beginning to end
let playing = null;

function setStep(step) {
  state.step = Math.max(0, Math.min(run().step, Math.round(step)));
  slider.value = String(state.step);
  const total = `step ${whole(state.step)}`;
  $("#now").textContent = `${total} of ${whole(run().step)}`;
  slider.setAttribute("aria-valuetext", `${total} of ${whole(run().step)}`);
  for (const each of $$(".at")) each.textContent = `at ${total}`;
  changed("step");
}

function fitSlider() {
  slider.max = String(run().step);
  slider.step = String(Math.max(1, Math.round(run().step / 500)));
}

function play(wanted) {
  if (wanted === (playing !== null)) return;
  if (playing !== null) cancelAnimationFrame(playing);
  playing = null;
  if (wanted) {
    const begin = state.step >= run().step ? 0 : state.step;
    let since = null;
    let told = -Infinity;
    const frame = (now) => {
      since ??= now;
      const step = begin + ((now - since) / 1000 / PLAYED) * run().step;
      if (now - told > 60 || step >= run().step) {
        told = now;
        setStep(step);
      }
      if (step >= run().step) play(false);
      else playing = requestAnimationFrame(frame);
    };
    playing = requestAnimationFrame(frame);
  }
  const button = $("#play");
  button.textContent = wanted ? "❚❚" : "▶";
  button.setAttribute("aria-label", wanted ? "Pause" : "Play");
  button.setAttribute("aria-pressed", String(wanted));
}

// The slider stops at multiples of its own step; its end is the end of the run.
slider.addEventListener("input", () => {
  play(false);
  const last = Number(slider.value) + Number(slider.step) > run().step;
  setStep(last ? run().step : Number(slider.value));
});
$("#play").addEventListener("click", () => play(playing === null));

for (const id of TIMED) part(id, ["step"], () => moveCursor(id));
