// What Python has packed, and what follows from it. Nothing here touches the page.

const TYPES = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array };
const ALIVE = 2 ** 32 - 1;

function unpack({ type, bytes }) {
  const text = atob(bytes);
  const raw = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) raw[i] = text.charCodeAt(i);
  return new TYPES[type](raw.buffer);
}

// How many entries of an ascending array are at most `value`.
function upTo(array, value) {
  let low = 0;
  let high = array.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (array[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low;
}

function starts(lengths) {
  const from = new Uint32Array(lengths.length + 1);
  for (let i = 0; i < lengths.length; i++) from[i + 1] = from[i] + lengths[i];
  return from;
}

function readRun(raw) {
  const events = Object.fromEntries(Object.entries(raw.events).map(([name, packed]) => [name, unpack(packed)]));
  events.from = starts(events.removed);
  const run = { ...raw, events, loss: readCurve(raw.loss) };
  run.cost = raw.cost.map((curve) => ({ ...curve, ...readCurve(curve) }));
  run.widths = raw.widths.map((width, index) => readWidth(width, index, events));
  run.measured = run.widths.some((width) => width.samples.values.length > 0);
  return run;
}

function readCurve({ steps, values }) {
  return { steps: unpack(steps), values: unpack(values) };
}

function readWidth(raw, index, events) {
  const samples = Object.fromEntries(Object.entries(raw.samples).map(([name, packed]) => [name, unpack(packed)]));
  samples.from = starts(samples.sizes);
  const width = { ...raw, index, samples, born: unpack(raw.born), died: unpack(raw.died) };
  width.end = raw.gone === null ? Infinity : raw.gone;
  width.steps = [raw.came];
  width.sizes = [raw.start];
  for (let i = 0; i < events.steps.length; i++) {
    if (events.widths[i] !== index) continue;
    width.steps.push(events.steps[i]);
    width.sizes.push(events.sizes[i]);
  }
  width.largest = width.sizes.reduce((most, size) => Math.max(most, size), 0);
  width.bornStep = (life) => (width.born[life] === 0 ? raw.came : events.steps[width.born[life] - 1]);
  width.diedStep = (life) => (width.died[life] === ALIVE ? width.end : events.steps[width.died[life] - 1]);
  width.present = (step) => raw.came <= step && step < width.end;
  width.sizeAt = (step) => (width.present(step) ? width.sizes[upTo(width.steps, step) - 1] : 0);
  return width;
}

// The lives of a width's units after so many events, in the units' order.
function aliveAfter(width, count) {
  const lives = [];
  for (let life = 0; life < width.born.length; life++) {
    if (width.born[life] <= count && count < width.died[life]) lives.push(life);
  }
  return lives;
}

// Of one moment: the lives, the last importance of each of them (NaN where there is none yet), the threshold.
function momentOf(run, width, step) {
  if (!width.present(step)) return { lives: [], importances: [], threshold: NaN };
  const lives = aliveAfter(width, upTo(run.events.steps, step));
  const at = upTo(width.samples.steps, step) - 1;
  if (at < 0) return { lives, importances: lives.map(() => NaN), threshold: NaN };
  const known = new Map(sampleOf(width, at));
  return {
    lives,
    importances: lives.map((life) => known.get(life) ?? NaN),
    threshold: width.samples.thresholds[at],
  };
}

// The importances of one sample: pairs of a life and its importance.
function sampleOf(width, at) {
  const from = width.samples.from[at];
  return aliveAfter(width, width.samples.events[at]).map((life, i) => [life, width.samples.values[from + i]]);
}

// The size of all widths together, or of those of one name: the steps at which it changes, and the sizes.
function sizeCurve(run, name) {
  const changes = [];
  for (const width of run.widths) {
    if (name !== null && width.name !== name) continue;
    width.sizes.forEach((size, i) => changes.push([width.steps[i], size - (i ? width.sizes[i - 1] : 0)]));
    if (width.gone !== null) changes.push([width.gone, -width.sizes[width.sizes.length - 1]]);
  }
  changes.sort((one, other) => one[0] - other[0]);
  const steps = [];
  const sizes = [];
  let size = 0;
  for (const [step, change] of changes) {
    size += change;
    if (steps[steps.length - 1] === step) sizes[sizes.length - 1] = size;
    else steps.push(step) && sizes.push(size);
  }
  return { steps, sizes };
}

function quantile(sorted, part) {
  if (!sorted.length) return NaN;
  const at = part * (sorted.length - 1);
  const low = Math.floor(at);
  return sorted[low] + (at - low) * (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]);
}

const ascending = (values) => [...values].filter(Number.isFinite).sort((one, other) => one - other);
