"use strict";
// The units of every system: a list that can be searched and sorted, one unit or two beside each other, each with an
// address (#unit/SYSTEM/LAYER/UNIT, and /vs/ before a second one, or /pair/LAYER/UNIT for a pair in its card). All text comes from corpora: it is set as text.
(() => {
  const root = document.getElementById("units-live");
  if (!root) return;
  const SHOWN = 200;
  const packs = new Map([...document.querySelectorAll("script.units")].map((script) => [script.dataset.system, script]));
  if (!packs.size) return;
  const opened = new Map();
  const state = { system: [...packs.keys()][0], layer: "", text: "", order: "telling", shown: SHOWN, at: null, beside: null };

  function open(system) {
    if (!opened.has(system)) opened.set(system, inflate(system));
    return opened.get(system);
  }
  async function inflate(system) {
    const bytes = Uint8Array.from(atob(packs.get(system).textContent), (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const reports = JSON.parse(await new Response(stream).text());
    for (const unit of reports.units) unit.reports = reports;
    reports.explained = reports.units.some((unit) => unit.said);
    return reports;
  }

  const layerOf = (unit) => unit.site.split(".").pop();
  const name = (unit) => `layer ${layerOf(unit)}, unit ${unit.unit}`;
  const address = (unit) => `${encodeURIComponent(unit.reports.system)}/${layerOf(unit)}/${unit.unit}`;
  const piece = (reports, index) => reports.pieces[index];
  const visible = (text) => text.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/\r/g, "␍");

  const CONTROLS = /^(constant|another_unit|shuffled|random_dictionary|merged_\d+)_(.+)$/;
  function scores(unit) {
    // scorer -> {real, controls: {name: value}}
    const found = {};
    if (!unit.said) return found;
    for (const [key, value] of Object.entries(unit.said.scores)) {
      const control = key.match(CONTROLS);
      if (control) (found[control[2]] ||= { controls: {} }).controls[control[1]] = value;
    }
    for (const scorer of Object.keys(found))
      for (const statistic of ["balanced_accuracy", "pearson", "auroc"])
        if (found[scorer].real === undefined && unit.said.scores[`${scorer}_${statistic}`] !== undefined) {
          found[scorer].real = unit.said.scores[`${scorer}_${statistic}`];
          found[scorer].statistic = statistic;
        }
    return found;
  }
  function above(unit) {
    const first = Object.values(scores(unit)).find((one) => one.real !== undefined);
    const nothing = first && (first.controls.random_dictionary ?? first.controls.another_unit ?? first.controls.shuffled);
    return nothing === null || nothing === undefined ? null : first.real - nothing;
  }
  const excess = (unit) => Math.max(...unit.partners.map((partner) => (partner.excess ?? -Infinity) - (partner.floor ?? 0)), -Infinity);
  const score = (unit) => { const first = Object.values(scores(unit)).find((one) => one.real !== undefined); return first ? first.real : null; };
  const ORDERS = {
    telling: ["score above random directions", above], score: ["score", score], often: ["density, the most first", (unit) => unit.density],
    seldom: ["density, the least first", (unit) => -unit.density], excess: ["excess above floor of its strongest pair", (unit) => (isFinite(excess(unit)) ? excess(unit) : null)],
    number: ["number", (unit) => -unit.unit],
  };

  function searchable(unit) {
    if (unit.words === undefined) {
      const { pieces } = unit.reports;
      const fires = unit.top.flatMap((context) => context.p.filter((_, i) => context.s[i] > 0));
      unit.words = [unit.said ? unit.said.text : "", unit.promoted.map((i) => pieces[i]).join(" "), fires.map((i) => pieces[i]).join(" "),
        unit.domains.map(([domain]) => domain).join(" "), String(unit.unit)].join(" ").toLowerCase();
    }
    return unit.words;
  }

  const list = element("ul", { class: "list", "aria-label": "Units" }), cards = element("div", { class: "cards", "aria-live": "polite" });
  const controls = element("div", { class: "switches" }), summary = element("p", { class: "says" });
  const layers = element("select", { onchange: () => { state.layer = layers.value; state.shown = SHOWN; fill(); } });
  const systems = chooser("System:", [...packs].map(([system, script]) => ({ value: system, text: `${system} (${script.dataset.count})` })), state.system, (system) => go(system));
  const search = element("input", { type: "search", placeholder: "token, explanation, domain, number", oninput: () => { state.text = search.value.trim().toLowerCase(); state.shown = SHOWN; fill(); } });
  const orders = chooser("By:", Object.entries(ORDERS).map(([value, [text]]) => ({ value, text })), state.order, (order) => { state.order = order; fill(); });
  controls.append(systems, element("label", {}, "Layer: ", layers), element("label", {}, "Search: ", search), orders);
  root.append(controls, summary, element("div", { class: "browser" }, list, cards));
  root.hidden = false;

  async function go(system) {
    state.system = system;
    systems.querySelector("select").value = system;
    const reports = await open(system);
    if (state.system !== system) return reports;
    if (state.at && state.at.reports !== reports) state.at = null;
    const select = orders.querySelector("select");
    for (const option of select.options) option.disabled = !reports.explained && ["telling", "score"].includes(option.value);
    if (select.selectedOptions[0].disabled) select.value = state.order = "often";
    const sites = [...new Set(reports.units.map((unit) => layerOf(unit)))];
    layers.replaceChildren(element("option", { value: "" }, "all"), ...sites.map((layer) => element("option", { value: layer }, layer)));
    state.layer = "";
    state.shown = SHOWN;
    fill();
    return reports;
  }

  async function fill() {
    const system = state.system, reports = await open(system);
    if (state.system !== system) return;
    const key = ORDERS[state.order][1];
    const found = reports.units.filter((unit) => (!state.layer || layerOf(unit) === state.layer) && (!state.text || searchable(unit).includes(state.text)))
      .map((unit) => [key(unit), unit]).sort(([a], [b]) => (a === null) - (b === null) || b - a).map(([, unit]) => unit);
    const live = reports.sites.reduce((sum, site) => sum + site.live, 0), all = reports.sites.reduce((sum, site) => sum + site.n_units, 0);
    summary.textContent = `${found.length} of ${reports.units.length} units described; ${live.toLocaleString("en")} of ${all.toLocaleString("en")} fire on ${reports.tokens.toLocaleString("en")} tokens of ${reports.documents} documents.`;
    list.replaceChildren(...found.slice(0, state.shown).map((unit) => element("li", {}, element("button", { type: "button", "data-address": address(unit), "aria-current": String(unit === state.at), onclick: () => show(unit) },
      name(unit), element("small", {}, `${state.order === "excess" && isFinite(excess(unit)) ? `${short(excess(unit))} bit · ` : ""}${(100 * unit.density).toPrecision(2)}% · ${unit.said ? unit.said.text : unit.promoted.slice(0, 4).map((i) => visible(piece(reports, i))).join(" ")}`)))));
    if (found.length > state.shown) list.append(element("li", {}, element("button", { type: "button", onclick: () => { state.shown += SHOWN; fill(); } }, `${found.length - state.shown} more`)));
    if (!state.at && found.length) show(found[0], false);
  }

  // told: by a person, who gets an address to go back to, and the card in view.
  function show(unit, told = true) {
    state.at = unit;
    const both = state.beside && state.beside !== unit ? [state.beside, unit] : [unit];
    cards.replaceChildren(...both.map(card));
    for (const button of list.querySelectorAll("button")) button.setAttribute("aria-current", String(button.dataset.address === address(unit)));
    if (!told) return;
    history.pushState(null, "", `#unit/${address(unit)}${both.length > 1 ? `/vs/${address(state.beside)}` : ""}`);
    const heading = cards.querySelector("article:last-child h3");
    if (cards.getBoundingClientRect().top < 0) { cards.scrollIntoView(); heading.focus({ preventScroll: true }); }
  }

  function card(unit) {
    const held = state.beside === unit, { reports } = unit;
    const hold = element("button", { type: "button", "aria-pressed": String(held), onclick: () => { if (held) state.beside = null;
      else {
        const other = state.beside;
        state.beside = unit;
        if (other && state.at === unit) state.at = other;
      }
      show(state.at || unit); } }, held ? "let go" : "hold beside");
    const made = element("article", { class: "card" }, element("h3", { tabindex: -1 }, `${reports.system}, ${name(unit)}`), hold,
      element("p", {}, `Fires on ${unit.fired.toLocaleString("en")} of ${reports.tokens.toLocaleString("en")} tokens (${(100 * unit.density).toPrecision(3)}%); strength ${short(unit.mean_strength)} in the mean, ${short(unit.max_strength)} at most.`));
    made.append(element("p", { class: "says own" }, whole(reports)));
    if (unit.said) made.append(element("p", {}, element("b", {}, unit.said.text), ` (${unit.said.by})`), ...Object.entries(scores(unit)).filter(([, one]) => one.real !== undefined).map(([scorer, one]) => axis(scorer, one)));
    else made.append(element("p", { class: "says" }, reports.explained ? "Not among the units that were explained." : "No auto-interpretation was run here: nothing says whether this unit says more than a random direction."));
    made.append(histogram(unit));
    if (unit.domains.length) made.append(element("p", {}, "Domains, share of its firings (of all tokens): ", unit.domains.map(([domain, share, of]) => `${domain} ${(100 * share).toFixed(0)}% (${(100 * of).toFixed(0)}%)`).join(", ")));
    for (const [title, tokens] of [["Promotes", unit.promoted], ["Suppresses", unit.suppressed]])
      if (tokens.length) made.append(element("p", { class: "tokens" }, `${title} `, ...tokens.map((index) => element("code", {}, visible(piece(reports, index))))));
    for (const [title, contexts] of [["Strongest", unit.top], ["Weaker, by thirds of its strength", unit.quantiles], ["Silent on a token that it fires on elsewhere", unit.near_misses]])
      if (contexts.length) made.append(element("h3", {}, title), ...contexts.map((context) => shaded(reports, context)));
    if (unit.partners.length) made.append(element("h3", {}, "Fires together with"), ...unit.partners.map((partner) => together(unit, partner)));
    return made;
  }

  // A card shows one unit that somebody picked; what the whole system shows stands beside it.
  function whole(reports) {
    const row = page.rows.find((one) => one.system === reports.system), own = row ? row.own : [];
    return `One of ${reports.units.length} described, picked out by sorting or search: an extreme says what there is, not how much of it. `
      + (own.length ? `All units of ${reports.system}: ${own.join("; ")}.` : `No figure of ${reports.system} is set against a control here.`);
  }

  // The number on focus is the strength in percent of the unit's strongest; the line under a token grows with it.
  function shaded(reports, context) {
    const tokens = context.p.map((index, i) => {
      const strength = context.s[i], text = visible(piece(reports, index));
      const fires = strength > 0;
      return element("span", { class: `t${i === context.at ? " trigger" : ""}`, tabindex: i === context.at ? 0 : false, title: fires ? `${strength}% of its strongest` : false, "aria-label": fires ? `${text}, ${strength}%` : false,
        style: fires ? `background:rgba(var(--mark),${(0.12 + 0.5 * strength / 99).toFixed(2)});border-bottom-width:${1 + Math.round(3 * strength / 99)}px` : false }, text);
    });
    return element("div", { class: "context" }, ...tokens);
  }

  function axis(scorer, { real, controls, statistic }) {
    const width = 280, low = statistic === "pearson" ? -0.2 : 0.3, x = (value) => 10 + (width - 20) * Math.min(1, Math.max(0, (value - low) / (1 - low)));
    const made = drawn("svg", { width, height: 46, role: "img", "aria-label": `${scorer} ${statistic}: ${real}; controls: ${Object.entries(controls).map(([key, value]) => `${key} ${value}`).join(", ")}` });
    made.append(drawn("path", { d: `M10 24H${width - 10}`, stroke: "currentColor", opacity: 0.4 }));
    for (const [control, value] of Object.entries(controls)) {
      const mark = drawn("path", { d: `M${x(value)} 18V30`, class: control === "random_dictionary" ? "random" : "", stroke: "currentColor", "stroke-width": control === "random_dictionary" ? 3 : 1.2 });
      mark.append(drawn("title", {}, `${control.replaceAll("_", " ")}: ${value}`));
      made.append(mark);
    }
    made.append(drawn("circle", { cx: x(real), cy: 24, r: 5, class: "real" }));
    made.append(drawn("text", { x: 10, y: 42 }, String(low)), drawn("text", { x: width - 18, y: 42 }, "1"));
    const random = controls.random_dictionary;
    const said = random === undefined ? "" : `; random direction ${random}, so ${real >= random ? "above" : "below"} it by ${short(Math.abs(real - random), 2)}`;
    const others = Object.entries(controls).filter(([key]) => key !== "random_dictionary").map(([key, value]) => `${key.replaceAll("_", " ")} ${value}`);
    return element("div", {}, element("p", {}, `${scorer} ${statistic.replaceAll("_", " ")} ${real}${said}`), made, element("p", { class: "says" }, `Other controls: ${others.join(", ") || "none"}.`));
  }

  function histogram(unit) {
    const { low, high, counts } = unit.histogram, width = 280, most = Math.max(...counts, 1), step = (width - 20) / counts.length;
    const made = drawn("svg", { width, height: 74, role: "img", "aria-label": `Strengths of its ${unit.fired} firings, from ${short(low)} to ${short(high)}, in equal steps of the logarithm: ${counts.join(", ")}` });
    counts.forEach((count, i) => made.append(drawn("rect", { x: 10 + i * step, y: 56 - 46 * count / most, width: Math.max(1, step - 1.5), height: 46 * count / most, fill: "currentColor", opacity: 0.6 })));
    made.append(drawn("text", { x: 10, y: 70 }, short(low)), drawn("text", { x: width - 10, y: 70, "text-anchor": "end" }, `${short(high)} strength (log)`));
    return made;
  }

  function together(unit, partner) {
    const { reports } = unit, to = reports.units.find((one) => one.site === partner.site && one.unit === partner.unit);
    const title = `layer ${partner.site.split(".").pop()}, unit ${partner.unit}`;
    const link = to ? element("button", { type: "button", onclick: () => show(to) }, title) : `${title} (no report here)`;
    const said = partner.excess === undefined || partner.excess === null ? "" : `; says ${short(partner.excess)} bit beyond its parts (floor ${short(partner.floor)}); edited at:`;
    const rows = [["neither", "neither"], ["a", "A alone: this unit"], ["b", "B alone: the other"], ["both", "both"]].map(([key, text]) => {
      const cell = element("td", {}, `${partner[key].toLocaleString("en")} tokens`);
      const example = (partner.examples || {})[key];
      if (example) cell.append(shaded(reports, example));
      const next = (partner.next || {})[key];
      if (next && next.length) cell.append(element("div", { class: "tokens" }, "there the model says: ", ...next.slice(0, 4).flatMap(([index, p]) => [element("code", {}, visible(piece(reports, index))), `${(100 * p).toFixed(0)}% `])));
      return element("tr", {}, element("th", { scope: "row" }, text), cell);
    });
    const place = partner.text === null || partner.text === undefined ? null : element("div", { class: "context" }, visible(partner.text), element("span", { class: "trigger" }, visible(partner.token)));
    return element("div", { class: "pair", tabindex: -1, "data-pair": `${partner.site.split(".").pop()}/${partner.unit}` }, element("p", {}, link, `, ${short(partner.lift)} times as often as by chance${said}`), place, element("table", { class: "states" }, element("tbody", {}, ...rows)));
  }

  // [system, unit]: null where the page has no such system, or no report of the unit.
  async function find(text) {
    const [system, layer, number] = text.split("/");
    let wanted = "";
    try { wanted = decodeURIComponent(system || ""); } catch { return [null, null]; }
    if (!packs.has(wanted)) return [null, null];
    const reports = await open(wanted);
    return [wanted, reports.units.find((unit) => layerOf(unit) === layer && String(unit.unit) === number) || null];
  }
  async function follow() {
    if (!location.hash.startsWith("#unit/")) return false;
    const [units, pair] = location.hash.slice("#unit/".length).split("/pair/");
    const [first, second] = units.split("/vs/");
    const [system, unit] = await find(first);
    state.beside = second ? (await find(second))[1] : null;
    state.text = search.value = "";
    state.at = unit;
    await go(system || state.system);
    if (unit) show(unit, false);
    else cards.replaceChildren(element("p", { role: "alert" }, `No report of ${first} in this page.`));
    const part = unit && pair && [...cards.querySelectorAll(".pair")].find((one) => one.dataset.pair === pair);
    if (part) { part.scrollIntoView(); part.focus({ preventScroll: true }); } else document.getElementById("units").scrollIntoView();
    return true;
  }
  window.addEventListener("popstate", follow);
  follow().then((followed) => followed || go(state.system));
})();
