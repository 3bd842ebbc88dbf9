//! The metrics that there are.

use polestar_telemetry::{Family, Kind, Unit};

const fn gauge(name: &'static str, help: &'static str, unit: Unit) -> Family {
    Family {
        name,
        help,
        kind: Kind::Gauge,
        unit,
    }
}

const fn counter(name: &'static str, help: &'static str, unit: Unit) -> Family {
    Family {
        name,
        help,
        kind: Kind::Counter,
        unit,
    }
}

/// Every metric of a coordinator.
pub const FAMILIES: &[Family] = &[
    gauge(
        "polestar.pool.workers",
        "Workers of the pool by what they do: train or idle",
        Unit::Number,
    ),
    counter("polestar.pool.joined", "Workers that joined", Unit::Number),
    counter(
        "polestar.pool.left",
        "Workers whose connection ended",
        Unit::Number,
    ),
    counter(
        "polestar.pool.retired",
        "Workers that were put out of the pool",
        Unit::Number,
    ),
    gauge(
        "polestar.run.trials",
        "Trials by how far they are: waiting, running, saving, done or abandoned",
        Unit::Number,
    ),
    gauge(
        "polestar.run.left",
        "How long all that is left takes at least",
        Unit::Seconds,
    ),
    gauge(
        "polestar.run.facts.unsaved",
        "Results and other facts on their way to the store",
        Unit::Number,
    ),
    counter(
        "polestar.run.facts.refused",
        "Times that the store did not take a fact",
        Unit::Number,
    ),
    gauge("polestar.trial.step", "Steps done", Unit::Number),
    gauge(
        "polestar.trial.planned_steps",
        "Steps of the whole trial",
        Unit::Number,
    ),
    gauge(
        "polestar.trial.workers",
        "Ranks that train it",
        Unit::Number,
    ),
    gauge(
        "polestar.trial.loss",
        "Mean loss of the newest batch",
        Unit::Number,
    ),
    gauge(
        "polestar.trial.accuracy",
        "Share of the newest batch's triplets that are ranked correctly",
        Unit::Ratio,
    ),
    gauge(
        "polestar.trial.heldout.loss",
        "Mean loss on a held-out set",
        Unit::Number,
    ),
    gauge(
        "polestar.trial.heldout.accuracy",
        "Share of a held-out set's triplets that are ranked correctly",
        Unit::Ratio,
    ),
    gauge(
        "polestar.trial.tokens_per_second",
        "Tokens a second of the plain layout, all ranks",
        Unit::Number,
    ),
    gauge(
        "polestar.trial.flops_per_second",
        "FLOPs a second, convention 6ND, all ranks",
        Unit::Number,
    ),
    gauge(
        "polestar.trial.mfu",
        "FLOPs a second of the peak of dense bf16 products, where the GPUs are known",
        Unit::Ratio,
    ),
    gauge(
        "polestar.trial.goodput",
        "Share of the trial's time that went into steps that count",
        Unit::Ratio,
    ),
    counter(
        "polestar.trial.tokens",
        "Tokens of the plain layout",
        Unit::Number,
    ),
    counter(
        "polestar.trial.flops",
        "FLOPs, convention 6ND",
        Unit::Number,
    ),
    counter(
        "polestar.trial.steps",
        "Steps, those that were done again included",
        Unit::Number,
    ),
    counter(
        "polestar.trial.step.time",
        "Seconds of steps by part, on rank 0",
        Unit::Seconds,
    ),
    counter(
        "polestar.trial.restarts",
        "Generations that ended before their trial, by what began it",
        Unit::Number,
    ),
    counter(
        "polestar.trial.checkpoints",
        "Checkpoints that were committed",
        Unit::Number,
    ),
    counter(
        "polestar.trial.checkpoint.stall",
        "Seconds that training stood still for checkpoints",
        Unit::Seconds,
    ),
    counter(
        "polestar.trial.sent",
        "Bytes that rank 0 sent to ranks of its host, and to others",
        Unit::Bytes,
    ),
    counter(
        "polestar.store.read",
        "Bytes read from object stores, by the coordinator and by ranks 0",
        Unit::Bytes,
    ),
    counter(
        "polestar.store.written",
        "Bytes written to object stores, by the coordinator and by ranks 0",
        Unit::Bytes,
    ),
    counter(
        "polestar.store.retries",
        "Requests to object stores that were made again, by the coordinator and by ranks 0",
        Unit::Number,
    ),
];
