/* The plot */
const state = { set: sets[0], metric: Object.keys(data.sets[sets[0]])[0], cost: "parameters", depth: "auto", bands: data.banded.length ? "best" : "none", hidden: new Set() };
const found = () => data.sets[state.set][state.metric];
/* of the methods that may be best, or of all; one that is pointed at shows its own */
const shade = (method) => (state.bands === "all" ? 0.09 : data.banded.includes(method) ? 0.13 : 0);
const axisOf = () => data.axes[state.cost];
const digits = () => (found().percent ? 2 : 4);

const points = (method) => {
  const values = found();
  return data.shown
    .map((ratio) => ({
      ratio, method, x: axisOf().values[ratio][method], y: values.change[ratio][method],
      low: values.low[ratio][method], high: values.high[ratio][method],
      mean: values.mean[ratio][method], std: values.std[ratio][method], n: values.n[ratio][method],
    }))
    .filter((point) => point.x !== null && point.y !== null)
    .sort((a, b) => (state.cost === "time" || state.cost === "latency" ? a.ratio - b.ratio : a.x - b.x));
};

const ticks = (low, high) => {
  const rough = (high - low) / 6, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((each) => each >= rough);
  const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, at) => Number(((first + at) * step).toPrecision(6)));
};

const chart = $("#chart");
let placed = [];

