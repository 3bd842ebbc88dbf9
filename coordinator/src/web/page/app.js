// Where one is, what is drawn, and what keys and buttons do.

import { act, follow, isDue, loadDetail, loadIncidents, loadLaws, state, useToken } from "./api.js";
import { el, show } from "./dom.js";
import * as panels from "./panels.js";
import * as trials from "./trial.js";

const SECTIONS = ["overview", "trials", "laws", "failures", "checkpoints", "pool", "events"];
const FILTERED = new Set(["trials", "events"]);

const main = document.getElementById("main");
const view = el("div", { id: "view" });
const filter = el("input", { type: "search", id: "filter", placeholder: "Filter ( / )", "aria-label": "Filter", autocomplete: "off" });
let loading = null;
let drawn = false;

/** The section, the trial and the filter that the address names: `#/trial/NAME`, `#/events?q=lost`. */
function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [section, name] = path.split("/");
  const wanted = new URLSearchParams(query).get("q") ?? "";
  if (section === "trial" && name) return { section: "trials", trial: decodeURIComponent(name), wanted };
  return { section: SECTIONS.includes(section) ? section : "overview", wanted };
}

function nodes(here, width) {
  if (here.trial) return trials.trial(state, here.trial, width, retry);
  switch (here.section) {
    case "trials": return trials.list(state, here.wanted);
    case "laws": return panels.laws(state);
    case "failures": return panels.failures(state, retry);
    case "checkpoints": return panels.checkpoints(state);
    case "pool": return panels.pool(state);
    case "events": return panels.journal(state, here.wanted);
    default: return panels.overview(state, width);
  }
}

/** What a section needs beyond what the stream brings. */
function missing(here) {
  if (here.trial) return state.status.trials.some((one) => one.trial === here.trial) && isDue(`trial ${here.trial}`, state.details.has(here.trial)) && (() => loadDetail(here.trial));
  if (here.section === "laws") return isDue("laws", state.laws) && loadLaws;
  return here.section === "failures" && isDue("incidents", state.incidents) && loadIncidents;
}

async function load(here) {
  const wanted = missing(here);
  if (!wanted || loading) return;
  loading = wanted();
  try {
    await loading;
    document.getElementById("trouble")?.remove();
  } catch (error) {
    document.getElementById("trouble")?.remove();
    main.prepend(el("p", { class: "note", id: "trouble" }, error.message));
    await new Promise((resume) => setTimeout(resume, 5000));
  }
  loading = null;
  draw();
}

function head(here) {
  const { status } = state;
  document.title = `${status.trials.filter((trial) => trial.phase === "done").length}/${status.trials.length} ${status.run}`;
  document.getElementById("run").textContent = status.run;
  const { leadership } = status;
  const leader = { here: `led by this coordinator${leadership.epoch ? ` (epoch ${leadership.epoch})` : ""}`, elsewhere: `led by ${leadership.leader}`, nobody: "no coordinator leads it" }[leadership.by];
  document.getElementById("leader").textContent = `${leader}; corpus ${status.corpus.slice(0, 16)}; Polestar ${status.version}`;
  const badge = document.getElementById("link");
  const words = { live: leadership.by === "here" ? (leadership.ending ? "ending" : "live") : leadership.by === "elsewhere" ? "watching" : "at rest", lost: "connection lost", ended: "ended", connecting: "connecting" };
  badge.textContent = words[state.link];
  badge.className = `badge ${state.link === "live" ? "live" : state.link === "lost" ? "lost" : ""}`;
  show(document.getElementById("actions"), leadership.by === "here" && state.link === "live" && [
    el("button", { type: "button", id: "drain", key: "drain", disabled: leadership.ending, onclick: drain }, "Save and stop"),
    el("button", { type: "button", id: "stop", key: "stop", class: "danger", onclick: stop }, "Stop now"),
  ]);
  const failed = status.trials.filter((trial) => trial.phase === "abandoned").length;
  show(document.getElementById("nav"), SECTIONS.map((section, at) => el("a", { href: `#/${section}`, key: `nav-${section}`, "aria-current": section === here.section && "page", title: `key ${at + 1}` },
    section[0].toUpperCase() + section.slice(1), section === "failures" && failed > 0 && el("span", { class: "count" }, ` ${failed}`))));
}

function draw() {
  drawn = false;
  if (!state.status) return;
  const here = place();
  head(here);
  if (view.parentNode !== main) show(main, filter, view);
  filter.hidden = !FILTERED.has(here.section) || Boolean(here.trial);
  if (document.activeElement !== filter) filter.value = here.wanted;
  show(view, nodes(here, Math.max(300, view.clientWidth)));
  load(here);
}

