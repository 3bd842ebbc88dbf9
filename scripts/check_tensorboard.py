#!/usr/bin/env python3
"""Compares the event files of a folder of metrics with its tables. Called by scripts/check-tensorboard."""

import argparse
import csv
import importlib.util
import json
import struct
import sys
import tempfile
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import SCALARS, TENSORS, EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

# Columns of the table that are scalars of an event file, by their tags; columns of held-out sets have theirs by rule.
TAGS = {
    "loss": "train/loss", "accuracy": "train/accuracy", "margin": "train/margin", "lr": "train/lr",
    "grad_norm": "train/grad_norm", "triplets": "progress/triplets", "plain_tokens": "progress/tokens",
    "flops_6nd": "progress/flops_6nd", "seconds": "progress/seconds",
}
ENDS = ["loss", "accuracy", "triplets", "prompts", "loss_error", "accuracy_error", "margin", "reward_mean",
        "reward_deviation", "reward_min", "reward_max"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    trials = sorted(path.parent for path in folder.glob("*/metrics.csv"))
    faults = [] if trials else [f"{folder} has no trial with a metrics.csv"]
    scalars = {trial.name: table_scalars(trial) for trial in trials}
    for trial in trials:
        faults += check_events(trial, scalars[trial.name])
        faults += check_hparams(trial)
    if importlib.util.find_spec("trackio"):
        faults += check_trackio(folder, scalars)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    sys.exit(1 if faults else 0)


def tag_of(column):
    if column in TAGS:
        return TAGS[column]
    # The longest end: a set's `_reward_mean` also ends with nothing else of ours, its `_loss_error` does not.
    end = max((end for end in ENDS if column.endswith("_" + end)), key=len, default=None)
    return end and f"{column[:-len(end) - 1]}/{end}"


def as_float32(text):
    return struct.unpack("f", struct.pack("f", float(text)))[0]


def table_scalars(trial):
    """{tag: [(step, value), …]} by a trial's table; values as event files have them, in 32 bits."""
    found = {}
    with (trial / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            step = int(row["step"])
            for column, text in row.items():
                if column != "step" and text:
                    found.setdefault(tag_of(column), []).append((step, as_float32(text)))
    return found


def check_events(trial, expected):
    events = EventAccumulator(str(trial), size_guidance={SCALARS: 0, TENSORS: 0})
    events.Reload()
    read = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    faults = [f"{trial.name}: {tag} has {len(read.get(tag, []))} points, the table {len(points)}, or they differ"
              for tag, points in expected.items() if read.get(tag) != points]
    for tag in read:
        steps = [step for step, _ in read[tag]]
        if steps != sorted(set(steps)):
            faults.append(f"{trial.name}: {tag} has steps twice or out of order")
    print(f"{trial.name}: tensorboard reads {len(read)} scalars, {sum(map(len, read.values()))} points")
    return faults


def check_hparams(trial):
    events = EventAccumulator(str(trial), size_guidance={SCALARS: 1, TENSORS: 0})
    events.Reload()
    tag = "_hparams_/session_start_info"
    try:
        content = events.SummaryMetadata(tag).plugin_data.content
    except KeyError:
        return [f"{trial.name}: no {tag}"]
    session = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    read = {name: getattr(value, value.WhichOneof("kind")) for name, value in session.hparams.items()}
    wanted = json.loads((trial / "hparams.json").read_text())
    return [] if read == wanted else [f"{trial.name}: hparams are {read}, not {wanted}"]


def check_trackio(folder, expected):
    """trackio keeps runs in a database of its own, whose place it takes from the environment when it is imported."""
    import os
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(TRACKIO_DIR=home, HF_HUB_OFFLINE="1")
        import trackio
        from trackio.sqlite_storage import SQLiteStorage
        trackio.import_tf_events(str(folder), project="check")
        faults = []
        for trial, tags in expected.items():
            logs = SQLiteStorage.get_logs("check", trial)
            read = {}
            for log in logs:
                for tag in tags:
                    if tag in log:
                        read.setdefault(tag, []).append((log["step"], log[tag]))
            faults += [f"{trial}: trackio has other points of {tag}"
                       for tag, points in tags.items() if read.get(tag) != points]
        print(f"trackio imports {len(expected)} runs")
        return faults


if __name__ == "__main__":
    main()
