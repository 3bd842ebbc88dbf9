// What the sections show. Each takes the picture of the run and a width, and returns nodes.

import { bar, bytes, duration, el, fixed, length, phase, score, table } from "./dom.js";
import { chart, legend } from "./chart.js";

const OVER = new Set(["done", "abandoned"]);

const number = (trials, ...phases) => trials.filter((trial) => phases.includes(trial.phase)).length;

/** Sizes in order of their parameters: each has a colour everywhere. */
export function sizes(status) {
  const known = new Map(status.trials.map((trial) => [trial.at.size, trial.parameters]));
  return [...known.keys()].sort((a, b) => known.get(a) - known.get(b));
}

export const link = (trial) => el("a", { href: `#/trial/${encodeURIComponent(trial)}`, key: `trial-${trial}` }, trial);

function card(title, value, about, bad) {
  return el("div", { class: bad ? "card bad" : "card" }, el("h3", { class: "muted" }, title), el("b", null, value), about && el("span", { class: "muted" }, about));
}

function health(status) {
  const { store } = status;
  if (store.paused) return card("Store", "away", "what trains goes on; nothing new begins", true);
  if (store.trouble) return card("Store", "in trouble", store.trouble, true);
  return card("Store", "sound", status.pool && `${store.unsaved} facts on their way`);
}

function cards(status) {
  const { trials, pool } = status;
  const done = number(trials, "done");
  const abandoned = number(trials, "abandoned");
  return el("section", { class: "cards", "aria-label": "Summary" },
    card("Trials done", `${done} of ${trials.length}`, bar(trials.reduce((sum, trial) => sum + trial.step / trial.steps, 0) / trials.length)),
    card("Running", String(number(trials, "running", "saving")), `${number(trials, "waiting", "missing", "begun")} to come`),
    card("Left", duration(status.left_seconds) ?? "–", status.left_seconds !== null ? "at least" : "not measured"),
    pool && card("Workers", String(pool.workers.length), `${pool.idle} free on ${new Set(pool.workers.map((worker) => worker.host)).size} hosts`),
    health(status),
    card("Abandoned", String(abandoned), abandoned ? el("a", { href: "#/failures" }, "why") : "none", abandoned > 0));
}

/** Training losses of all trials over the compute that they took. */
function curves(state, width) {
  const order = sizes(state.status);
  const series = [];
  for (const trial of state.status.trials) {
    const curve = state.curves.get(trial.trial);
    if (!curve) continue;
    const flops = (step) => (trial.flops_6nd * step) / trial.steps;
    series.push({ name: trial.trial, colour: order.indexOf(trial.at.size), points: curve.points.map((point) => [flops(point.step), point.loss]) });
  }
  const picture = chart({ series, x: "compute, FLOPs (6ND)", y: "training loss", xLog: true, yLog: true, width, height: Math.min(380, Math.max(260, width / 2.4)) });
  const title = el("h2", null, "Training loss");
  if (!picture) return [title, el("p", { class: "muted" }, "No step is done yet.")];
  return [title, el("figure", { id: "curves" }, picture, legend(order.map((size, index) => [size, index])), el("figcaption", null, "Each line is a trial; it grows as its steps are done."))];
}

/** The plan as a table of sizes and lengths, which fills as trials end. */
function cells(status) {
  const points = status.trials.filter((trial) => trial.role === "point");
  const columns = [...new Set(points.map((trial) => length(trial.at)))];
  const loss = (trial) => (trial.phase === "done" && score(trial.scores) ? score(trial.scores).loss : Infinity);
  const best = Math.min(...points.map(loss));
  const cell = (trials) => {
    if (!trials.length) return null;
    const lowest = trials.reduce((a, b) => (loss(b) < loss(a) ? b : a));
    const open = trials.filter((trial) => !OVER.has(trial.phase));
    const shown = Number.isFinite(loss(lowest)) ? lowest : open.find((trial) => trial.phase === "running") ?? trials[0];
    const text = Number.isFinite(loss(shown)) ? loss(shown).toFixed(4) : shown.phase === "running" ? `${Math.floor((100 * shown.step) / shown.steps)} %` : shown.phase;
    const more = trials.length > 1 ? ` (${trials.length - open.length}/${trials.length})` : "";
    const about = trials.map((trial) => `${trial.trial}: ${trial.phase}`).join("\n");
    return el("a", { class: `cell ${shown.phase}${loss(shown) === best && Number.isFinite(best) ? " best" : ""}`, href: `#/trial/${encodeURIComponent(shown.trial)}`, key: `cell-${shown.trial}`, title: about }, text + more);
  };
  const rows = sizes(status).filter((size) => points.some((trial) => trial.at.size === size)).map((size) => el("tr", null, el("th", { scope: "row" }, size), columns.map((column) => el("td", null, cell(points.filter((trial) => trial.at.size === size && length(trial.at) === column))))));
  const head = el("tr", null, el("th", { scope: "col" }, "size"), columns.map((column) => el("th", { scope: "col" }, column)));
  return [el("h2", null, "Cells"), el("div", { class: "scroll" }, el("table", { class: "cells" }, el("thead", null, head), el("tbody", null, rows))),
    el("p", { class: "muted" }, "Held-out loss of each size at each length; the best one is outlined, and a cell of several trials shows its best.")];
}

