/* What the parts of the page's script share */
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
const signed = (value, digits) => (Number(value.toFixed(digits)) < 0 ? "-" : "+") + Math.abs(value).toFixed(digits);
const sets = Object.keys(data.sets);
const choice = (label, options, value, change) => {
  const select = element("select", { onchange: () => change(select.value) }, ...options.map(([name, text]) => element("option", { value: name, selected: name === value }, text)));
  return element("label", {}, label, select);
};
