"use strict";
// Sorts the scoreboard inside its groups, and compares the loss with another row: by seed alone, since the documents'
// own losses are not in the page.
(() => {
  const board = document.getElementById("board");
  if (!board) return;
  const SPLICED = "loss/spliced_bits_per_byte";
  // Two-sided 95% points of Student's t, by degrees of freedom.
  const T = [null, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];

  for (const row of board.querySelectorAll("tr[data-system]")) {
    const code = row.cells[0].querySelector("code");
    const button = element("button", { type: "button", class: "pin", title: "Pin this row in every figure", onclick: () => pins.toggle(row.dataset.system) });
    code.replaceWith(button);
    button.append(code);
  }

  [...board.tHead.rows[0].cells].forEach((cell, column) => {
    const button = element("button", { type: "button", onclick: () => sort(cell, column) });
    button.append(...cell.childNodes);
    cell.append(button);
  });

  function sort(cell, column, again = false) {
    const up = (cell.getAttribute("aria-sort") !== "ascending") !== again;
    for (const other of board.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    cell.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => {
      if (column === 0) return row.dataset.system;
      const value = row.cells[column].dataset.sort;
      return value === undefined ? null : Number(value);
    };
    for (const body of board.tBodies) {
      const rows = [...body.rows].filter((row) => row.dataset.system);
      rows.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1);
      });
      body.append(...rows);
    }
  }

  const column = [...board.tHead.rows[0].cells].findIndex((cell) => cell.dataset.metric === SPLICED);
  const rows = page.rows.filter((row) => row.kind !== "reference" && row.figures[SPLICED]);
  if (column < 0 || !page.differences[SPLICED] || rows.length < 2) return;
  const first = new Map([...board.querySelectorAll("tr[data-system]")].map((row) => [
    row.dataset.system, [[...row.cells[column].childNodes], row.cells[column].dataset.sort]]));
  const heading = board.tHead.rows[0].cells[column].firstChild;
  const own = heading.textContent;
  const select = document.getElementById("baseline"), note = document.getElementById("baseline-note");
  select.append(element("option", { value: "" }, `${page.baseline} (paired by document and seed)`));
  for (const row of rows) if (row.system !== page.baseline) select.append(element("option", { value: row.system }, row.system));
  document.getElementById("baseline-control").hidden = false;
  select.addEventListener("change", () => {
    const base = rows.find((row) => row.system === select.value);
    heading.textContent = base ? own.replace(/, minus .*/, `, minus ${base.system}`) : own;
    note.textContent = base ? "Paired by seed alone (Student's t); no verdict: that takes the documents, in harness run." : "";
    for (const line of board.querySelectorAll("tr[data-system]")) {
      const cell = line.cells[column], row = rows.find((one) => one.system === line.dataset.system);
      const [nodes, value] = first.get(line.dataset.system);
      if (!base || !row) {
        cell.replaceChildren(...nodes);
        if (value === undefined) delete cell.dataset.sort; else cell.dataset.sort = value;
        continue;
      }
      const [mean, low, high] = bySeed(row, base);
      cell.replaceChildren(row === base ? "(itself)" : mean === null ? "n/a" :
        `${mean > 0 ? "+" : ""}${short(mean)}` + (low === null ? "" : ` [${short(low)}, ${short(high)}]`));
      if (mean === null) delete cell.dataset.sort; else cell.dataset.sort = mean;
    }
    const sorted = board.tHead.querySelector("[aria-sort]");
    if (sorted) sort(sorted, sorted.cellIndex, true);
  });

  function bySeed(row, base) {
    const theirs = new Map(base.seeds.map((seed, i) => [seed, base.figures[SPLICED][3][i]]));
    const known = row.seeds.map((seed, i) => [row.figures[SPLICED][3][i], theirs.get(seed)])
      .filter(([ours, other]) => typeof ours === "number" && typeof other === "number").map(([ours, other]) => ours - other);
    if (!known.length) return [null, null, null];
    const mean = known.reduce((a, b) => a + b, 0) / known.length, t = T[known.length - 1] || 1.96;
    if (known.length < 2) return [mean, null, null];
    const spread = Math.sqrt(known.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (known.length - 1) / known.length);
    return [mean, mean - t * spread, mean + t * spread];
  }

})();
