// What the plots of every page share; a page draws them all in redraw(), anew when the screen turns dark or light.
const by = id => document.getElementById(id);
const tone = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const data = JSON.parse(by("data").textContent);
const options = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d"] };
const night = matchMedia("(prefers-color-scheme: dark)");
night.addEventListener("change", () => redraw());

const parts = colour => [1, 3, 5].map(k => parseInt(colour.length === 4 ? colour[(k + 1) / 2].repeat(2) : colour.slice(k, k + 2), 16));
const luminance = colour => parts(colour).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, k) => sum + [.2126, .7152, .0722][k] * v, 0);

// A colour as it is in the light; in the dark, lightened until it is seen (3 : 1).
function seen(colour) {
  const ground = luminance(tone("card")), ink = parts(tone("ink"));
  let found = colour;
  for (let share = 0; night.matches && (luminance(found) + .05) / (ground + .05) < 3; share += .05)
    found = "#" + parts(colour).map((v, k) => Math.round(v + share * (ink[k] - v)).toString(16).padStart(2, "0")).join("");
  return found;
}

// A colour that shines through: for bands.
const faint = (colour, opacity = .2) => `rgba(${parts(colour).join(",")},${opacity})`;
const veil = () => faint(tone("card"), .8);

function layout(x, y, more = {}) {
  const axis = { gridcolor: tone("line"), linecolor: tone("line"), zeroline: false, automargin: true };
  return { margin: { l: 58, r: 14, t: 12, b: 46 }, font: { family: "system-ui, sans-serif", size: 12, color: tone("ink") },
    paper_bgcolor: tone("card"), plot_bgcolor: tone("card"), hovermode: "closest",
    hoverlabel: { bgcolor: tone("back"), bordercolor: tone("soft"), font: { color: tone("ink") } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: tone("soft"), activecolor: tone("ink") },
    legend: { x: 1, xanchor: "right", y: 1, bgcolor: veil() }, ...more,
    xaxis: { ...axis, title: { text: x }, ...more.xaxis }, yaxis: { ...axis, title: { text: y }, ...more.yaxis } };
}

const rule = (axis, at, colour = tone("soft"), dash = "dot") => ({ type: "line", [axis + "0"]: at, [axis + "1"]: at,
  [(axis === "x" ? "y" : "x") + "ref"]: "paper", [axis === "x" ? "y0" : "x0"]: 0, [axis === "x" ? "y1" : "x1"]: 1,
  line: { color: colour, width: 1.2, dash } });

// The part of an axis that estimates and the finite bounds of their intervals need, between `least` and `most`.
function extent(values, level, least, most) {
  const held = [...values.filter(v => v !== null).map(v => Math.min(Math.max(v, least), most)), ...(level === null ? [] : [level])];
  const low = Math.min(...held), high = Math.max(...held), room = .06 * (high - low) + 1e-4;
  return [low - room, high + room];
}

// The band of intervals; one without a bound goes to the edge of the axis.
const band = (x, low, high, [bottom, top], colour, opacity = .2) => ({ x: [...x, ...[...x].reverse()],
  y: [...low.map(v => v === null ? bottom : Math.max(v, bottom)), ...high.map(v => v === null ? top : Math.min(v, top)).reverse()],
  fill: "toself", fillcolor: faint(seen(colour), opacity), line: { width: 0 }, hoverinfo: "skip", mode: "lines", showlegend: false });
