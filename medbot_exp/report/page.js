"use strict";

// A copy button, where the browser lets a page copy.
for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

// A click on a column's head sorts by it, a second one the other way round; cells without a value stay last.
const keyOf = (row, column) => {
  const cell = row.cells[column];
  if ("value" in cell.dataset) return Number(cell.dataset.value.replace(/^(-?)inf$/, "$1Infinity"));
  return ["", "–"].includes(cell.textContent) ? null : cell.textContent;
};
const compare = (a, b) =>
  typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      const keyed = [...table.tBodies[0].rows].map((row) => [keyOf(row, column), row]);
      keyed.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : sign * compare(a, b)));
      table.tBodies[0].append(...keyed.map(([, row]) => row));
    });
  });
}

// The trial under the pointer lights up wherever it is drawn.
let lit = null;
document.addEventListener("pointerover", (event) => {
  const trial = event.target.closest?.("[data-trial]")?.dataset.trial ?? null;
  if (trial === lit) return;
  lit = trial;
  for (const mark of document.querySelectorAll(".lit")) mark.classList.remove("lit");
  if (trial === null) return;
  for (const mark of document.querySelectorAll(`[data-trial="${trial}"]`)) mark.classList.add("lit");
});
