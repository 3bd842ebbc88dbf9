// Line charts that read like the report's figures.

import { el, svg, scientific } from "./dom.js";

const PAD = { left: 52, right: 14, top: 14, bottom: 40 };
const COLOURS = 7;

export const colour = (index) => `k${index % COLOURS}`;

/** Round values on an axis. */
function ticks(lo, hi, log, most) {
  if (log && hi / lo >= 8) {
    const all = [];
    for (let e = Math.floor(Math.log10(lo)); e <= Math.ceil(Math.log10(hi)); e += 1) for (const m of hi / lo < 100 ? [1, 2, 5] : [1]) all.push(m * 10 ** e);
    const within = all.filter((tick) => tick >= lo && tick <= hi);
    const stride = Math.ceil(within.length / most);
    return within.filter((_, at) => at % stride === 0);
  }
  const rough = (hi - lo) / most;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * unit).find((s) => s >= rough) ?? 10 * unit;
  const found = [];
  for (let at = Math.ceil(lo / step); at * step <= hi; at += 1) found.push(Number((at * step).toPrecision(12)));
  return found;
}

const label = (value) => (value !== 0 && (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3) ? scientific(value).replace(".00e", "e") : String(Number(value.toPrecision(4))));

function axis(values, log, from, to, pad) {
  let lo = Math.min(...values);
  let hi = Math.max(...values);
  if (lo === hi) [lo, hi] = log ? [lo / 1.1, hi * 1.1] : [lo - 0.5 * Math.abs(lo || 1), hi + 0.5 * Math.abs(hi || 1)];
  else if (log) [lo, hi] = [lo / (hi / lo) ** pad, hi * (hi / lo) ** pad];
  else [lo, hi] = [lo - pad * (hi - lo), hi + pad * (hi - lo)];
  const scale = log ? Math.log : (x) => x;
  return { lo, hi, log, at: (value) => from + ((scale(value) - scale(lo)) / (scale(hi) - scale(lo))) * (to - from) };
}

/**
 * A chart. `series`: { name, colour, points: [[x, y], …], marks } where `marks` shows points rather than a line.
 * Returns null where there is nothing to draw.
 */
export function chart({ series, x, y, xLog, yLog, width, height = 300, describe }) {
  const usable = series
    .map((one) => ({ ...one, points: one.points.filter(([a, b]) => Number.isFinite(a) && Number.isFinite(b) && (!xLog || a > 0) && (!yLog || b > 0)) }))
    .filter((one) => one.points.length);
  const all = usable.flatMap((one) => one.points);
  if (!all.length) return null;
  const across = axis(all.map(([a]) => a), xLog, PAD.left, width - PAD.right, 0.02);
  const up = axis(all.map(([, b]) => b), yLog, height - PAD.bottom, PAD.top, 0.06);
  const drawn = [];
  for (const tick of ticks(across.lo, across.hi, xLog, Math.max(2, Math.floor(width / 110)))) {
    const at = across.at(tick);
    drawn.push(svg("line", { class: "grid", x1: at, x2: at, y1: PAD.top, y2: height - PAD.bottom }));
    drawn.push(svg("text", { x: at, y: height - PAD.bottom + 16, "text-anchor": "middle" }, label(tick)));
  }
  for (const tick of ticks(up.lo, up.hi, yLog, 6)) {
    const at = up.at(tick);
    drawn.push(svg("line", { class: "grid", x1: PAD.left, x2: width - PAD.right, y1: at, y2: at }));
    drawn.push(svg("text", { x: PAD.left - 8, y: at + 4, "text-anchor": "end" }, label(tick)));
  }
  for (const one of usable) {
    const places = one.points.map(([a, b]) => [across.at(a), up.at(b)]);
    if (one.marks || places.length === 1) for (const [cx, cy] of places) drawn.push(svg("circle", { class: colour(one.colour), cx, cy, r: 3.5 }));
    else drawn.push(svg("polyline", { class: `series ${colour(one.colour)}`, fill: "none", points: places.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" ") }));
  }
  drawn.push(svg("text", { x: (PAD.left + width - PAD.right) / 2, y: height - 6, "text-anchor": "middle" }, x));
  const reading = svg("text", { class: "reading", x: width - PAD.right - 4, y: PAD.top + 12, "text-anchor": "end" });
  const spot = svg("circle", { class: "hover", r: 5, visibility: "hidden" });
  const picture = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${y} against ${x}` }, drawn, spot, reading);
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const [px, py] = [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
    let best = null;
    for (const one of usable) {
      for (const point of one.points) {
        const distance = Math.hypot(across.at(point[0]) - px, up.at(point[1]) - py);
        if (!best || distance < best.distance) best = { distance, one, point };
      }
    }
    const { one, point } = best;
    for (const [name, value] of [["cx", across.at(point[0])], ["cy", up.at(point[1])], ["class", `hover ${colour(one.colour)}`], ["visibility", "visible"]]) spot.setAttribute(name, value);
    reading.textContent = (describe ?? ((name, a, b) => `${name}: ${b.toPrecision(4)} at ${label(a)}`))(one.name, point[0], point[1]);
  });
  picture.addEventListener("pointerleave", () => {
    spot.setAttribute("visibility", "hidden");
    reading.textContent = "";
  });
  return picture;
}

/** What colours stand for. */
export const legend = (entries) => el("ul", { class: "legend" }, entries.map(([name, index]) => el("li", null, el("i", { class: colour(index) }), name)));
