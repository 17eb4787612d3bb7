"use strict";
(() => {
  const $ = (selector, within = document) => within.querySelector(selector);
  const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
  const data = JSON.parse($("#data").textContent);
  const NS = "http://www.w3.org/2000/svg";

  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children);
    return made;
  };
  const draw = (parent, tag, attributes, text) => {
    const made = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  };
  const glyph = (method) => {
    const made = document.createElementNS(NS, "svg");
    made.setAttribute("class", "glyph");
    made.setAttribute("aria-hidden", "true");
    draw(made, "use", { href: "#g" + method });
    return made;
  };
  const colorOf = (method) => $("#g" + method + " g").getAttribute("style").slice(6);
  const factor = (value) => (value < 19.95 ? value.toFixed(1) : value.toFixed(0)) + "×";
  const signed = (value, digits) => (value < 0 ? "-" : "+") + Math.abs(value).toFixed(digits);

  /* The plot */
  const sets = Object.keys(data.sets);
  const state = { set: sets[0], metric: Object.keys(data.sets[sets[0]])[0], cost: "parameters", depth: "auto", bands: true, hidden: new Set() };
  const found = () => data.sets[state.set][state.metric];
  const digits = () => (found().percent ? 2 : 4);

  const points = (method) => {
    const values = found();
    return data.shown
      .map((ratio) => ({
        ratio, method, x: data.costs[state.cost][ratio][method], y: values.change[ratio][method],
        low: values.low[ratio][method], high: values.high[ratio][method],
        mean: values.mean[ratio][method], std: values.std[ratio][method], n: values.n[ratio][method],
      }))
      .filter((point) => point.x !== null && point.y !== null)
      .sort((a, b) => a.x - b.x);
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
    const deepest = Math.max(...losses, values.zone || 0, 1e-9);
    if (depth === null || depth > deepest * 1.05) depth = deepest * 1.05;
    const gain = Math.max(...losses.map((loss) => -loss), values.zone || 0, 0.05 * depth) * 1.15;
    const last = Math.max(2, ...all.map((point) => point.x)), first = Math.min(1, ...all.map((point) => point.x));
    const span = Math.log2(last / first) * 1.04;
    const px = (x) => box.left + 6 + ((box.right - box.left - 12) * Math.log2(x / first)) / span;
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
    draw(svg, "text", { x: box.right, y: py(0) - 5, "text-anchor": "end" }, values.zone && !narrow ? "unpruned; grey: ± 1 test sample" : "unpruned");
    for (let power = Math.ceil(Math.log2(first)); 2 ** power <= last * 1.04; power++) {
      draw(svg, "line", { x1: px(2 ** power), x2: px(2 ** power), y1: box.top, y2: box.bottom, stroke: "currentColor", opacity: 0.12 });
      draw(svg, "text", { x: px(2 ** power), y: box.bottom + 18, "text-anchor": "middle" }, 2 ** power + "×");
    }
    draw(svg, "text", { x: (box.left + box.right) / 2, y: height - 8, "text-anchor": "middle" }, `compression of ${state.cost}: original over kept`);
    draw(svg, "text", { x: 0, y: 0, transform: `translate(13 ${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, `change of test ${state.metric}` + (values.unit ? ` (${values.unit})` : ""));

    const clip = draw(draw(svg, "defs", {}), "clipPath", { id: "plot-area" });
    draw(clip, "rect", { x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top });
    const inner = draw(svg, "g", { "clip-path": "url(#plot-area)" });
    const outer = draw(svg, "g", {});
    placed = [];
    for (const curve of curves) {
      const method = curve[0].method, about = data.methods[method], color = `color:${colorOf(method)}`;
      const area = curve.filter((point) => point.low !== null && point.high !== null);
      if (state.bands && area.length > 1) {
        const there = area.map((point) => `${px(point.x).toFixed(1)} ${py(point.high).toFixed(1)}`);
        const back = area.map((point) => `${px(point.x).toFixed(1)} ${py(point.low).toFixed(1)}`).reverse();
        draw(inner, "path", { d: "M" + [...there, ...back].join("L") + "Z", fill: "currentColor", opacity: 0.09, style: color, "data-band": method });
      }
      const path = "M" + curve.map((point) => `${px(point.x).toFixed(1)} ${py(point.y).toFixed(1)}`).join("L");
      draw(inner, "path", { d: path, fill: "none", stroke: "currentColor", "stroke-width": 2, "stroke-dasharray": about.dash || null, style: color, "data-line": method });
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
    for (const band of $$("[data-band]", svg)) band.setAttribute("opacity", method === null ? 0.09 : Number(band.dataset.band) === method ? 0.25 : 0.03);
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
    const values = found(), unit = values.percent ? " %" : "", costs = data.costs;
    const lines = [
      `keep ratio ${data.ratios[best.ratio]}: ${factor(costs.parameters[best.ratio][best.method])} parameters, ` + (costs.FLOPs[best.ratio][best.method] === null ? "" : `${factor(costs.FLOPs[best.ratio][best.method])} FLOPs`),
      `${state.metric} ${best.mean.toFixed(digits())}${best.std === null ? "" : " ± " + best.std.toFixed(digits())}${unit} (${best.n} runs)`,
      `change ${signed(best.y, digits())}${best.low === null ? "" : ` [${signed(best.low, digits())} to ${signed(best.high, digits())}]`} ${values.unit}`,
    ];
    tip.replaceChildren(element("b", {}, data.methods[best.method].name), ...lines.map((line) => element("div", {}, line)));
    const left = window.scrollX + event.clientX + 16;
    tip.style.left = Math.min(left, window.scrollX + document.documentElement.clientWidth - tip.offsetWidth - 8) + "px";
    tip.style.top = window.scrollY + event.clientY + 16 + "px";
  }

  const choice = (label, options, value, change) => {
    const select = element("select", { onchange: () => change(select.value) }, ...options.map(([name, text]) => element("option", { value: name, selected: name === value }, text)));
    return element("label", {}, label, select);
  };

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
    const other = state.set !== sets[0] || state.metric !== Object.keys(data.sets[sets[0]])[0] || state.cost !== "parameters";
    const text = `Change of test ${state.metric} on ${state.set} against the unpruned network of the same run, over the compression of ${state.cost}; mean over runs, bands: 95 % confidence intervals over nets.` + (found().lower ? " Lower is better; the axis is turned." : "");
    $("#chart-caption").textContent = other ? text : original;
  }
  const original = chart && $("#chart-caption").textContent;

  if (chart) {
    const controls = $("#controls");
    const again = (name) => (value) => { state[name] = value; caption(); redraw(); };
    controls.append(segments([["parameters", "parameters"], ["FLOPs", "FLOPs"]], again("cost")));
    if (sets.length > 1) controls.append(choice("test set", sets.map((name) => [name, name]), state.set, again("set")));
    controls.append(choice("metric", Object.keys(data.sets[sets[0]]).map((name) => [name, name]), state.metric, again("metric")));
    controls.append(choice("down to", [["auto", "auto"], ...data.depths.map((depth) => [String(depth), "−" + depth]), ["all", "all"]], "auto", again("depth")));
    const bands = element("input", { type: "checkbox", checked: true, onchange: () => { state.bands = bands.checked; redraw(); } });
    controls.append(element("label", {}, bands, "95 % bands"));
    controls.hidden = false;
    legend();
    redraw();
    let drawn = chart.clientWidth;
    new ResizeObserver(() => { if (Math.abs(chart.clientWidth - drawn) > 2) { drawn = chart.clientWidth; redraw(); } }).observe(chart);
  }

  /* Tables: sorting and copying */
  const textOf = (cell) => {
    const small = $("small", cell), main = [...cell.childNodes].filter((node) => node !== small).map((node) => node.textContent).join("").trim();
    return small ? `${main} [${small.textContent}]` : main;
  };
  const orderOf = (cell) => {
    if (cell.dataset.order !== undefined) return Number(cell.dataset.order);
    const number = parseFloat(cell.textContent.replace(/[^\d.+-]/g, ""));
    return Number.isNaN(number) ? cell.textContent : number;
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : typeof a === typeof b ? a.localeCompare(b) : typeof a === "number" ? 1 : -1;

  for (const head of $$(".sortable thead th")) {
    head.tabIndex = 0;
    const sort = () => {
      const table = head.closest("table"), column = head.cellIndex, body = table.tBodies[0];
      const up = head.getAttribute("aria-sort") === "descending" || (column === 0 && head.getAttribute("aria-sort") !== "ascending");
      for (const each of $$("th[aria-sort]", table)) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => (column === 0 ? row.cells[0].textContent : orderOf(row.cells[column]));
      body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b)) * (up ? 1 : -1)));
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => event.key === "Enter" && sort());
  }

  const latexSigns = { "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", $: "\\$", "#": "\\#", _: "\\_", "{": "\\{", "}": "\\}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "×": "$\\times$", "±": "$\\pm$", "≥": "$\\geq$", "≤": "$\\leq$", "≈": "$\\approx$", "→": "$\\to$", "−": "$-$", "–": "--", "<": "$<$", ">": "$>$" };
  const asLatex = (text) => [...text].map((sign) => latexSigns[sign] || sign).join("");
  const asCsv = (text) => (/[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);
  async function copy(button) {
    const table = $("table", button.closest(".table"));
    const rows = [...table.rows].filter((row) => !row.hidden).map((row) => [...row.cells].map(textOf));
    let text = rows.map((row) => row.map(asCsv).join(",")).join("\n") + "\n";
    if (button.dataset.copy === "latex") {
      const [head, ...body] = rows.map((row) => row.map(asLatex).join(" & ") + " \\\\");
      text = [`\\begin{tabular}{l${"r".repeat(rows[0].length - 1)}}`, "\\toprule", head, "\\midrule", ...body, "\\bottomrule", "\\end{tabular}", ""].join("\n");
    }
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      /* pages opened as files may not write to the clipboard */
      const area = element("textarea", {});
      area.value = text;
      document.body.append(area);
      area.select();
      button.textContent = document.execCommand("copy") ? "copied" : "not possible here";
      area.remove();
    }
    setTimeout(() => { button.textContent = label; }, 1500);
  }
  for (const button of $$("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  }

  /* All results: filters, and other test sets in the same cells */
  const results = $("table[data-name=results]");
  function fill(set) {
    const labels = Object.keys(data.sets[set]), first = labels[0];
    for (const cell of $$("[data-key]", results)) {
      const [method, ratio, ...rest] = cell.dataset.key.split("."), label = rest.join("."), isChange = label === "change";
      const values = data.sets[set][isChange ? first : label], at = (name) => values[name][ratio][method], places = values.percent ? 2 : 4;
      const mean = at(isChange ? "change" : "mean");
      if (isChange && method === "0") continue;
      let text = mean === null ? "–" : isChange ? signed(mean, places) : mean.toFixed(places);
      if (!isChange && mean !== null && at("std") !== null) text += " ± " + at("std").toFixed(places);
      cell.textContent = text;
      if (mean === null) delete cell.dataset.order;
      else cell.dataset.order = mean;
      if (isChange && at("low") !== null) cell.append(element("small", {}, `${signed(at("low"), places)} to ${signed(at("high"), places)}`));
    }
    const note = $("#t-results .caption");
    note.textContent = note.textContent.replace(/^On the test set .*?\. Param/, `On the test set ${set}. Param`);
  }
  if (results) {
    const filters = $("#filters"), chosen = { text: "", flagged: false };
    const filter = () => {
      for (const row of results.tBodies[0].rows) {
        const flagged = row.cells[row.cells.length - 1].textContent.trim() !== "";
        row.hidden = !row.textContent.toLowerCase().includes(chosen.text) || (chosen.flagged && !flagged);
      }
    };
    const search = element("input", { type: "search", placeholder: "filter: method, ratio, flag", "aria-label": "filter", oninput: () => { chosen.text = search.value.toLowerCase(); filter(); } });
    const box = element("input", { type: "checkbox", onchange: () => { chosen.flagged = box.checked; filter(); } });
    if (sets.length > 1) filters.append(choice("test set", sets.map((name) => [name, name]), sets[0], fill));
    filters.append(search, element("label", {}, box, "flagged only"));
    filters.hidden = false;
  }

  /* Print shows everything */
  window.addEventListener("beforeprint", () => { for (const each of $$("details:not([open])")) { each.open = true; each.dataset.opened = ""; } });
  window.addEventListener("afterprint", () => { for (const each of $$("details[data-opened]")) { each.open = false; delete each.dataset.opened; } });
})();
