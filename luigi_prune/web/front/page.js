// The pages under /experiments: an overview, an experiment, a task. They ask for JSON every few seconds.
// Everything that comes from files goes into text nodes and attributes, never into HTML.
"use strict";

const EVERY = 3000; // ms between two questions
const STATES = { d: "done", r: "running", q: "queued", f: "failed", s: "stopped", b: "blocked", w: "waiting" };
const ORDER = ["failed", "running", "queued", "stopped", "blocked", "waiting", "done"]; // most worth a look first
const page = document.getElementById("page");

// ---- elements

function h(name, properties, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

function svg(name, properties, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(properties || {})) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const nodes = (children) => children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== "").map((child) => (child instanceof Node ? child : document.createTextNode(child)));

function fill(element, ...children) {
  element.replaceChildren(...nodes(children));
  return element;
}

// Gives an element these children by changing those that it has, so that focus, scrolling and selected text stay. Nothing
// else may hold on to the children, nor may they have listeners.
function refill(element, ...children) {
  const wanted = nodes(children);
  wanted.forEach((node, at) => {
    const own = element.childNodes[at];
    if (!own) element.append(node);
    else if (own.nodeName !== node.nodeName) own.replaceWith(node);
    else if (node instanceof Text) { if (own.data !== node.data) own.data = node.data; }
    else become(own, node);
  });
  while (element.childNodes.length > wanted.length) element.lastChild.remove();
}

function become(own, node) {
  for (const { name } of [...own.attributes]) if (!node.hasAttribute(name)) own.removeAttribute(name);
  for (const { name, value } of node.attributes) if (name !== "style" && own.getAttribute(name) !== value) own.setAttribute(name, value);
  if (own.style.cssText !== node.style.cssText) own.style.cssText = node.style.cssText; // the policy forbids the attribute
  refill(own, ...node.childNodes);
}

function square(state, part) {
  const element = h("span", { class: `square ${state}`, "aria-hidden": "true" });
  if (part !== undefined) element.style.setProperty("--part", `${Math.round(100 * part)}%`);
  return element;
}

const stateWord = (state) => h("span", { class: "state" }, square(state), state);
const sheet = (title, ...children) => h("section", { class: "sheet" }, h("h2", null, title), children);

function legend(counts) {
  const entries = Object.entries(counts).map(([state, count]) => h("span", { class: "state" }, square(state), h("b", null, String(count)), state));
  return h("div", { class: "legend" }, entries);
}

function bar(counts, thin) {
  const total = Object.values(counts).reduce((sum, count) => sum + count, 0) || 1;
  const element = h("div", { class: thin ? "bar thin" : "bar", role: "img", "aria-label": words(counts) });
  for (const state of ["done", "running", "queued", "stopped", "failed", "blocked"]) {
    if (!counts[state]) continue;
    const part = h("i", { class: state });
    part.style.width = `${(100 * counts[state]) / total}%`;
    element.append(part);
  }
  return element;
}

const words = (counts) => Object.entries(counts).map(([state, count]) => `${count} ${state}`).join(", ");
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const ratio = (value) => `${Number((100 * value).toPrecision(3))} %`;
const address = (id, key) => `/experiments/e/${id}/t/${key}`;
const file = (path) => path.split("/").map((part) => encodeURIComponent(part)).join("/");

function duration(seconds) {
  if (seconds < 10) return `${Number(Math.max(0, seconds).toPrecision(2))} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} days`;
}

// ---- questions

