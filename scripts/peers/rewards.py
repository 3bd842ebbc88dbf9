"""Rewards by transformers, as a user would take them: the peer of `bench serve`.

Loads an exported model in f32, and scores groups of whole sequences, a padded batch for each group. Prints one line
of JSON: {"seconds": [...], "rewards": [[...], ...]}, a time and a list for each group.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="folder of the export")
    parser.add_argument("groups", help="JSON Lines, a list of whole sequences each")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForSequenceClassification.from_pretrained(args.model, dtype=torch.float32).eval()
    seconds, rewards = [], []
    groups = [json.loads(line) for line in Path(args.groups).read_text().splitlines()]
    with torch.inference_mode():
        for texts in groups[:2] + groups:
            began = time.perf_counter()
            batch = tokenizer(texts, return_tensors="pt", padding=True)
            logits = model(**batch).logits[:, 0]
            found = logits.tolist()
            seconds.append(time.perf_counter() - began)
            rewards.append(found)
    # The first ones warm up.
    print(json.dumps({"seconds": seconds[2:], "rewards": rewards[2:]}))


if __name__ == "__main__":
    main()
