"use strict";
(() => {
  const root = document.documentElement;
  const press = (group, chosen) => {
    for (const b of document.querySelectorAll(`[data-${group}-choice]`)) {
      b.setAttribute("aria-pressed", String(b.dataset[`${group}Choice`] === chosen));
    }
  };
  const choose = (group, chosen) => { root.dataset[group] = chosen; press(group, chosen); };
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  choose("theme", dark ? "dark" : "light");
  press("units", root.dataset.units);
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    for (const group of ["units", "theme"]) {
      const chosen = button.dataset[`${group}Choice`];
      if (chosen) choose(group, chosen);
    }
    if (button.dataset.copy) {
      const text = document.getElementById(button.dataset.copy).textContent;
      try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; }
      catch { getSelection().selectAllChildren(document.getElementById(button.dataset.copy)); button.textContent = "Selected"; }
    }
    if (button.dataset.column !== undefined) sort(button);
  });
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.sort !== undefined ? Number(cell.dataset.sort) : cell.textContent.trim();
  };
  const sort = (button) => {
    const head = button.closest("th"), table = button.closest("table");
    const column = Number(button.dataset.column), body = table.tBodies[0];
    const down = head.getAttribute("aria-sort") !== "descending";
    for (const th of table.tHead.rows[0].cells) th.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].sort((a, b) => {
      const x = value(a, column), y = value(b, column);
      const order = typeof x === "number" ? x - y : x.localeCompare(y);
      return down ? -order : order;
    });
    body.append(...rows);
  };
})();