async function ask(what) {
  const answer = await fetch(`/experiments/api/${what}`, { headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error((await answer.text()).trim() || answer.statusText);
  return answer.json();
}

// Calls `draw` again and again; a hidden page waits until it is shown.
async function keep(draw) {
  const news = document.getElementById("news");
  for (;;) {
    try {
      await draw();
      news.textContent = "";
    } catch (error) {
      const unreachable = error instanceof TypeError && /fetch|network/i.test(error.message);
      news.textContent = unreachable ? "luigid does not answer; this page goes on asking" : error.message;
    }
    document.body.dataset.drawn = String(Number(document.body.dataset.drawn || 0) + 1);
    await new Promise((go) => setTimeout(go, EVERY));
    if (document.hidden) await new Promise((go) => document.addEventListener("visibilitychange", go, { once: true }));
  }
}

function here(...entries) {
  const where = [h("a", { href: "/experiments" }, "Experiments")];
  for (const [text, address] of entries) where.push(address ? h("a", { href: address }, text) : h("span", null, text));
  refill(document.getElementById("where"), where);
  document.title = entries.length ? entries[entries.length - 1][0] : "Experiments";
}

// ---- overview

function whoRuns(state) {
  const [driver] = state.drivers.filter((one) => one.state === "running");
  if (state.alive > 1) return `${state.alive} runs at work`;
  if (driver) return `runs on ${driver.host} (${driver.backend}, ${driver.slots} at once)`;
  const [last] = state.drivers;
  if (!last) return "no run known";
  const when = `${duration(last.age)} ago`;
  return last.state === "ended" ? `last run ended ${when}` : `its run on ${last.host} fell silent ${when}`;
}

function estimate(state) {
  return state.estimate === null ? "" : `about ${duration(state.estimate)} left`;
}

function reportLink(address, main) {
  if (!address) return "";
  const partial = address.split("/").at(-2).includes("partial"); // the report's folder, not a name that somebody chose
  return h("a", { class: main ? "button main" : "button", href: file(address) }, partial ? "Partial report" : "Report");
}

function overview() {
  here();
  keep(async () => {
    const answer = await ask("overview");
    if (!answer.experiments.length) {
      refill(page, h("h1", null, "No experiments yet"),
        h("p", { class: "quiet" }, "Runs record themselves in their results folder when they start. Watched: ", h("code", null, answer.folders.join(", ") || "nothing"), ". Other folders: restart with --results FOLDER."));
      return;
    }
    const cards = answer.experiments.map((one) => h("section", { class: "sheet" },
      h("div", { class: "row" },
        h("h2", null, h("a", { href: `/experiments/e/${one.id}` }, one.name), h("small", null, `${one.network} on ${one.dataset}, ${plural(one.methods, "method")}`)),
        h("span", { class: "end" }, reportLink(one.report))),
      bar(one.counts),
      h("p", { class: "row" }, legend(one.counts), h("span", { class: "end quiet" }, [whoRuns(one), estimate(one)].filter(Boolean).join(", "))),
      answer.folders.length > 1 ? h("code", { class: "quiet" }, one.results) : ""));
    refill(page, h("h1", null, "Experiments"), cards);
  });
}

// ---- experiment

function tasksOf(experiment) {
  return experiment.tasks.map((row, place) => {
    const task = { place };
    experiment.columns.forEach((column, at) => { task[column] = row[at]; });
    return task;
  });
}

// The state of a group of tasks: the one most worth a look, and how much of the group is done.
function together(tasks, state) {
  let done = 0;
  let worst = "done";
  for (const task of tasks) {
    const own = STATES[state.states[task.place]];
    if (own === "done") done += 1;
    else if (own === "running") done += (state.news[task.place] || {}).fraction || 0;
    if (ORDER.indexOf(own) < ORDER.indexOf(worst)) worst = own;
  }
  return { state: worst, part: done / tasks.length };
}

// Small enough that a wide matrix fits the page, if it can; on a phone, it scrolls.
function squareSize(columns, nets, repetitions) {
  const most = nets * repetitions > 24 ? 9 : 15;
  const room = (page.clientWidth - 220) / columns - 10;
  return page.clientWidth < 900 ? most : Math.max(9, Math.min(most, Math.floor(room / nets) - 3));
}

function matrix(experiment, tasks) {
  const groups = new Map(); // "method|ratio|net|repetition" -> tasks
  const nets = new Map();
  const ratios = new Set();
  let repetitions = 1;
  let count = 1;
  for (const task of tasks) {
    if (task.net === null) continue;
    count = Math.max(count, task.net + 1);
    if (task.family === "TrainBase") { nets.set(task.net, [task]); continue; }
    repetitions = Math.max(repetitions, task.repetition + 1);
    ratios.add(task.keep_ratio);
    const name = [task.method, task.keep_ratio, task.net, task.repetition].join("|");
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(task);
  }
  const columns = [...ratios].sort((one, other) => other - one);
  const squares = [];
  const chosen = h("div", { class: "chosen-tasks quiet" }, "In a cell, columns are networks and rows are repetitions; the filled part of a square is done. Choose one to see its tasks.");
  let picked = null;

  function add(cell, group, label, column, line) {
    const element = h("button", { class: "square waiting", type: "button", "aria-label": label, onclick: () => choose(entry) });
    element.style.gridColumn = String(column + 1);
    element.style.gridRow = String(line + 1);
    const entry = { element, group, label };
    squares.push(entry);
    cell.append(element);
  }
  function choose(entry) {
    if (picked) picked.element.classList.remove("chosen");
    picked = entry;
    entry.element.classList.add("chosen");
    explain();
  }
  function explain() {
    if (!picked) return;
    const rows = picked.group.map((task) => {
      const own = STATES[last.states[task.place]];
      const news = last.news[task.place] || {};
      return h("tr", null, h("td", null, stateWord(own)), h("td", null, h("a", { href: address(experiment.id, task.key) }, task.family + (task.test_set ? ` on ${task.test_set}` : ""))), h("td", { class: "message quiet" }, news.message || ""));
    });
    refill(chosen, h("b", null, picked.label), h("table", { class: "list chosen-list" }, rows));
    chosen.classList.remove("quiet");
  }

  let last = null;
  const body = h("tbody");
  if (nets.size) {
    const cell = h("div", { class: "cell" });
    for (const [net, group] of nets) add(cell, group, `trained network ${net}`, net, 0);
    const below = columns[0] === 1; // the column of the networks as they were trained
    body.append(h("tr", { class: below ? "" : "base" }, h("th", { scope: "row" }, "Trained networks"), h("td", { colspan: below ? 1 : columns.length }, cell)));
  }
  const unlabelled = tasks.map((task) => task.method).filter((method) => method && !(method in experiment.labels));
  const methods = [...Object.entries(experiment.labels), ...[...new Set(unlabelled)].map((method) => [method, method])];
  for (const [method, label] of methods) {
    const cells = columns.map((column) => {
      const cell = h("div", { class: "cell" });
      for (let net = 0; net < count; net += 1) {
        for (let repetition = 0; repetition < repetitions; repetition += 1) {
          const group = groups.get([method, column, net, repetition].join("|"));
          if (group) add(cell, group, `${label}, keep ${ratio(column)}, network ${net}, repetition ${repetition}`, net, repetition);
        }
      }
      return h("td", null, cell);
    });
    if (!squares.length || cells.some((cell) => cell.firstChild.childElementCount)) {
      body.append(h("tr", null, h("th", { scope: "row", title: method }, label, label === method ? "" : h("small", null, method)), cells));
    }
  }
  const head = h("thead", null, h("tr", null, h("th", { scope: "col", class: "corner" }, "keep ratio"), columns.map((column) => h("th", { scope: "col" }, ratio(column)))));
  function update(state) {
    last = state;
    for (const { element, group, label } of squares) {
      const now = together(group, state);
      const looks = `square ${now.state}${picked && picked.element === element ? " chosen" : ""}`;
      if (element.className !== looks) element.className = looks;
      element.style.setProperty("--part", `${Math.round(100 * now.part)}%`);
      const busy = group.map((task) => state.news[task.place]).find((news) => news && (news.message || news.node));
      element.title = `${label}: ${now.state}${busy && now.state !== "done" ? `\n${busy.message}` : ""}`;
    }
    explain();
  }
  body.style.setProperty("--square", `${squareSize(columns.length, count, repetitions)}px`);
  const element = h("section", { class: "sheet" }, h("h2", null, "Methods and keep ratios", h("small", null, `${plural(count, "network")}, ${plural(repetitions, "repetition")} each`)),
    h("div", { class: "scroll" }, h("table", { class: `matrix${columns.length > 7 ? " whole" : ""}${columns.length > 14 ? " dense" : ""}` }, head, body)), chosen);
  return { element, update };
}

function runningList(tasks, state) {
  const rows = [];
  for (const [place, news] of Object.entries(state.news)) {
    if (STATES[state.states[place]] !== "running") continue;
    const time = news.left !== undefined ? `${duration(news.left)} left` : news.seconds !== undefined ? `for ${duration(news.seconds)}` : "";
    rows.push(h("tr", null, h("td", null, square("running", news.fraction)),
      h("td", { class: "main-column" }, h("a", { href: address(state.id, tasks[place].key) }, tasks[place].title), h("div", { class: "quiet message" }, news.message)),
      h("td", { class: "quiet" }, news.node && h("div", null, news.node), news.job && h("div", null, news.job)),
      h("td", { class: "number" }, news.fraction ? `${Math.round(100 * news.fraction)} %` : "", h("div", { class: "quiet" }, time))));
  }
  return rows.length ? sheet(`Running: ${rows.length}`, h("table", { class: "list runs" }, rows.slice(0, 24)), rows.length > 24 ? h("p", { class: "quiet" }, `and ${rows.length - 24} more`) : "") : "";
}

function queuedList(tasks, state) {
  const reasons = placesBy(state, "queued", (news) => news.reason || (news.message ? "no reason given" : "about to start"));
  const rows = [...reasons].map(([reason, places]) => h("tr", null,
    h("td", { class: "number" }, h("span", { class: "state" }, square("queued"), String(places.length))),
    h("td", null, h("div", null, reason), someTasks(tasks, state, places))));
  return rows.length ? sheet("In the queue, by reason", h("table", { class: "list" }, rows)) : "";
}

// Failures by message: one cause often stops many tasks.
function failedList(tasks, state) {
  const causes = placesBy(state, "failed", (news) => news.message);
  const rows = [...causes].slice(0, 12).map(([message, places]) => h("tr", null,
    h("td", { class: "number" }, h("span", { class: "state" }, square("failed"), String(places.length))),
    h("td", null, h("div", { class: "message" }, message), someTasks(tasks, state, places))));
  const more = causes.size > rows.length ? h("p", { class: "quiet" }, `and ${causes.size - rows.length} more messages`) : "";
  return rows.length ? sheet("Failed, by message", h("table", { class: "list" }, rows), more) : "";
}

function placesBy(state, wanted, name) {
  const groups = new Map();
  for (const [place, news] of Object.entries(state.news)) {
    if (STATES[state.states[place]] !== wanted) continue;
    if (!groups.has(name(news))) groups.set(name(news), []);
    groups.get(name(news)).push(Number(place));
  }
  return new Map([...groups].sort(([, one], [, other]) => other.length - one.length));
}

function someTasks(tasks, state, places) {
  const links = places.slice(0, 4).map((place) => h("div", null, h("a", { href: address(state.id, tasks[place].key) }, tasks[place].title)));
  return [links, places.length > links.length ? h("div", { class: "quiet" }, `and ${places.length - links.length} more`) : ""];
}

function families(state) {
  const rows = state.families.map(({ family, ...counts }) => {
    const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
    const cell = h("td", null, bar(counts, true));
    cell.style.width = "45%";
    cell.style.verticalAlign = "middle";
    return h("tr", null, h("td", null, family), cell, h("td", { class: "number" }, `${counts.done || 0} of ${total}`));
  });
  return sheet("Progress by kind of task", h("table", { class: "list" }, rows));
}

function drivers(experiment, state) {
  const rows = state.drivers.map((one) => h("tr", null, h("td", null, `${one.host}, process ${one.pid}`), h("td", null, `${one.backend}, ${one.slots} at once`),
    h("td", null, one.state === "running" ? "runs" : one.state === "ended" ? `ended ${duration(one.age)} ago` : `silent for ${duration(one.age)}`),
    h("td", { class: "number" }, `${one.done} of ${one.to_do}${one.failed ? `, ${one.failed} failed` : ""}`)));
  return sheet("Runs", h("table", { class: "list wide" }, rows), h("p", { class: "quiet" }, "Start or resume with"), h("code", null, experiment.command),
    state.counts.done === state.states.length || (state.partial && !state.partial.reason) ? "" : [h("p", { class: "quiet" }, "Report on what exists so far"),
      h("code", null, experiment.command.replace("luigi --module luigi_prune RunExperiment --config", "python -m luigi_prune report"))]);
}

async function change(what) {
  const answer = await fetch(`/experiments/api/${what}`, { method: "POST", headers: { "X-Requested-With": "luigi_prune" } });
  return answer.ok ? "" : (await answer.text()).trim() || answer.statusText;
}

// The button that writes a report on the results that exist, and what becomes of it.
function partialReport(id) {
  const said = h("span", { class: "quiet message", role: "status" });
  const button = h("button", { type: "button", id: "write", onclick: async () => {
    button.disabled = true;
    said.textContent = (await change(`report/${id}`)) || "Starts …";
  } });
  const element = h("p", { class: "row" }, button, said);
  function update(state) {
    const { reason, state: what, seconds, message } = state.partial || { reason: "hidden" };
    const older = state.report_age === null ? "" : `It was written ${duration(state.report_age)} ago`;
    const missing = message ? `; ${message}` : "";
    element.hidden = !state.partial || state.counts.done === state.states.length;
    button.hidden = Boolean(reason);
    button.disabled = what === "writing" || what === "busy";
    button.textContent = state.report ? "Renew the partial report" : "Write a partial report";
    said.classList.toggle("wrong", what === "failed");
    said.textContent = reason ? `No partial report: ${reason[0].toLowerCase()}${reason.slice(1)}`
      : what === "writing" ? `Reads results and draws plots, for ${duration(seconds)}` : what === "busy" ? "Another report is being written"
      : what === "failed" ? `Not written: ${message}` : what === "written" ? `Written ${duration(seconds)} ago${missing}` : older;
  }
  return { element, update };
}

async function experiment(id) {
  const whole = await ask(`experiment/${id}`);
  const tasks = tasksOf(whole);
  here([whole.name]);
  const [head, lists, below] = [h("div"), h("div"), h("div", { class: "two" })];
  const grid = matrix(whole, tasks);
  const settings = h("section", { class: "sheet" }, h("details", null, h("summary", null, "Settings"), h("pre", null, JSON.stringify(whole.settings, null, 2))));
  const partial = partialReport(id);
  fill(page, head, partial.element, grid.element, lists, below, settings);
  keep(async () => {
    const state = await ask(`state/${id}`);
    if (state.states.length !== tasks.length) location.reload();
    refill(head, h("div", { class: "row" }, h("h1", null, whole.name), h("span", { class: "quiet" }, `${whole.network} on ${whole.dataset}`), h("span", { class: "end" }, reportLink(state.report, true))),
      h("p", { class: "row" }, h("span", null, whoRuns(state)), h("b", { id: "estimate" }, estimate(state))),
      bar(state.counts), h("p", null, legend(state.counts)));
    partial.update(state);
    grid.update(state);
    refill(lists, failedList(tasks, state), runningList(tasks, state), queuedList(tasks, state));
    refill(below, families(state), drivers(whole, state));
  });
}

// ---- task

function ticks(low, high, most) {
  const step = 10 ** Math.floor(Math.log10((high - low) / most));
  const size = [1, 2, 5, 10].map((factor) => factor * step).find((one) => (high - low) / one <= most);
  const found = [];
  for (let at = Math.ceil(low / size - 1e-9); at * size <= high + 1e-9 * size; at += 1) found.push(Number((at * size).toPrecision(12)));
  return found;
}

// One chart of a quantity over epochs, in training and in validation.
function chart(title, lines, epochs) {
  const [width, height, left, right, top, bottom] = [420, 210, 46, 10, 8, 26];
  const values = lines.flatMap(([, points]) => points.map(([, value]) => value));
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (low === high) { low -= Math.abs(low) / 10 || 1; high += Math.abs(high) / 10 || 1; }
  const margin = (high - low) * 0.06;
  const [from, to] = [low - margin, high + margin];
  const last = Math.max(epochs || 1, ...lines.flatMap(([, points]) => points.map(([epoch]) => epoch)), 2);
  const x = (epoch) => left + ((epoch - 1) / (last - 1)) * (width - left - right);
  const y = (value) => top + ((to - value) / (to - from)) * (height - top - bottom);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
  for (const value of ticks(from, to, 5)) {
    picture.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    picture.append(svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, String(value)));
  }
  for (const epoch of ticks(1, last, 6).filter((one) => Number.isInteger(one) && one >= 1)) {
    picture.append(svg("text", { x: x(epoch), y: height - 8, "text-anchor": "middle" }, String(epoch)));
  }
  picture.append(svg("text", { x: 0, y: height - 8 }, "epoch"));
  const keys = lines.map(([name, points], number) => {
    const kind = number ? "two-nd" : "one";
    if (points.length === 1) picture.append(svg("circle", { class: kind, cx: x(points[0][0]), cy: y(points[0][1]), r: 3 }));
    const line = svg("polyline", { class: kind, points: points.map(([epoch, value]) => `${x(epoch).toFixed(1)},${y(value).toFixed(1)}`).join(" ") });
    line.append(svg("title", {}, `${name}: ${points.length ? points[points.length - 1][1].toPrecision(4) : ""}`));
    picture.append(line);
    const newest = points.length ? points[points.length - 1][1].toPrecision(4) : "";
    return h("span", null, h("i", { class: `key ${kind}` }), lines.length > 1 ? `${name} ` : "", h("b", null, newest));
  });
  return h("div", { class: "chart" }, h("div", { class: "row" }, h("b", null, title), keys), picture);
}

function charts(curves, epochs) {
  const quantities = new Map();
  for (const [name, points] of Object.entries(curves)) {
    if (!points.length) continue;
    const [where, ...rest] = name.split("/");
    const quantity = rest.length ? rest.join("/") : name;
    if (!quantities.has(quantity)) quantities.set(quantity, []);
    quantities.get(quantity).push([rest.length ? where : name.replaceAll("_", " "), points]);
  }
  const order = [...quantities].sort(([one], [other]) => (one === "learning_rate") - (other === "learning_rate") || (other === "loss") - (one === "loss"));
  return order.map(([quantity, lines]) => chart(quantity.replaceAll("_", " "), lines, epochs));
}

function facts(entries) {
  return h("dl", { class: "facts" }, entries.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
}

const neighbours = (id, list, more) => [list.map((one) => h("div", null, h("span", { class: "state" }, square(one.state)), " ", h("a", { href: address(id, one.key) }, one.title))), more ? h("div", { class: "quiet" }, `and ${more} more`) : ""];

const COSTS = { seconds: "Took", gpu_seconds: "GPU time", peak_bytes: "Peak memory", gpu_peak_bytes: "Peak GPU memory" };

// The costs of a task itself; those of its inputs are in its file, too.
function costs(family, measured) {
  return Object.entries(COSTS).map(([name, label]) => {
    const value = (measured || {})[`${family.toLowerCase()}_${name}`];
    return [label, !value ? "" : name.endsWith("bytes") ? `${(value / 2 ** 20).toFixed(0)} MiB` : duration(value)];
  });
}

function retryButton(task) {
  const said = h("span", { class: "quiet" });
  const button = h("button", { type: "button", class: "main", onclick: async () => {
    button.disabled = true;
    const refusal = await change(`retry/${task.experiment.id}/${task.key.slice(0, 12)}`);
    said.textContent = ` ${refusal || "Asked; the run takes it up within seconds."}`;
  } }, "Run again");
  return h("p", null, button, said);
}

function task(id, key) {
  const [head, action, middle] = [h("div"), h("div"), h("div")];
  const log = h("pre", { id: "log" });
  const logSheet = h("section", { class: "sheet" }, h("h2", null, "Log"), log, h("p", { class: "quiet message" }));
  const [spec, provenance] = [h("pre"), h("pre")];
  const [specTitle, provenanceDetails] = [h("summary", null, "Spec"), h("details", null, h("summary", null, "Provenance"), provenance)];
  const files = h("section", { class: "sheet" }, h("details", null, specTitle, spec), provenanceDetails);
  const inputs = h("div", { class: "two" });
  fill(page, head, action, middle, logSheet, inputs, files);
  let before = "";
  let offered = "";
  keep(async () => {
    const now = await ask(id ? `task/${id}/${key}` : `task/${key}`);
    here([now.experiment.name, `/experiments/e/${now.experiment.id}`], [now.title]);
    const news = now.news;
    const offer = `${now.state} ${now.retry} ${news.since}`; // a task that fails again can be retried again
    if (offer !== offered) {
      offered = offer;
      const resumed = { failed: "No run is at work that could take it up. Start one with", stopped: "Its run has ended. This resumes it:" }[now.state];
      fill(action, now.retry ? retryButton(now) : resumed && !now.read_only ? h("p", { class: "quiet" }, `${resumed} `, h("code", null, now.command)) : "");
    }
    const progress = now.state === "running" || now.state === "stopped" ? h("div", { class: "bar" }, h("i", { class: now.state })) : "";
    if (progress) progress.firstChild.style.width = `${100 * (news.fraction || 0)}%`;
    const missing = now.inputs.filter((one) => one.state !== "done");
    const why = now.state === "waiting" && missing.length ? `waits for ${plural(missing.length, "input")}` : now.state === "blocked" ? "an input has failed"
      : now.result.damaged ? "The result is damaged: python -m luigi_prune verify --set-aside renames it, and the next run computes it again." : "";
    const finished = now.result.provenance || {};
    const training = now.settings[now.family === "Retrain" ? "retraining" : "training"] || {};
    refill(head, h("div", { class: "row" }, h("h1", null, now.title), stateWord(now.state), h("span", { class: "end" }, reportLink(now.report, true))),
      h("p", { class: "message" }, now.state === "queued" && news.reason ? "" : news.message || why), progress);
    const pictures = charts(now.curves, now.state === "done" ? 0 : training.numEpochs);
    refill(middle, h("section", { class: "sheet" }, facts([
        ["Method", now.label && now.label !== now.method ? `${now.label} (${now.method})` : now.method], ["Keep ratio", now.keep_ratio === null ? "" : ratio(now.keep_ratio)],
        ["Network", now.net], ["Repetition", now.repetition], ["Test set", now.test_set],
        ["Job", news.job || finished.job], ["Node", news.node || finished.host], ["Reason", news.reason], ["Expected start", (news.expected || "").replace("expected to start ", "")],
        [now.state === "failed" ? "Failed" : now.state === "queued" ? "In the queue" : "Running", news.seconds === undefined ? "" : now.state === "failed" ? `${duration(news.seconds)} ago` : `for ${duration(news.seconds)}`],
        ["Time left", news.left === undefined ? "" : `about ${duration(news.left)}`], ["Finished", finished.finished],
        ...costs(now.family, now.result.measured)]), facts([["Result", h("code", null, now.path)], ["Key", h("code", null, now.key)]])),
      news.full ? sheet("Failure", h("pre", { class: "failure" }, news.full)) : "",
      pictures.length ? sheet("Curves", h("div", { class: "charts" }, pictures)) : "");
    const text = now.log || (now.state === "done" || now.state === "running" ? "No output. A job of the inline backend prints to the terminal of its run." : now.state === "failed" || now.state === "stopped" ? "No log is left." : "No output yet.");
    if (text !== before) {
      const follows = !before || log.scrollTop + log.clientHeight >= log.scrollHeight - 30;
      log.textContent = before = text;
      if (follows) log.scrollTop = log.scrollHeight;
    }
    refill(logSheet.lastChild, now.log ? now.log_path : "");
    refill(inputs, now.inputs.length ? sheet("Inputs", neighbours(now.experiment.id, now.inputs, 0)) : "", now.readers.length ? sheet("Read by", neighbours(now.experiment.id, now.readers, now.more_readers)) : "");
    refill(specTitle, now.result.spec ? "Spec" : "Settings of the experiment");
    refill(spec, JSON.stringify(now.result.spec || now.settings, null, 2));
    provenanceDetails.hidden = !now.result.provenance;
    refill(provenance, JSON.stringify(finished, null, 2));
  });
}

// ---- addresses

const [, id, key] = location.pathname.match(/^\/experiments(?:\/e\/([0-9a-f-]+))?(?:\/t\/([0-9a-f]+))?\/?$/) || [];
if (key) task(id, key);
else if (id) experiment(id).catch((error) => fill(page, h("h1", null, error.message), h("a", { href: "/experiments" }, "All experiments")));
else overview();
