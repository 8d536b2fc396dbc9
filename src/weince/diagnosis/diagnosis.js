const RED = "#D1495B", BLUE = "#4477AA", GREY = "#5C6675";
const state = { threshold: 0, estimator: data.thresholds[0].regular ? "likelihood" : "moments", anchor: null };
const fixed = (value, digits) => value === null ? "none" : value.toFixed(digits);
const interval = (value, bounds, digits) => `${fixed(value, digits)} [${fixed(bounds.low, digits)}, ${fixed(bounds.high, digits)}]`;

function whole(text) {
  const element = document.createElement("span");
  element.className = "whole";
  element.textContent = text;
  return element;
}

function drawTail() {
  const one = data.thresholds[state.threshold], c = one.curves, e = one[state.estimator];
  by("threshold").value = state.threshold;
  by("threshold").setAttribute("aria-valuetext", one.threshold.toFixed(3));
  for (const name of ["likelihood", "moments"]) by(name).setAttribute("aria-pressed", String(name === state.estimator));
  const facts = [`u = ${one.threshold.toFixed(3)}`,
    `${one.n.toLocaleString("en")} pairs on ${Math.round(one.rows).toLocaleString("en")} rows`,
    `xi = ${interval(e.shape, e.shape_interval, 3)}`, `endpoint ${interval(e.endpoint, e.endpoint_interval, 3)}`,
    `p = ${one.test.p_value.toPrecision(2)}`];
  const numbers = facts.join(" · ");
  by("numbers").replaceChildren(...facts.flatMap((fact, k) => [k ? " · " : "", whole(fact)]));
  by("density").setAttribute("aria-label", `Density of the similarities over the threshold, with the GPD and the exponential law: ${numbers}`);
  by("quantiles").setAttribute("aria-label", `Similarities found against those that the GPD and the exponential law expect: ${numbers}`);
  Plotly.react("density", [
    { type: "bar", x: c.place, y: c.density, width: c.width, marker: { color: faint(seen(GREY), .45) }, name: "found" },
    { x: c.place, y: c.gpd_density, line: { color: seen(RED) }, name: "GPD" },
    { x: c.place, y: c.exponential_density, line: { color: seen(BLUE), dash: "dash" }, name: "exponential" }],
    layout("similarity", "density"), options);
  const ends = [c.quantile[0], c.quantile[c.quantile.length - 1]];
  Plotly.react("quantiles", [
    { x: ends, y: ends, line: { color: tone("soft"), width: 1 }, mode: "lines", hoverinfo: "skip", showlegend: false },
    { x: c.gpd_quantile, y: c.quantile, mode: "markers", marker: { color: seen(RED), size: 5 }, name: "GPD" },
    { x: c.exponential_quantile, y: c.quantile, mode: "markers", marker: { color: seen(BLUE), size: 5, symbol: "x" }, name: "exponential" }],
    layout("similarity the law expects", "similarity found", { shapes: [rule("x", 1)], legend: { x: 1, xanchor: "right", y: 0, bgcolor: veil() } }), options);
  drawThresholds();
}

function drawThresholds() {
  const u = data.thresholds.map(t => t.threshold), here = rule("x", u[state.threshold], seen(RED), "solid");
  for (const [id, name, level, least, most] of [["shape", "shape xi", 0, -1, 1], ["endpoint", "endpoint", 1, -1, 1.5]]) {
    const es = data.thresholds.map(t => t[t.regular || state.estimator === "moments" ? state.estimator : "moments"]);
    const y = es.map(e => e[id]), low = es.map(e => e[id + "_interval"].low), high = es.map(e => e[id + "_interval"].high);
    const range = extent([...y, ...low, ...high], level, least, most);
    Plotly.react(id, [band(u, low, high, range, RED),
      { x: u, y, mode: "lines+markers", marker: { color: seen(RED), size: 8 }, line: { color: seen(RED) }, showlegend: false }],
      layout("threshold", name, { shapes: [rule("y", level), here], yaxis: { range } }), options);
  }
  const e = data.excess, low = e.mean.map((v, i) => v - e.error[i]), high = e.mean.map((v, i) => v + e.error[i]);
  Plotly.react("excess", [band(e.threshold, low, high, [-Infinity, Infinity], GREY),
    { x: e.threshold, y: e.mean, line: { color: seen(GREY) }, mode: "lines", showlegend: false }],
    layout("threshold", "mean excess", { shapes: [here] }), options);
}