// Whoever presses a button releases it on the same one: one that was drawn anew meanwhile would never be clicked.
let pressed = false;
addEventListener("pointerdown", () => { pressed = true; }, true);
for (const end of ["pointerup", "pointercancel", "blur"]) addEventListener(end, () => { pressed = false; }, true);

/** Draws soon, four times a second at most, but never under somebody who presses a button or selects text. */
function later() {
  if (drawn) return;
  drawn = true;
  const selects = () => !getSelection().isCollapsed && main.contains(getSelection().anchorNode);
  const frame = () => (pressed || selects() ? setTimeout(frame, 100) : draw());
  // A page that nobody sees is drawn when it is looked at again.
  const soon = () => setTimeout(frame, 250);
  document.hidden ? document.addEventListener("visibilitychange", soon, { once: true }) : soon();
}

const dialog = document.getElementById("dialog");

/** Asks; resolves with whether the answer was yes. */
function confirm(question, details, yes, no = "Cancel") {
  document.getElementById("question").textContent = question;
  show(document.getElementById("details"), details);
  const [confirmed, cancelled] = ["yes", "no"].map((id) => document.getElementById(id));
  confirmed.textContent = yes ?? "";
  confirmed.hidden = !yes;
  cancelled.textContent = no;
  if (dialog.open) dialog.close("no");
  dialog.returnValue = "no";
  dialog.showModal();
  dialog.querySelector("input")?.focus();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

async function ask(question, details, yes, path) {
  if (!(await confirm(question, el("p", null, details), yes))) return;
  try {
    await confirm("Done", el("p", null, await act(path)), null, "Close");
  } catch (error) {
    await confirm("Refused", el("p", null, error.message), null, "Close");
  }
}

const drain = () => ask("Save and stop?", "Whatever trains saves a checkpoint after the step that is under way, then the launch ends. The same command goes on from there.", "Save and stop", "/api/drain");
const stop = () => ask("Stop now?", "Steps since the newest checkpoints are lost and done again later. “Save and stop” loses nothing.", "Stop now", "/api/stop");
const retry = (name) => state.status.leadership.by === "here" && state.link === "live" && el("button", { type: "button", class: "retry", key: `retry-${name}`, onclick: () => ask(`Try ${name} again?`, "It begins with a new budget of failures, from its newest checkpoint. A cause that isn't mended ends it again.", "Try again", `/api/trials/${encodeURIComponent(name)}/retry`) }, "Try again");

async function needsToken() {
  const input = el("input", { type: "password", id: "token", "aria-label": "Token", autocomplete: "off" });
  if (await confirm("This page needs its token", [el("p", null, "It is what the file holds that the launch names with --web-token-file."), input], "Show the run", "Not now")) useToken(input.value);
}

const KEYS = [["1 – 7", "the sections"], ["j, k", "the next and the previous link below"], ["Enter", "open it"], ["/", "filter"], ["Esc", "back to the list, out of the filter"], ["?", "this list"]];
const help = () => confirm("Keyboard", el("dl", null, KEYS.map(([key, about]) => [el("dt", null, el("kbd", null, key)), el("dd", null, about)])), null, "Close");

function step(by) {
  const links = [...view.querySelectorAll("a, button")];
  const at = links.indexOf(document.activeElement);
  links[Math.min(links.length - 1, Math.max(0, at < 0 ? 0 : at + by))]?.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || dialog.open) return;
  if (event.target === filter) {
    if (event.key === "Escape" || event.key === "Enter") filter.blur();
    return;
  }
  const section = SECTIONS[Number(event.key) - 1];
  if (section) location.hash = `#/${section}`;
  else if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
  else if (event.key === "/" && !filter.hidden) filter.focus();
  else if (event.key === "Escape" && place().trial) location.hash = "#/trials";
  else if (event.key === "?") help();
  else return;
  event.preventDefault();
});

filter.addEventListener("input", () => {
  const { section } = place();
  history.replaceState(null, "", filter.value ? `#/${section}?q=${encodeURIComponent(filter.value)}` : `#/${section}`);
  later();
});
/** On a narrow screen the sections don't all fit. */
function showCurrent() {
  document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

document.querySelector(".skip").addEventListener("click", (event) => {
  // The address says where one is.
  event.preventDefault();
  main.focus();
});
document.getElementById("keys").addEventListener("click", help);
addEventListener("hashchange", () => {
  scrollTo(0, 0);
  draw();
  showCurrent();
});
addEventListener("resize", () => {
  later();
  showCurrent();
});
follow(later, needsToken);
