// Elements, numbers and times. Every text gets into the page as a text node: nothing that a run is called is ever HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "key") element.dataset.key = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An HTML element. Children are nodes or texts. */
export const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
/** An SVG element. */
export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** Puts nodes in place of what an element holds, and the focus back where it was. */
export function show(element, ...nodes) {
  const key = element.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  element.replaceChildren(...nodes.flat(9).filter(Boolean));
  if (key) element.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

/** A table. Columns: { title, of: row => content, number, wide, name }. */
export function table(columns, rows, attributes) {
  const kind = (column) => [column.number && "number", column.wide && "wide", column.name && "name"].filter(Boolean).join(" ") || null;
  const head = columns.map((column) => el("th", { scope: "col", class: kind(column) }, column.title));
  const body = rows.map((row) => el("tr", null, columns.map((column) => el("td", { class: kind(column) }, column.of(row) ?? "–"))));
  return el("div", { class: "scroll" }, el("table", attributes, el("thead", null, el("tr", null, head)), el("tbody", null, body)));
}

export const phase = (word) => el("span", { class: `phase ${word}` }, word);

export function bar(share) {
  const filled = el("i");
  filled.style.width = `${100 * Math.min(1, Math.max(0, share || 0))}%`;
  return el("div", { class: "bar" }, filled);
}

const known = (value) => value !== null && value !== undefined;
export const fixed = (value, digits) => (known(value) ? value.toFixed(digits) : null);

/** 1234567 as 1.23M. */
export function count(value) {
  if (!known(value)) return null;
  const units = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]];
  const [size, unit] = units.find(([size]) => value >= size) ?? [1, ""];
  return size === 1 ? String(value) : `${Number((value / size).toPrecision(3))}${unit}`;
}

export const scientific = (value) => (known(value) ? value.toExponential(2).replace("e+", "e") : null);

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  for (; value >= 1024 && at < units.length - 1; at += 1) value /= 1024;
  return `${at ? value.toFixed(1) : value} ${units[at]}`;
}

export function duration(seconds) {
  if (!known(seconds)) return null;
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

/** How long a trial is, in the words of its sweep. */
export function length(at) {
  const [[kind, value]] = Object.entries(at.length);
  if (kind === "steps") return `${value} steps`;
  if (kind === "tokens_per_parameter") return `${value} tokens/N`;
  return `${scientific(value)} FLOPs`;
}

const FITTED = "heldout_prompts";

/** The score that laws are fitted to. */
export const score = (scores) => scores[FITTED] ?? Object.values(scores)[0];

export const setTitle = (set) => set.replace("heldout_", "held-out ");
