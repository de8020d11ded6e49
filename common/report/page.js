"use strict";
/* Sorts and copies tables, and switches the theme. */

(() => {
  for (const table of document.querySelectorAll("table")) makeSortable(table);
  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", () => copyTable(button));
  }
  switchThemeBy(document.querySelector("button.theme"));

  // --- Sorting: ascending, descending, as written. -------------------------------

  function makeSortable(table) {
    const written = [...table.tBodies[0].rows];
    const heads = [...table.tHead.rows[0].cells];
    const next = { none: "ascending", ascending: "descending", descending: "none" };
    heads.forEach((head, column) => {
      head.addEventListener("click", (event) => {
        if (event.target.closest("a")) return; // to the glossary
        const direction = next[head.getAttribute("aria-sort")];
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", direction);
        table.tBodies[0].append(...sorted(written, column, direction));
      });
    });
  }

  function sorted(rows, column, direction) {
    if (direction === "none") return rows;
    const sign = direction === "ascending" ? 1 : -1;
    const keys = new Map(rows.map((row) => [row, sortKey(row.cells[column])]));
    return [...rows].sort((a, b) => compared(keys.get(a), keys.get(b), sign));
  }

  /** A number, a text, or null for what is not defined. */
  function sortKey(cell) {
    const value = cell?.dataset.value;
    if (value === undefined) return cell?.textContent ?? null;
    return value === "" ? null : Number(value);
  }

  /** Numbers come before texts; null comes last in either direction. */
  function compared(a, b, sign) {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    if (typeof a === "number") return sign * (a < b ? -1 : a > b ? 1 : 0);
    return sign * a.localeCompare(b, "en", { numeric: true });
  }

  // --- Copying: tab-separated, with all digits. ----------------------------------

  async function copyTable(button) {
    const table = button.closest("figure").querySelector("table");
    const copied = await copyText(tabSeparated(table));
    const label = button.textContent;
    button.textContent = copied ? "Copied" : "Not allowed";
    setTimeout(() => (button.textContent = label), 1500);
  }

  async function copyText(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return copyBySelection(text); // where the clipboard is closed to files
    }
  }

  function copyBySelection(text) {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "off-screen";
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }

  function tabSeparated(table) {
    const heads = [...table.tHead.rows[0].cells];
    const rows = [...table.tBodies[0].rows].filter((row) => row.cells.length === heads.length);
    const columns = heads.map((head, index) => ({
      title: head.querySelector(".title").textContent,
      index,
      extras: ["low", "high", "n"].filter((name) =>
        rows.some((row) => row.cells[index].dataset[name] !== undefined),
      ),
    }));
    const header = columns.flatMap(({ title, extras }) => [
      title,
      ...extras.map((name) => `${title}, ${name}`),
    ]);
    const lines = rows.map((row) =>
      columns.flatMap(({ index, extras }) => {
        const cell = row.cells[index];
        const shown = cell.dataset.value ?? cell.textContent;
        return [shown, ...extras.map((name) => cell.dataset[name] ?? "")];
      }),
    );
    return [header, ...lines]
      .map((cells) => cells.map((cell) => cell.replace(/\s+/g, " ")).join("\t") + "\n")
      .join("");
  }

  // --- Theme: as the system says, until the reader chooses. ----------------------

  function switchThemeBy(button) {
    const system = matchMedia("(prefers-color-scheme: dark)");
    let chosen = null;
    const show = () => {
      const theme = chosen ?? (system.matches ? "dark" : "light");
      if (chosen) document.documentElement.style.colorScheme = chosen;
      button.textContent = theme === "dark" ? "Light" : "Dark";
      button.setAttribute("aria-label", `Use ${button.textContent.toLowerCase()} colours`);
    };
    button.addEventListener("click", () => {
      chosen = button.textContent.toLowerCase();
      show();
    });
    system.addEventListener("change", show);
    show();
  }
})();
