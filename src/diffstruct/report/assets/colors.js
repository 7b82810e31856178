// Colours that colour-blind readers can tell apart: Okabe and Ito's for lines, viridis for importances.

const PALETTE = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"];
const BRIGHT = ["#4AA8E8", "#F0B43C", "#2FC79B", "#F2814B", "#E3A3C5", "#9AD7FA"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
const DASH_ARRAYS = { solid: "", dash: "7 4", dot: "2 3", dashdot: "7 3 2 3", longdash: "12 4" };
const VIRIDIS = [
  [68, 1, 84], [72, 36, 117], [65, 68, 135], [53, 95, 141], [42, 120, 142], [33, 145, 140],
  [34, 168, 132], [68, 191, 112], [122, 209, 81], [189, 223, 38], [253, 231, 37],
];

const lineColor = (index) => (dark() ? BRIGHT : PALETTE)[index % PALETTE.length];
const lineDash = (index) => DASHES[Math.floor(index / PALETTE.length) % DASHES.length];

// What matters stands out from the ground: dark on light, bright on dark. The ends that vanish are left out.
function shade(part) {
  const inside = Math.min(1, Math.max(0, part));
  const at = dark() ? 0.16 + 0.84 * inside : 0.9 - 0.9 * inside;
  const low = Math.min(9, Math.floor(at * 10));
  const rest = at * 10 - low;
  const mixed = VIRIDIS[low].map((value, i) => Math.round(value + rest * (VIRIDIS[low + 1][i] - value)));
  return `rgb(${mixed})`;
}

const ramp = () => `linear-gradient(90deg, ${[0, 0.25, 0.5, 0.75, 1].map(shade).join(", ")})`;

// Importances to shades: logarithms, between what nearly all units of the run have. Where little has been won
// yet, a share of it can be astronomical: what is far from the threshold is cut off.
function scaleOf(run) {
  const values = [];
  const thresholds = [];
  for (const { samples } of run.widths) {
    const stride = Math.max(1, Math.floor(samples.values.length / 4000));
    for (let i = 0; i < samples.values.length; i += stride) if (samples.values[i] > 0) values.push(samples.values[i]);
    for (const threshold of samples.thresholds) if (threshold > 0) thresholds.push(threshold);
  }
  const sorted = ascending(values);
  if (!sorted.length) return { low: 0, high: 1, part: () => 0.5 };
  const middle = Math.log10(quantile(ascending(thresholds.length ? thresholds : values), 0.5));
  const low = Math.max(Math.log10(quantile(sorted, 0.05)), middle - 1.5);
  const high = Math.max(Math.min(Math.log10(quantile(sorted, 0.95)), middle + 2), low + 0.5);
  return { low, high, part: (value) => (value > 0 ? (Math.log10(value) - low) / (high - low) : 0) };
}
