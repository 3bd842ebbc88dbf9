// The list of trials, and one trial.

import { bytes, count, duration, el, fixed, length, phase, scientific, score, setTitle, table } from "./dom.js";
import { chart, legend } from "./chart.js";
import { cause, happened, link, told } from "./panels.js";

export function list(state, wanted) {
  const found = state.status.trials.filter((trial) => !wanted || `${trial.trial} ${trial.phase}`.toLowerCase().includes(wanted.toLowerCase()));
  return [el("p", { class: "muted" }, `${found.length} of ${state.status.trials.length} trials`), table([
    { title: "trial", of: (trial) => link(trial.trial), name: true },
    { title: "state", of: (trial) => phase(trial.phase) },
    { title: "step", of: (trial) => `${trial.step}/${trial.steps}`, number: true },
    { title: "loss", of: (trial) => fixed(trial.loss, 4), number: true, wide: true },
    { title: "held out", of: (trial) => fixed(score(trial.scores)?.loss, 4), number: true },
    { title: "steps/s", of: (trial) => fixed(trial.steps_per_second, 2), number: true, wide: true },
    { title: "left", of: (trial) => (trial.phase === "done" ? null : duration(trial.left_seconds)), number: true, wide: true },
    { title: "parameters", of: (trial) => count(trial.parameters), number: true, wide: true },
  ], found, { id: "trials" })];
}

function curve(detail, width) {
  const sets = [...new Set(detail.curve.scored.flatMap((point) => Object.keys(point.scores)))];
  const picture = (y, of, ofSet) => chart({
    series: [
      { name: "training", colour: 0, points: detail.curve.points.map((point) => [point.step, of(point)]) },
      ...sets.map((set, at) => ({ name: setTitle(set), colour: at + 1, marks: true, points: detail.curve.scored.filter((point) => point.scores[set]).map((point) => [point.step, ofSet(point.scores[set]) ?? NaN]) })),
    ],
    x: "steps", y, width, height: 280,
  });
  const loss = picture("loss", (point) => point.loss, (found) => found.loss);
  const accuracy = picture("accuracy", (point) => point.accuracy ?? NaN, (found) => found.accuracy);
  const names = legend([["training", 0], ...sets.map((set, at) => [setTitle(set), at + 1])]);
  return [
    el("h2", null, "Loss"), loss ? el("figure", { id: "curve" }, loss, names) : el("p", { class: "muted" }, "No step is done yet."),
    accuracy && [el("h2", null, "Share ranked correctly"), el("figure", null, accuracy)],
  ];
}

const between = (mean, error) => (error ? ` ± ${(1.96 * error).toFixed(3)}` : "");

function scores(found) {
  if (!Object.keys(found).length) return null;
  return [el("h2", null, "Held-out scores"), table([
    { title: "set", of: ([set]) => setTitle(set), name: true },
    { title: "loss", of: ([, one]) => `${fixed(one.loss, 4)}${between(one.loss, one.loss_error)}`, number: true },
    { title: "accuracy", of: ([, one]) => one.accuracy !== null && `${fixed(one.accuracy, 3)}${between(one.accuracy, one.accuracy_error)}`, number: true },
    { title: "triplets", of: ([, one]) => String(one.triplets), number: true, wide: true },
    { title: "prompts", of: ([, one]) => one.prompts !== null && String(one.prompts), number: true, wide: true },
  ], Object.entries(found))];
}

/** One trial. `name` may be none of this run. */
export function trial(state, name, width, retry) {
  const now = state.status.trials.find((one) => one.trial === name);
  if (!now) return el("p", { class: "note" }, `This run has no trial ${name}.`);
  const detail = state.details.get(name);
  const fact = (title, value) => value !== null && value !== undefined && [el("dt", null, title), el("dd", null, value)];
  return [
    el("h2", { id: "trial" }, name, " ", phase(now.phase)),
    now.says && el("p", null, now.says),
    now.cause && [cause(now.cause), retry(name)],
    el("dl", null,
      fact("steps", `${now.step} of ${now.steps}, ${now.saved} saved`),
      fact("size", `${now.at.size}, ${count(now.parameters)} parameters, ${length(now.at)}`),
      fact("compute", `${scientific(now.flops_6nd)} FLOPs (6ND)`),
      fact("learning rate", now.at.lr && String(Number(now.at.lr.toPrecision(4)))),
      fact("seed", String(now.at.seed)),
      fact("starts from", now.after && link(now.after)),
      fact("pace", now.steps_per_second && `${fixed(now.steps_per_second, 2)} steps/s${now.phase !== "done" && now.left_seconds !== null ? `, about ${duration(now.left_seconds)} left` : ""}`),
      fact("workers", now.members.length ? now.members.join(", ") : null),
      fact("digest", now.digest && el("code", null, now.digest)),
      fact("folder", el("code", null, now.folder))),
    scores(now.scores),
    detail ? curve(detail, width) : el("p", { class: "muted" }, "Reading its curve."),
    detail?.checkpoints.length > 0 && [el("h2", null, "Checkpoints"), table([
      { title: "step", of: (one) => String(one.step), number: true },
      { title: "size", of: (one) => bytes(one.bytes), number: true },
      { title: "state", of: (one) => one.trouble ?? (one.committed ? "committed" : "not committed") },
      { title: "ranks", of: (one) => one.ranks !== null && String(one.ranks), number: true, wide: true },
      { title: "digest", of: (one) => el("code", null, one.digest?.slice(0, 12)), wide: true },
    ], detail.checkpoints, { id: "checkpoints" })],
    el("h2", null, "What happened"), happened(told(state.events).filter((event) => event.entry.trial === name).slice(-30)),
  ];
}