export function overview(state, width) {
  const { status } = state;
  const running = status.trials.filter((trial) => trial.phase === "running" || trial.phase === "saving");
  return [
    cards(status),
    status.store.trouble && el("p", { class: "note" }, status.store.trouble),
    curves(state, width),
    cells(status),
    running.length > 0 && [el("h2", null, "At work"), el("section", { id: "running" }, table([
      { title: "trial", of: (trial) => link(trial.trial), name: true },
      { title: "", of: (trial) => bar(trial.step / trial.steps), wide: true },
      { title: "step", of: (trial) => `${trial.step}/${trial.steps}`, number: true },
      { title: "loss", of: (trial) => fixed(trial.loss, 4), number: true },
      { title: "left", of: (trial) => duration(trial.left_seconds), number: true, wide: true },
    ], running))],
    el("h2", null, "Latest"), happened(told(state.events).slice(-8)),
  ];
}

const TITLES = { "loss-vs-params": "Loss against parameters", "loss-vs-compute": "Loss against compute", "accuracy-vs-pretraining": "Accuracy against pre-training", valleys: "The best size of each budget", residuals: "Residuals", curves: "Held-out curves" };

export function laws(state) {
  if (!state.laws) return el("p", { class: "muted" }, "Fitting what is done.");
  const { laws: found, cautions, missing } = state.laws;
  return [
    missing > 0 && el("p", { class: "note" }, `${missing} trials are still to come: laws and figures change as they end.`),
    found.map((law, at) => [el("h2", null, ["Parameters", "Compute"][at]), el("p", { class: "law mono" }, law)]),
    cautions.map((caution) => el("p", { class: "muted" }, caution)),
    [...state.figures].map(([name, drawing]) => [el("h2", null, TITLES[name] ?? name), el("figure", { class: "drawn scroll" }, drawing)]),
  ];
}

const blame = (title, { member, trouble }) => [el("dt", null, title), el("dd", null, `rank ${member.rank}, worker ${member.worker} on ${member.host}, pid ${member.pid}: ${why(trouble)}`)];

function why(trouble) {
  if (trouble.kind === "lost") return "lost, its process or host is gone";
  if (trouble.kind === "stuck") return `${trouble.seconds} s of ${trouble.stage} without an answer`;
  return `failed in ${trouble.failure.phase}: ${trouble.failure.message}`;
}

export function cause(found) {
  if (found.kind === "ranks") return el("dl", null, blame("first cause", found.first), found.collateral.map((other) => blame("affected", other)));
  const text = { stalled: () => `no progress in ${found.seconds} s of ${found.stage}`, start: () => `it starts from ${found.trial}, which was abandoned`, store: () => `its result could not be stored: ${found.message}` }[found.kind];
  return el("dl", null, el("dt", null, "first cause"), el("dd", null, text ? text() : JSON.stringify(found)));
}

const OUTCOMES = { done: "done since", open: "not done yet", abandoned: "abandoned" };

