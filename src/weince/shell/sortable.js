"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") === "descending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent.trim().replaceAll(",", "");
    [...body.rows].sort((a, b) => {
      const x = value(a), y = value(b);
      // What is no number, such as "none", stands under the numbers either way.
      const apart = Number(isNaN(x)) - Number(isNaN(y));
      if (apart) return apart;
      const order = isNaN(x) ? x.localeCompare(y) : x - y;
      return up ? order : -order;
    }).forEach(row => body.append(row));
  }));
}