function redraw() {
  const values = found(), worse = values.lower ? 1 : -1;
  const curves = data.order.filter((method) => !state.hidden.has(method)).map(points).filter((curve) => curve.length);
  const all = curves.flat();
  const width = Math.max(300, Math.min(1140, chart.clientWidth || 900)), narrow = width < 560;
  const height = narrow ? 340 : Math.min(520, Math.round(width * 0.46));
  const box = { left: narrow ? 50 : 62, right: width - 14, top: 12, bottom: height - 46 };
  const svg = document.createElementNS(NS, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", $("#chart-caption").textContent);

  /* up is better: losses are worse * change */
  const losses = all.map((point) => worse * point.y);
  let depth = state.depth === "auto" ? values.depth : state.depth === "all" ? null : Number(state.depth);
  const deepest = Math.max(...losses, 2 * (values.zone || 0), 1e-9);
  if (depth === null || depth > deepest * 1.05) depth = deepest * 1.05;
  const gain = Math.max(...losses.map((loss) => -loss), values.zone || 0, 0.05 * depth) * 1.15;
  /* factors on a logarithmic axis, amounts on a linear one */
  const isFactor = axisOf().unit === "×", xs = all.map((point) => point.x);
  const last = isFactor ? Math.max(2, ...xs) : Math.max(...xs), first = isFactor ? Math.min(1, ...xs) : Math.min(...xs);
  const margin = (last - first || last || 1) * 0.05, linear = [first - margin, last + margin];
  const share = (x) => (isFactor ? Math.log2(x / first) / (Math.log2(last / first) * 1.04) : (x - linear[0]) / (linear[1] - linear[0]));
  const px = (x) => box.left + 6 + (box.right - box.left - 12) * share(x);
  const powers = (low, high) => { const made = []; for (let power = Math.ceil(Math.log2(low)); 2 ** power <= high * 1.04; power++) made.push(2 ** power); return made; };
  const marks = isFactor ? powers(first, last) : ticks(...linear).filter((tick) => tick >= linear[0] && tick <= linear[1]);
  const py = (y) => box.top + ((box.bottom - box.top) * (gain + worse * y)) / (gain + depth);
  const clamp = (y) => Math.max(box.top, Math.min(box.bottom, py(y)));

  if (values.zone) {
    draw(svg, "rect", { x: box.left, width: box.right - box.left, y: clamp(-worse * values.zone), height: Math.max(1, clamp(worse * values.zone) - clamp(-worse * values.zone)), fill: "currentColor", opacity: 0.1 });
  }
  for (const tick of ticks(Math.min(-worse * gain, worse * depth), Math.max(-worse * gain, worse * depth))) {
    draw(svg, "line", { x1: box.left, x2: box.right, y1: py(tick), y2: py(tick), stroke: "currentColor", opacity: tick === 0 ? 0 : 0.12 });
    draw(svg, "text", { x: box.left - 8, y: py(tick) + 4, "text-anchor": "end" }, (tick > 0 ? "+" : "") + tick);
  }
  draw(svg, "line", { x1: box.left, x2: box.right, y1: py(0), y2: py(0), stroke: "currentColor", "stroke-dasharray": "6 4", "stroke-width": 1.3 });
  draw(svg, "text", { x: box.right - 4, y: clamp(worse * (values.zone || 0)) + 15, "text-anchor": "end" }, values.zone ? "unpruned ± 1 sample" : "unpruned");
  for (const mark of marks) {
    draw(svg, "line", { x1: px(mark), x2: px(mark), y1: box.top, y2: box.bottom, stroke: "currentColor", opacity: 0.12 });
    draw(svg, "text", { x: px(mark), y: box.bottom + 18, "text-anchor": "middle" }, mark + (isFactor ? "×" : ""));
  }
  const label = narrow ? axisOf().label.replace(/:.*/, "") : axisOf().label;
  draw(svg, "text", { x: (box.left + box.right) / 2, y: height - 8, "text-anchor": "middle" }, label);
  draw(svg, "text", { x: 0, y: 0, transform: `translate(13 ${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, `change of test ${state.metric}` + (values.unit ? ` (${values.unit})` : ""));

  const clip = draw(draw(svg, "defs", {}), "clipPath", { id: "plot-area" });
  draw(clip, "rect", { x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top });
  const inner = draw(svg, "g", { "clip-path": "url(#plot-area)" });
  const outer = draw(svg, "g", {});
  placed = [];
  for (const curve of curves) {
    const method = curve[0].method, about = data.methods[method], color = `color:${colorOf(method)}`;
    const area = curve.filter((point) => point.low !== null && point.high !== null);
    if (state.bands !== "none" && state.cost !== "time" && area.length > 1) {
      const there = area.map((point) => `${px(point.x).toFixed(1)} ${py(point.high).toFixed(1)}`);
      const back = area.map((point) => `${px(point.x).toFixed(1)} ${py(point.low).toFixed(1)}`).reverse();
      draw(inner, "path", { d: "M" + [...there, ...back].join("L") + "Z", fill: "currentColor", opacity: shade(method), style: color, "data-band": method });
    }
    const path = "M" + curve.map((point) => `${px(point.x).toFixed(1)} ${py(point.y).toFixed(1)}`).join("L");
    draw(inner, "path", { d: path, fill: "none", stroke: "currentColor", "stroke-width": 2, "stroke-dasharray": about.dash || null, opacity: state.cost === "time" ? 0.4 : null, style: color, "data-line": method });
    for (const point of curve) {
      const beyond = py(point.y) > box.bottom + 1;
      const at = [px(point.x), beyond ? box.bottom - 5 : py(point.y)];
      placed.push({ ...point, at, beyond });
      draw(outer, "path", { d: beyond ? "M-5 -5L5 -5L0 5Z" : data.paths[about.marker], fill: "currentColor", style: color + (beyond ? ";opacity:.7" : ""), transform: `translate(${at[0].toFixed(1)} ${at[1].toFixed(1)})`, stroke: "var(--card)", "stroke-width": 0.7 });
    }
  }
  chart.replaceChildren(svg);
  chart.classList.remove("fallback");
  svg.addEventListener("pointermove", (event) => hover(event, svg, width));
  svg.addEventListener("pointerleave", () => { $("#tip").hidden = true; emphasise(svg, null); });
}

function emphasise(svg, method) {
  for (const line of $$("[data-line]", svg)) line.setAttribute("stroke-width", Number(line.dataset.line) === method ? 3.6 : 2);
  for (const band of $$("[data-band]", svg)) band.setAttribute("opacity", method === null ? shade(Number(band.dataset.band)) : Number(band.dataset.band) === method ? 0.25 : shade(Number(band.dataset.band)) / 3);
}

function hover(event, svg, width) {
  const frame = svg.getBoundingClientRect(), scale = width / frame.width, tip = $("#tip");
  const x = (event.clientX - frame.left) * scale, y = (event.clientY - frame.top) * scale;
  let best = null, least = 45 ** 2;
  for (const point of placed) {
    const distance = (point.at[0] - x) ** 2 + (point.at[1] - y) ** 2;
    if (distance < least) [best, least] = [point, distance];
  }
  emphasise(svg, best && best.method);
  tip.hidden = !best;
  if (!best) return;
  const values = found(), unit = values.percent ? " %" : "";
  const costs = Object.entries(data.axes)
    .map(([name, axis]) => [name, axis, axis.values[best.ratio][best.method]])
    .filter(([, , value]) => value !== null)
    .map(([name, axis, value]) => (axis.unit === "×" ? `${factor(value)} ${name}` : `${value.toPrecision(3)} ${axis.unit}`));
  const lines = [
    `keep ratio ${data.ratios[best.ratio]}: ${costs.join(", ")}`,
    `${state.metric} ${best.mean.toFixed(digits())}${best.std === null ? "" : " ± " + best.std.toFixed(digits())}${unit} (${best.n} runs)`,
    `change ${signed(best.y, digits())}${best.low === null ? "" : ` [${signed(best.low, digits())} to ${signed(best.high, digits())}]`} ${values.unit}`,
  ];
  tip.replaceChildren(element("b", {}, data.methods[best.method].name), ...lines.map((line) => element("div", {}, line)));
  const left = window.scrollX + event.clientX + 16;
  tip.style.left = Math.min(left, window.scrollX + document.documentElement.clientWidth - tip.offsetWidth - 8) + "px";
  tip.style.top = window.scrollY + event.clientY + 16 + "px";
}

function segments(options, change) {
  const group = element("span", { class: "segments", role: "group" });
  options.forEach(([name, text], at) => group.append(element("button", {
    type: "button", "aria-pressed": String(at === 0),
    onclick: (event) => { for (const each of $$("button", group)) each.setAttribute("aria-pressed", String(each === event.target)); change(name); },
  }, text)));
  return group;
}

function legend() {
  const place = $("#legend");
  const refresh = () => $$("button", place).forEach((button) => button.dataset.method && button.setAttribute("aria-pressed", String(!state.hidden.has(Number(button.dataset.method)))));
  for (const method of data.order) {
    place.append(element("button", {
      type: "button", "data-method": method, "aria-pressed": "true", title: "Click: hide or show. Double click: only this one.",
      onclick: () => { state.hidden.has(method) ? state.hidden.delete(method) : state.hidden.add(method); refresh(); redraw(); },
      ondblclick: () => { state.hidden = new Set(data.order.filter((each) => each !== method)); refresh(); redraw(); },
    }, glyph(method), data.methods[method].name));
  }
  place.append(element("button", { type: "button", onclick: () => { state.hidden.clear(); refresh(); redraw(); } }, "show all"));
  place.hidden = false;
}

function caption() {
  const other = state.set !== sets[0] || state.metric !== Object.keys(data.sets[sets[0]])[0] || state.cost !== "parameters" || state.bands === "none";
  const text = `Change of test ${state.metric} on ${state.set} against the unpruned network of the same run, over: ${axisOf().label}; mean over runs${state.bands === "none" || state.cost === "time" ? "" : ", bands: 95 % confidence intervals over nets"}.` + (found().lower ? " Lower is better; the axis is turned." : "");
  const whose = state.bands === "best" ? "Bands, of the best: " : "Bands: ";
  $("#chart-caption").textContent = other ? text : original.replace("Bands: ", whose);
}
const original = chart && $("#chart-caption").textContent;

if (chart) {
  const controls = $("#controls");
  const again = (name) => (value) => { state[name] = value; caption(); redraw(); };
  controls.append(segments(Object.keys(data.axes).map((name) => [name, name]), again("cost")));
  if (sets.length > 1) controls.append(choice("test set", sets.map((name) => [name, name]), state.set, again("set")));
  controls.append(choice("metric", Object.keys(data.sets[sets[0]]).map((name) => [name, name]), state.metric, again("metric")));
  controls.append(choice("down to", [["auto", "auto"], ...data.depths.map((depth) => [String(depth), depth + " worse"]), ["all", "all"]], "auto", again("depth")));
  controls.append(choice("95 % bands", [...(data.banded.length ? [["best", "of the best"]] : []), ["all", "all"], ["none", "none"]], state.bands, again("bands")));
  controls.hidden = false;
  caption();
  legend();
  redraw();
  let drawn = chart.clientWidth;
  new ResizeObserver(() => { if (Math.abs(chart.clientWidth - drawn) > 2) { drawn = chart.clientWidth; redraw(); } }).observe(chart);
}
