"use strict";
// What every section shares: the data of the page, elements made without markup, numbers as text, and the rows pinned.
const page = JSON.parse(document.getElementById("content").textContent);
document.body.classList.add("scripted");

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function drawn(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function short(value, digits = 3) {
  if (value === null || value === undefined) return "n/a";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e7 || size < 1e-4) return value.toExponential(digits - 1);
  if (size >= 10 ** digits) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(digits)));
}

function chooser(label, choices, chosen, changed) {
  const select = element("select", { onchange: () => changed(select.value) });
  let group = null;
  for (const { value, text, family } of choices) {
    if (family && (!group || group.label !== family)) {
      group = element("optgroup", { label: family });
      select.append(group);
    }
    (family ? group : select).append(element("option", { value, selected: value === chosen }, text));
  }
  return element("label", {}, `${label} `, select);
}

const pins = {
  systems: new Set(),
  told: [],
  toggle(system) {
    if (!this.systems.delete(system)) this.systems.add(system);
    for (const tell of this.told) tell();
    for (const row of document.querySelectorAll("#board tr[data-system]"))
      row.classList.toggle("pinned", this.systems.has(row.dataset.system));
  },
};

const SHAPES = {
  circle: "M0 -5A5 5 0 1 0 0.01 -5Z", square: "M-4.5 -4.5H4.5V4.5H-4.5Z", diamond: "M0 -6L6 0L0 6L-6 0Z",
  "triangle-up": "M0 -5.5L5.5 4.5H-5.5Z", "triangle-down": "M0 5.5L5.5 -4.5H-5.5Z",
  "triangle-right": "M5.5 0L-4.5 5.5V-5.5Z", "triangle-left": "M-5.5 0L4.5 5.5V-5.5Z",
  cross: "M-2 -5.5H2V-2H5.5V2H2V5.5H-2V2H-5.5V-2H-2Z", stroke: "M-6 -1H6V1H-6Z",
};

// What a picture says of a mark is in its label: shown beside the pointer.
for (const figure of document.querySelectorAll("figure"))
  figure.addEventListener("mouseover", (event) => {
    const mark = event.target.closest("[aria-label]");
    if (mark && !mark.querySelector("title")) mark.append(drawn("title", {}, mark.getAttribute("aria-label")));
  });
