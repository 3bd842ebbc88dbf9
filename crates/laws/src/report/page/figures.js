// Figures that answer: point at one, or walk through it with the arrow keys, and it reads out the nearest measurement;
// press a word of its legend, and what that names is hidden. The numbers are those of the model that was drawn.
"use strict";
for (const figure of document.querySelectorAll("figure.answers")) {
  const { x, y, tracks } = JSON.parse(figure.querySelector("script").textContent);
  const plot = figure.querySelector(".plot");
  const drawings = [...plot.querySelectorAll("svg")];
  const off = new Set();
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "status");
  plot.append(tip);
  const rings = new Map(drawings.map((drawing) => {
    const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    ring.setAttribute("class", "ring");
    ring.setAttribute("visibility", "hidden");
    drawing.append(ring);
    return [drawing, ring];
  }));
  let chosen = null;

  const shown = () => tracks.filter((track) => !track.in.some((group) => off.has(group)));
  const seen = () => drawings.find((drawing) => drawing.getClientRects().length);
  const share = ([lo, hi, isLog], value) => isLog ? Math.log(value / lo) / Math.log(hi / lo) : (value - lo) / (hi - lo);

  /** Where a point is in a drawing, in the drawing's own pixels. */
  function place(drawing, point) {
    const [left, top, width, height] = drawing.dataset.plot.split(" ").map(Number);
    return [left + width * share(x, point[0]), top + height * (1 - share(y, point[1]))];
  }

  function show(track, index) {
    const drawing = seen();
    if (!drawing || !track) return;
    chosen = { track, index };
    const point = track.at[index];
    const [at, down] = place(drawing, point);
    const scale = drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width;
    for (const ring of rings.values()) ring.setAttribute("visibility", "hidden");
    const ring = rings.get(drawing);
    ring.setAttribute("cx", at);
    ring.setAttribute("cy", down);
    ring.setAttribute("r", 9);
    ring.setAttribute("visibility", "visible");
    const lines = [track.name, ...point[2].split("\n")].filter(Boolean);
    tip.replaceChildren(...lines.map((line, row) => {
      const part = document.createElement(row ? "span" : "b");
      part.textContent = line;
      return part;
    }));
    tip.hidden = false;
    // Beside the point, and never beyond the figure, which would make the page scroll.
    const room = plot.clientWidth - tip.offsetWidth;
    const left = at * scale + 14 > room ? at * scale - tip.offsetWidth - 14 : at * scale + 14;
    tip.style.left = `${Math.max(0, Math.min(room, left))}px`;
    const above = down * scale - tip.offsetHeight - 12;
    tip.style.top = `${above < 0 ? down * scale + 14 : above}px`;
  }

  function hide() {
    chosen = null;
    tip.hidden = true;
    for (const ring of rings.values()) ring.setAttribute("visibility", "hidden");
  }

  /** The measurement next to a place, in pixels of the screen. */
  function nearest(drawing, left, top, reach) {
    const scale = drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width;
    let best = null;
    let least = reach;
    for (const track of shown()) {
      track.at.forEach((point, index) => {
        const [at, down] = place(drawing, point);
        const far = Math.hypot(at * scale - left, down * scale - top);
        if (far < least) [best, least] = [{ track, index }, far];
      });
    }
    return best;
  }

  function point(event) {
    const drawing = seen();
    if (!drawing) return;
    const box = drawing.getBoundingClientRect();
    const found = nearest(drawing, event.clientX - box.left, event.clientY - box.top, event.pointerType === "mouse" ? 30 : 44);
    if (found) show(found.track, found.index);
    else hide();
  }
  plot.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") point(event); });
  plot.addEventListener("pointerdown", point);
  plot.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });

  /** The point of a track that is nearest in x. */
  function beside(track, value) {
    let best = 0;
    track.at.forEach((point, index) => { if (Math.abs(point[0] - value) < Math.abs(track.at[best][0] - value)) best = index; });
    return best;
  }

  plot.tabIndex = 0;
  plot.setAttribute("role", "group");
  plot.setAttribute("aria-label", `${figure.querySelector("h3").textContent}: arrow keys read out its points`);
  plot.addEventListener("keydown", (event) => {
    const all = shown();
    if (event.key === "Escape") return hide();
    if (!all.length || !["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) return;
    event.preventDefault();
    const row = chosen ? all.indexOf(chosen.track) : -1;
    if (row < 0) return show(all[0], 0);
    const { track, index } = chosen;
    const last = track.at.length - 1;
    if (event.key === "Home") show(track, 0);
    else if (event.key === "End") show(track, last);
    else if (event.key === "ArrowLeft") show(track, Math.max(0, index - 1));
    else if (event.key === "ArrowRight") show(track, Math.min(last, index + 1));
    else {
      const next = all[(row + (event.key === "ArrowDown" ? 1 : all.length - 1)) % all.length];
      show(next, beside(next, track.at[index][0]));
    }
  });
  plot.addEventListener("blur", hide);

  for (const button of figure.querySelectorAll(".legend button")) {
    button.disabled = false;
    button.addEventListener("click", () => {
      const group = Number(button.dataset.of);
      if (!off.delete(group)) off.add(group);
      button.setAttribute("aria-pressed", String(!off.has(group)));
      for (const part of plot.querySelectorAll("[data-in]")) {
        const hidden = part.dataset.in.split(" ").some((entry) => off.has(Number(entry)));
        part.style.display = hidden ? "none" : "";
      }
      hide();
    });
  }
}
