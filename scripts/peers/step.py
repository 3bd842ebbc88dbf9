"""A training step of a reward model in PyTorch, as a user would write it: the peer of `bench_step`.

A Llama-like decoder with a scalar head on the last token, pairwise log-sigmoid loss, AdamW. Every
sequence is computed whole: with --triplet, two sequences `[BOS] P REF <split> P CAND <reward>` each.
Prints one line of JSON: {"seconds": [...], "tokens": .., "triplets": .., "parameters": ..}.
"""

import argparse
import json
import time

import torch
import torch.nn.functional as F
from torch import nn


class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, 1e-5)


class Block(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.heads = heads
        self.before, self.between = Norm(width), Norm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x, turn):
        batch, length, width = x.shape
        qkv = self.qkv(self.before(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(rotate(q, turn), rotate(k, turn), v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        gate, up = self.gate_up(self.between(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


def rotate(x, turn):
    cos, sin = turn
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class RewardModel(nn.Module):
    def __init__(self, args, length):
        super().__init__()
        self.table = nn.Embedding(args.vocab, args.width)
        heads = args.width // args.head
        self.blocks = nn.ModuleList(Block(args.width, heads, args.ffn) for _ in range(args.layers))
        self.last = Norm(args.width)
        self.reward = nn.Linear(args.width, 1, bias=False)
        pace = 10_000 ** (-torch.arange(0, args.head, 2) / args.head)
        angles = torch.arange(length)[:, None] * pace
        self.turn = (angles.cos(), angles.sin())

    def forward(self, ids):
        x = self.table(ids)
        for block in self.blocks:
            x = block(x, self.turn)
        return self.reward(self.last(x[:, -1])).squeeze(-1)


def arguments(parser=None):
    parser = parser or argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8, help="sequences, half of them chosen")
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--triplet", help="tokens of prompt, reference and candidate: P,R,C")
    parser.add_argument("--count", type=int, default=4, help="triplets in a batch, with --triplet")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--head", type=int, default=64)
    parser.add_argument("--ffn", type=int, default=688)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    return parser


def shape(args):
    """(sequences, tokens of each)"""
    if args.triplet is None:
        return args.batch, args.seq
    prompt, reference, candidate = map(int, args.triplet.split(","))
    return 2 * args.count, 3 + 2 * prompt + reference + candidate


def train(args, model, share=1):
    """Seconds of each step."""
    sequences, length = shape(args)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    seconds = []
    for _ in range(args.steps):
        ids = torch.randint(0, args.vocab, (sequences, length))
        begun = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
            rewards = model(ids)
        chosen, rejected = rewards.float().chunk(2)
        loss = -F.logsigmoid(chosen - rejected).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - begun)
    return {
        "seconds": seconds,
        "tokens": share * sequences * length,
        "triplets": share * sequences // 2,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def main():
    args = arguments().parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    model = RewardModel(args, shape(args)[1])
    if args.compile:
        model = torch.compile(model)
    print(json.dumps(train(args, model)))


if __name__ == "__main__":
    main()
