// What is known of the run, kept true by the server's stream.

const token = { key: "polestar-token", get: () => sessionStorage.getItem(token.key), set: (value) => sessionStorage.setItem(token.key, value) };

/** The picture of the run. */
export const state = { status: null, events: [], earlier: 0, curves: new Map(), incidents: null, laws: null, figures: new Map(), details: new Map(), old: new Set(), link: "connecting" };

const MOST_EVENTS = 5000;
const MOST_POINTS = 2000;

export class NeedsToken extends Error {}

export function useToken(value) {
  token.set(value.trim());
}

/** Asks the server. Throws its sentence where it refuses. */
async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (token.get()) headers.authorization = `Bearer ${token.get()}`;
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401) throw new NeedsToken();
  if (!response.ok) {
    const refused = await response.json().catch(() => ({ error: `${path}: status ${response.status}` }));
    throw new Error(refused.error);
  }
  return response;
}

const json = async (path) => (await ask(path)).json();

/** Has the run stop, drain or retry; returns what happens now. */
export async function act(path) {
  const csrf = document.querySelector('meta[name="csrf"]').content;
  const response = await ask(path, { method: "POST", headers: { "x-polestar-csrf": csrf } });
  return (await response.json()).says;
}

// What was read may be old by now; it is shown until it is read again.
const REST = 3000;
const readAt = new Map();

/** Whether something has to be read: it isn't there, or it is old and wasn't read just now. */
export const isDue = (what, has) => !has || (state.old.has(what) && Date.now() - (readAt.get(what) ?? 0) > REST);

function begin(what) {
  state.old.delete(what);
  readAt.set(what, Date.now());
}

export async function loadDetail(trial) {
  begin(`trial ${trial}`);
  state.details.set(trial, await json(`/api/trials/${encodeURIComponent(trial)}`));
}

export async function loadIncidents() {
  begin("incidents");
  state.incidents = await json("/api/incidents");
}

/** The laws and their figures, as SVG documents. */
export async function loadLaws() {
  begin("laws");
  const laws = await json("/api/laws");
  const figures = new Map();
  for (const name of laws.figures) {
    const text = await (await ask(`/api/figures/${encodeURIComponent(name)}`)).text();
    figures.set(name, drawing(text));
  }
  state.laws = laws;
  state.figures = figures;
}

const DRAWN = new Set(["svg", "g", "rect", "circle", "ellipse", "line", "polyline", "polygon", "path", "text", "tspan", "title", "desc", "defs", "clippath"]);

/** A figure as a node: what draws, and nothing else. */
function drawing(text) {
  const root = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  for (const node of [root, ...root.querySelectorAll("*")]) {
    if (!DRAWN.has(node.localName.toLowerCase())) node.remove();
    for (const name of node.getAttributeNames()) if (/^on|href/i.test(name)) node.removeAttribute(name);
  }
  return root;
}

async function loadAll() {
  const [status, events, curves] = await Promise.all([json("/api/status"), json("/api/events"), json("/api/curves")]);
  state.status = status;
  state.events = events.entries;
  state.earlier = events.earlier;
  state.curves = new Map(curves.map((curve) => [curve.trial, curve]));
  for (const what of ["incidents", "laws", ...[...state.details.keys()].map((trial) => `trial ${trial}`)]) state.old.add(what);
}

function curve(trial) {
  if (!state.curves.has(trial)) state.curves.set(trial, { trial, points: [], scored: [] });
  return state.curves.get(trial);
}

/** New steps go to the end; a generation that resumed earlier repeats some. */
function addSteps(curve, points) {
  for (const point of points) if (!curve.points.length || point.step > curve.points.at(-1).step) curve.points.push(point);
  if (curve.points.length > MOST_POINTS) curve.points = curve.points.filter((_, at) => at % 2 === 0 || at === curve.points.length - 1);
}

const ENDS = new Set(["done", "abandoned", "retried", "reopened"]);

function take(event, data) {
  if (event === "status") state.status = data;
  if (event === "steps") {
    for (const { trial, points } of data) {
      addSteps(curve(trial), points);
      const detail = state.details.get(trial);
      if (detail) addSteps(detail.curve, points);
    }
  }
  if (event === "entry") {
    state.events.push(data);
    if (state.events.length > MOST_EVENTS) state.events.splice(0, 500);
    const entry = data.entry;
    if (ENDS.has(entry.entry)) {
      for (const what of ["incidents", "laws", `trial ${entry.trial}`]) state.old.add(what);
    }
    if (entry.event?.event === "saved") state.old.add(`trial ${entry.trial}`);
    if (entry.event?.event === "validated") curve(entry.trial).scored.push({ step: entry.event.step, scores: entry.event.scores });
  }
}

async function read(changed) {
  const response = await ask("/api/stream");
  await loadAll();
  state.link = "live";
  changed("all");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const frames = (rest + value).split("\n\n");
    rest = frames.pop();
    for (const frame of frames) {
      const [, event, data] = frame.match(/^event: (\w+)\ndata: (.*)$/) ?? [];
      if (event === "end") state.link = "ended";
      else if (event) take(event, JSON.parse(data));
      if (event) changed(event);
    }
  }
}

/** Follows the run for ever; comes back whenever the connection is lost. */
export async function follow(changed, needsToken) {
  for (let wait = 1; ; wait = Math.min(2 * wait, 15)) {
    try {
      await read(changed);
      wait = 1;
    } catch (error) {
      if (error instanceof NeedsToken) {
        state.link = "lost";
        changed("link");
        await needsToken();
        continue;
      }
    }
    if (state.link !== "ended") state.link = "lost";
    changed("link");
    await new Promise((resume) => setTimeout(resume, 1000 * wait));
  }
}