export function failures(state, retry) {
  if (!state.incidents) return el("p", { class: "muted" }, "Reading the journal.");
  const { incidents, not_stored: lost, unreadable } = state.incidents;
  const phases = new Map(state.status.trials.map((trial) => [trial.trial, trial.phase]));
  const shown = [...incidents].reverse().map((incident) => el("article", { class: `incident ${incident.outcome}` },
    el("h3", null, link(incident.trial), incident.generation && ` generation ${incident.generation.epoch}.${incident.generation.number}`, ` – ${OUTCOMES[incident.outcome]}`),
    el("p", { class: "muted" }, incident.time),
    cause(incident.cause),
    incident.log_tail && el("details", null, el("summary", null, "the end of its log"), el("pre", null, incident.log_tail)),
    incident.outcome === "abandoned" && phases.get(incident.trial) === "abandoned" && retry(incident.trial)));
  return [
    incidents.length === 0 && el("p", { class: "muted" }, "Nothing went wrong."),
    lost.map((sentence) => el("p", { class: "note" }, sentence)),
    unreadable.map((line) => el("p", { class: "note" }, `${line} of the journal can't be read and is passed over`)),
    shown,
  ];
}

export function checkpoints(state) {
  const saved = state.status.trials.filter((trial) => trial.saved > 0);
  if (!saved.length) return el("p", { class: "muted" }, "No checkpoint is committed yet.");
  return [el("p", { class: "muted" }, "The newest of each trial; a trial's page lists all of its own."), table([
    { title: "trial", of: (trial) => link(trial.trial), name: true },
    { title: "saved", of: (trial) => `${trial.saved}/${trial.steps}`, number: true },
    { title: "state", of: (trial) => phase(trial.phase) },
    { title: "digest", of: (trial) => el("code", null, trial.digest?.slice(0, 12)), wide: true },
    { title: "folder", of: (trial) => el("code", null, trial.folder), wide: true },
  ], saved)];
}

const devices = ({ devices: found = [], memory_bytes: memory }) => [...found.map(({ kind, count: many, gpu = {} }) => `${many} × ${kind}${gpu.power_watts ? `, ${gpu.power_watts} W` : ""}${gpu.utilization_percent !== undefined ? `, ${gpu.utilization_percent} % busy` : ""}`), memory && `memory ${bytes(memory)}`].filter(Boolean).join("; ");

export function pool(state) {
  const { pool: now, store, leadership } = state.status;
  const about = el("dl", null,
    el("dt", null, "store"), el("dd", null, store.paused ? "it doesn't answer; what trains goes on, and nothing new begins until it does" : store.trouble ?? "sound"),
    el("dt", null, "on their way to it"), el("dd", null, String(store.unsaved)),
    now && [el("dt", null, "start-up"), el("dd", null, now.warmth)]);
  if (!now) return [about, el("p", { class: "muted" }, leadership.by === "elsewhere" ? "The workers are those of another coordinator, which shows them on its own page." : "No coordinator is at work, so there are no workers.")];
  return [about, table([
    { title: "worker", of: (worker) => String(worker.worker), number: true },
    { title: "host", of: (worker) => worker.host, name: true },
    { title: "pid", of: (worker) => String(worker.pid), number: true, wide: true },
    { title: "trains", of: (worker) => (worker.trial ? link(worker.trial) : worker.leaving ? "leaving" : "nothing") },
    { title: "with", of: (worker) => devices(worker.machine), wide: true },
  ], now.workers, { id: "workers" })];
}

const BAD = new Set(["rank_failed", "retried", "abandoned", "not_stored", "spawn_failed", "retired", "paused"]);

const lines = ({ lines: told, entry }) => (told.length || entry.event?.event !== "saved" ? told : [`${entry.trial} saved a checkpoint at step ${entry.event.step}`]);

/** Entries that say something. */
export const told = (events) => events.filter((event) => lines(event).length);

export function happened(events) {
  return el("ol", { class: "events" }, [...events].reverse().map((event) => el("li", null, el("time", null, event.time), el("div", { class: BAD.has(event.entry.entry) ? "bad" : null }, lines(event).map((line) => el("div", null, line))))));
}

export function journal(state, wanted) {
  const all = told(state.events);
  const found = wanted ? all.filter((event) => lines(event).some((line) => line.toLowerCase().includes(wanted.toLowerCase()))) : all;
  return [
    el("p", { class: "muted" }, `${found.length} entries, the newest first`, state.earlier > 0 && `; ${state.earlier} earlier ones: `, state.earlier > 0 && el("code", null, `coordinator replay ${state.status.url}`)),
    happened(found.slice(-400)),
  ];
}
