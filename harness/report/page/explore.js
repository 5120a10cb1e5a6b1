"use strict";
// Two plots of rows: the first figure with its switches, and any figure against any other. Both are Vega-Lite, whose
// expressions are interpreted (`ast`), because the page's policy forbids evaluating text.
const plots = [];

function plot(root, picture, controls, read) {
  // read() -> {x, y, rows: [{row, x: [value, low, high], y: [...]}], xLabel, yLabel, xLog, yLog, zero}
  const canvas = element("div", { class: "canvas" }), left = element("p", { class: "says", "aria-live": "polite" });
  const legend = element("div", { class: "legend", role: "group", "aria-label": "Rows: press to pin" });
  root.append(controls, element("div", { class: "plot" }, canvas, legend), left);
  root.hidden = false;
  let last = null, turn = 0;
  async function draw() {
    const asked = read(), mine = ++turn;
    const shown = (value, log) => !log || value > 0;
    const off = asked.rows.filter(({ x, y }) => !shown(x[0], asked.xLog) || !shown(y[0], asked.yLog));
    asked.rows = asked.rows.filter((one) => !off.includes(one));
    left.textContent = off.length ? `Not shown, since a logarithmic axis has no 0: ${off.map(({ row }) => row.system).join(", ")}.` : "";
    list(asked);
    if (!asked.rows.length) {
      canvas.replaceChildren("No row has both figures.");
      return;
    }
    const holder = element("div");
    const view = await window.vegaEmbed(holder, specification(asked, Math.max(260, canvas.clientWidth - 100)), { actions: false, renderer: "svg", ast: true });
    if (mine !== turn) { view.finalize(); return; }
    if (last) last.finalize();
    last = view;
    canvas.replaceChildren(holder);
    view.view.addEventListener("click", (_event, item) => { if (item && item.datum && item.datum.system) pins.toggle(item.datum.system); });
    if (picture) picture.hidden = true;
  }
  // Buttons of rows that stay are kept: a press on one does not take the focus away.
  function list(asked) {
    const before = new Map([...legend.children].map((button) => [button.dataset.system, button]));
    const buttons = asked.rows.map(({ row, x, y }) => {
      const path = () => drawn("path", { d: SHAPES[row.shape], fill: row.accounting === "same subject" ? "white" : row.colour, stroke: row.colour, "stroke-width": 1.6, transform: "translate(8 8)" });
      const button = before.get(row.system) || element("button", { type: "button", "data-system": row.system, onclick: () => pins.toggle(row.system) },
        drawn("svg", { width: 16, height: 16, class: "shape", "aria-hidden": "true" }, path()), element("span", {}, row.system));
      button.setAttribute("aria-pressed", String(pins.systems.has(row.system)));
      button.title = `${asked.xLabel}: ${short(x[0])}; ${asked.yLabel}: ${short(y[0])}`;
      return button;
    });
    if (buttons.length !== legend.children.length || buttons.some((button, i) => button !== legend.children[i])) legend.replaceChildren(...buttons);
  }
  pins.told.push(draw);
  plots.push(draw);
  draw();
  return draw;
}

// Only what is large is shortened: a share of 0.98 is not 980m.
const large = (values) => (Math.max(...values.map(Math.abs)) >= 1e4 ? { format: "~s" } : {});