function drawAnchors() {
  const a = data.anchors, key = by("colour").value, chosen = state.anchor;
  const ring = chosen === null ? [] : [{ x: [a.nearness[chosen]], y: [a.slope_line[chosen]], mode: "markers", type: "scattergl",
    marker: { size: 16, symbol: "circle-open", color: tone("accent"), line: { width: 3 } }, hoverinfo: "skip", showlegend: false }];
  return Plotly.react("anchors", [{ x: a.nearness, y: a.slope_line, mode: "markers", type: "scattergl", showlegend: false,
    marker: { color: a[key], colorscale: "Viridis", size: 6, line: { width: night.matches ? .7 : 0, color: tone("soft") },
      colorbar: { title: { text: key.replace("_", " "), side: "right" }, thickness: 12, outlinewidth: 0 } },
    customdata: a.row, hovertemplate: "row %{customdata}<br>nearness %{x:.4g}<br>slope %{y:.3g}<extra></extra>" }, ...ring],
    layout("shortfall of the hardest negative, rho", "slope beta", { xaxis: { type: "log" }, yaxis: { type: "log" } }), options);
}

function drawBackground() {
  Plotly.react("background", [{ x: data.background.place, y: data.background.density, fill: "tozeroy", fillcolor: faint(seen(GREY), .35),
    line: { color: seen(GREY), shape: "hvh", width: 1 }, showlegend: false }],
    layout("similarity of a random pair", "density", { shapes: [rule("x", 1), rule("x", data.thresholds[0].threshold, seen(RED), "solid")] }), options);
}

function showAnchor(place) {
  const a = data.anchors, panel = by("anchor");
  const say = (tag, text) => { const element = document.createElement(tag); element.textContent = text; return element; };
  const head = text => { const element = say("th", text); element.scope = "col"; return element; };
  const title = say("h3", `Row ${a.row[place]}` + (data.labels ? `, ${data.labels.anchors[place]}` : ""));
  const facts = say("p", `nearness ${a.nearness[place].toPrecision(3)} · slope ${a.slope_line[place].toPrecision(3)} (line), ` +
    `${a.slope_likelihood[place].toPrecision(3)} (likelihood) · local dimension ${(2 * a.slope_likelihood[place]).toPrecision(3)} · ` +
    `weight ${a.weight[place].toFixed(3)} · effective temperature ${a.effective_temperature[place].toPrecision(3)}`);
  const box = document.createElement("div"), table = document.createElement("table"), heads = table.createTHead().insertRow();
  box.className = "scroll";
  box.tabIndex = 0;
  for (const name of ["hardest negatives: row", "similarity", ...(data.labels ? ["label"] : [])]) heads.append(head(name));
  const body = table.createTBody();
  a.neighbours[place].forEach((row, i) => {
    if (row < 0) return;
    const line = body.insertRow(), own = say("th", row);
    own.scope = "row";
    line.append(own);
    for (const text of [a.neighbour_similarity[place][i].toFixed(4), ...(data.labels ? [data.labels.neighbours[place][i]] : [])]) line.append(say("td", text));
  });
  box.append(table);
  panel.replaceChildren(title, facts, box);
  by("row").value = a.row[place];
  state.anchor = place;
  drawAnchors();
}

function redraw() {
  drawTail();
  drawAnchors();
  drawBackground();
}

by("threshold").max = data.thresholds.length - 1;
by("threshold").addEventListener("input", event => { state.threshold = Number(event.target.value); drawTail(); });
for (const name of ["likelihood", "moments"]) by(name).addEventListener("click", () => { state.estimator = name; drawTail(); });
by("colour").addEventListener("change", drawAnchors);
by("row").addEventListener("change", event => {
  const place = data.anchors.row.indexOf(Number(event.target.value));
  event.target.setCustomValidity(place < 0 ? "This row is not among the anchors drawn." : "");
  if (place < 0) event.target.reportValidity(); else showAnchor(place);
});
redraw();
for (const id of ["shape", "endpoint"]) by(id).on("plotly_click", event => {
  const point = event.points.find(p => p.curveNumber === 1);
  if (point) { state.threshold = point.pointNumber; drawTail(); }
});
by("anchors").on("plotly_click", event => { const point = event.points.find(p => p.curveNumber === 0); if (point) showAnchor(point.pointNumber); });
