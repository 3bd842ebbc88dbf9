#!/usr/bin/env python3
"""Trains a model with PyTorch from exported initial weights on recorded batches, and compares every step with what
Polestar recorded. Called by scripts/parity.

An independent implementation: the model is transformers' LlamaForSequenceClassification, the optimizer torch's AdamW,
each sequence stands alone in its row, and nothing is shared between the two candidates of a triplet.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from torch.nn.functional import logsigmoid
from transformers import AutoModelForSequenceClassification


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="export --step 0")
    parser.add_argument("--batches", type=Path, required=True, help="batches --json")
    parser.add_argument("--recipe", type=Path, required=True, help="the trial's recipe.json")
    parser.add_argument("--tolerance", type=float, required=True, help="largest relative difference")
    arguments = parser.parse_args()
    recipe = json.loads(arguments.recipe.read_text())
    steps = [json.loads(line) for line in arguments.batches.read_text().splitlines()]
    worst = train(arguments.weights, recipe["optimizer"], steps)
    print(f"largest relative difference in {len(steps)} steps: loss {worst['loss']:.1e}, "
          f"gradient norm {worst['grad_norm']:.1e} ({arguments.tolerance:.0e} is allowed)")
    sys.exit(0 if steps and max(worst.values()) <= arguments.tolerance else 1)


def train(weights, setting, steps):
    torch.set_num_threads(2)
    model = AutoModelForSequenceClassification.from_pretrained(weights, dtype=torch.float32)
    # transformers gives the embedding of the padding token no gradient; BOS may be that token, and is trained here.
    model.get_input_embeddings().padding_idx = None
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=setting["lr"], betas=setting["betas"], eps=setting["eps"], weight_decay=setting["weight_decay"])
    worst = {"loss": 0.0, "grad_norm": 0.0}
    for step in steps:
        optimizer.zero_grad()
        rewards = rewards_of(model, step["triplets"])
        loss = -logsigmoid(rewards[:, 0] - rewards[:, 1]).mean()
        loss.backward()
        norm = torch.linalg.vector_norm(torch.stack([p.grad.double().norm() for p in parameters])).item()
        if 0 < setting["clip"] < norm:
            for parameter in parameters:
                parameter.grad *= setting["clip"] / norm
        optimizer.param_groups[0]["lr"] = step["lr"]
        optimizer.step()
        for name, value in [("loss", loss.item()), ("grad_norm", norm)]:
            worst[name] = max(worst[name], abs(value / step[name] - 1.0))
        print(f"step {step['step']:3}: loss {step['loss']:.6f} and {loss.item():.6f}, "
              f"gradient norm {step['grad_norm']:.6f} and {norm:.6f}")
    return worst


def rewards_of(model, triplets):
    """[triplets, 2]: positive and negative, each sequence in a row of its own, filled up on the right."""
    sequences = [triplet[which] for triplet in triplets for which in ("positive", "negative")]
    longest = max(map(len, sequences))
    pad = model.config.pad_token_id
    ids = torch.tensor([ids + [pad] * (longest - len(ids)) for ids in sequences])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in sequences])
    return model(input_ids=ids, attention_mask=mask).logits[:, 0].view(-1, 2)


if __name__ == "__main__":
    main()