function specification(asked, width) {
  const any = pins.systems.size > 0;
  const values = asked.rows.map(({ row, x, y }) => ({
    system: row.system, colour: row.colour, shape: row.shape, curve: row.curve, hollow: row.accounting === "same subject",
    faint: any && !pins.systems.has(row.system),
    x: x[0], x_low: x[1] ?? x[0], x_high: x[2] ?? x[0], y: y[0], y_low: y[1] ?? y[0], y_high: y[2] ?? y[0],
  }));
  if (asked.xLog) for (const one of values) one.x_low = Math.max(one.x_low, one.x / 10);
  if (asked.yLog) for (const one of values) one.y_low = Math.max(one.y_low, one.y / 10);
  const scale = (log) => (log ? { type: "log", padding: 16, nice: false } : { zero: false, padding: 12 });
  const x = { field: "x", type: "quantitative", title: asked.xLabel, scale: scale(asked.xLog), axis: { labelOverlap: true, ...large(values.map((one) => one.x)) } };
  const y = { field: "y", type: "quantitative", title: asked.yLabel, scale: scale(asked.yLog), axis: large(values.map((one) => one.y)) };
  const colour = { field: "colour", type: "nominal", scale: null };
  const opacity = { condition: { test: "datum.faint", value: 0.15 }, value: 1 };
  const told = { system: "row", x: asked.xLabel, x_low: "from", x_high: "to", y: asked.yLabel, y_low: "from ", y_high: "to " };
  const tooltip = Object.entries(told).map(([field, title]) => ({ field, title, type: field === "system" ? "nominal" : "quantitative", ...(field === "system" ? {} : { format: ".4~g" }) }));
  const dots = (hollow) => ({
    transform: [{ filter: `datum.hollow === ${hollow}` }],
    mark: { type: "point", filled: !hollow, size: 110, ...(hollow ? { fill: "white", strokeWidth: 2 } : {}) },
    encoding: { x, y, shape: { field: "shape", type: "nominal", scale: null }, [hollow ? "stroke" : "color"]: colour, opacity, tooltip },
  });
  const many = {};
  for (const one of values) many[one.curve] = (many[one.curve] || 0) + 1;
  const joined = values.filter((one) => many[one.curve] > 1);
  return {
    data: { values }, width, height: 330,
    config: { background: "white", font: "system-ui, Liberation Sans, Arial, sans-serif", axisX: { grid: false }, axis: { gridColor: "#e4e4e4", labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" }, view: { stroke: null } },
    layer: [
      ...(asked.zero ? [{ data: { values: [{ y: 0 }] }, mark: { type: "rule", color: "#666666", strokeDash: [5, 4] }, encoding: { y: { field: "y", type: "quantitative" } } }] : []),
      ...(joined.length ? [{ data: { values: joined }, mark: { type: "line", color: "#666666", strokeWidth: 1.2, opacity: any ? 0.15 : 0.6 }, encoding: { x, y, detail: { field: "curve" }, order: { field: "x" } } }] : []),
      { mark: { type: "rule", strokeWidth: 1.4, aria: false }, encoding: { x, y: { ...y, field: "y_low" }, y2: { field: "y_high" }, color: colour, opacity } },
      { mark: { type: "rule", strokeWidth: 1.4, aria: false }, encoding: { x: { ...x, field: "x_low" }, x2: { field: "x_high" }, y, color: colour, opacity } },
      ...[false, true].filter((hollow) => values.some((one) => one.hollow === hollow)).map(dots),
    ],
  };
}

const METRICS = page.families.flatMap((family) => family.metrics.map((metric) => ({ value: metric.name, text: metric.heading, family: family.name })));
const headingOf = (name) => (METRICS.find((metric) => metric.value === name) || { text: name }).text;

function differenceOf(row, metric) {
  const found = (page.differences[metric] || {})[row.system];
  if (found) return found.slice(1, 4);
  const others = Object.values(page.differences[metric] || {}).map((one) => one[0]);
  return others.includes(row.system) ? [0, null, null] : null;
}

// Modules run after the page is parsed: Vega is one, so what draws with it waits for it.
window.addEventListener("DOMContentLoaded", () => {
  const SPLICED = "loss/spliced_bits_per_byte";
  const has = (metric) => page.rows.filter((row) => row.figures[metric]).length > 1;
  const look = document.getElementById("look-live");
  if (look && has(SPLICED)) {
    const wanted = [...page.counts, { value: "cost/active_parameters", text: "active parameters" }].filter(({ value }) => has(value));
    const paired = Boolean(page.differences[SPLICED]);
    const state = { x: wanted[0].value, y: paired ? "difference" : "absolute", accounting: "both" };
    const accountings = new Set(page.rows.map((row) => row.accounting).filter(Boolean));
    const controls = element("div", { class: "switches" });
    const draw = plot(look, document.getElementById("look-picture"), controls, () => {
      const rows = page.rows.filter((row) => ["dense", "post-hoc", "built-in"].includes(row.road))
        .filter((row) => state.accounting === "both" || !row.accounting || row.accounting === state.accounting)
        .map((row) => ({ row, x: row.figures[state.x], y: state.y === "difference" ? differenceOf(row, SPLICED) : row.figures[SPLICED] }))
        .filter((one) => one.x && one.y);
      const yLabel = state.y === "difference" ? `bits per byte, minus ${page.baseline}` : "bits per byte, running through its units";
      return { rows, xLabel: wanted.find((one) => one.value === state.x).text, yLabel, xLog: true, yLog: false, zero: state.y === "difference" };
    });
    controls.append(chooser("Across:", wanted, state.x, (value) => { state.x = value; draw(); }));
    if (paired) controls.append(chooser("Up:", [{ value: "difference", text: `difference from ${page.baseline}, paired` }, { value: "absolute", text: "loss itself" }], state.y, (value) => { state.y = value; draw(); }));
    if (accountings.size > 1) controls.append(chooser("Dictionaries:", [{ value: "both", text: "both accountings" }, ...[...accountings].map((value) => ({ value, text: value }))], "both", (value) => { state.accounting = value; draw(); }));
    controls.append(element("span", { class: "says" }, "A click on a mark, or on its name, pins the row."));
  }

  const explore = document.getElementById("explore-live");
  if (explore && METRICS.length > 1) {
    const state = { x: has("sparsity/l0") ? "sparsity/l0" : METRICS[0].value, y: has("usage/dead") ? "usage/dead" : METRICS[1].value, xLog: false, yLog: false, paired: false };
    const controls = element("div", { class: "switches" });
    const boxes = {};
    const box = (text, key) => {
      boxes[key] = element("input", { type: "checkbox", onchange: (event) => { state[key] = event.target.checked; draw(); } });
      return element("label", {}, boxes[key], ` ${text}`);
    };
    const logX = box("log", "xLog"), logY = box("log", "yLog"), apart = box("difference from the baseline", "paired");
    const draw = plot(explore, null, controls, () => {
      const can = Boolean(page.differences[state.y]), paired = state.paired && can;
      boxes.paired.disabled = !can;
      boxes.yLog.disabled = paired;
      const rows = page.rows.map((row) => ({ row, x: row.figures[state.x], y: paired ? differenceOf(row, state.y) : row.figures[state.y] })).filter((one) => one.x && one.y);
      return { rows, xLabel: headingOf(state.x), yLabel: headingOf(state.y) + (paired ? ` minus ${page.baseline}` : ""), xLog: state.xLog, yLog: state.yLog && !paired, zero: paired };
    });
    controls.append(chooser("Across:", METRICS, state.x, (value) => { state.x = value; draw(); }), logX,
      chooser("Up:", METRICS, state.y, (value) => { state.y = value; draw(); }), logY, apart);
  }
  let settle = 0;
  window.addEventListener("resize", () => { clearTimeout(settle); settle = setTimeout(() => plots.forEach((draw) => draw()), 200); });
});
