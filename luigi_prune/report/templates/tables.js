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

const asLatex = (text) => [...text].map((sign) => data.latex[sign] || sign).join("");
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
    lengthen(results.closest(".table"));
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

/* On a phone, where rows are cards, long tables show ten of them until asked for more */
for (const place of $$(".cards:not(.text)")) {
  const rows = $("tbody", place).rows.length;
  if (rows <= 12) continue;
  place.classList.add("short");
  const more = element("button", { type: "button", class: "more", onclick: () => lengthen(place) }, `show all ${rows}`);
  $(".scroll", place).after(more);
}
function lengthen(place) {
  place.classList.remove("short");
  for (const more of $$(".more", place)) more.remove();
}

/* Print shows everything */
window.addEventListener("beforeprint", () => { for (const each of $$("details:not([open])")) { each.open = true; each.dataset.opened = ""; } });
window.addEventListener("afterprint", () => { for (const each of $$("details[data-opened]")) { each.open = false; delete each.dataset.opened; } });
