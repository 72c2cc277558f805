"use strict";
// A click on a head sorts by its column; another click turns the order round. Rows without a value
// stay last.
const key = (row, column) => {
  const cell = row.cells[column];
  const number = cell.dataset.n;
  return number === undefined ? cell.textContent.trim() : number === "" ? NaN : Number(number);
};
const compare = (a, b, sign) => {
  const missing = [a, b].map((v) => v === "" || Number.isNaN(v));
  if (missing[0] || missing[1]) return missing[0] - missing[1];
  return sign * (typeof a === "number" && typeof b === "number"
    ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
};
const sort = (head) => {
  const row = head.parentElement;
  const body = row.closest("table").tBodies[0];
  const column = [...row.cells].indexOf(head);
  const order = head.ariaSort === "ascending" ? "descending" : "ascending";
  for (const other of row.cells) other.ariaSort = other === head ? order : "none";
  const sign = order === "ascending" ? 1 : -1;
  const rows = [...body.rows].map((r) => [key(r, column), r]);
  rows.sort((a, b) => compare(a[0], b[0], sign));
  body.append(...rows.map((pair) => pair[1]));
};
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => sort(button.parentElement));
}
