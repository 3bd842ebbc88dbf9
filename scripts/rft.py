#!/usr/bin/env python3
"""Improves a small policy with TRL's GRPO and rewards of `coordinator serve`, and measures how near its answers come to
those of the policy whose answers are the references. scripts/rft calls it; by hand, beside a server that runs:

    python scripts/rft.py --corpus data/mine --server http://127.0.0.1:30000 --target POLICY --output runs/rft

The policy is a Llama of a few ten thousand parameters that first learns the corpus' answers, whoever gave them, on the
prompts that the reward model was trained on. The corpus has to lie in a folder.
"""

import argparse
import collections
import csv
import json
import math
import os
import random
import sys
import time
import urllib.error
import urllib.request
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # Nothing is downloaded, nothing is asked for.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pyarrow.parquet
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback, TrainerCallback
from transformers.utils import logging
from trl import GRPOConfig, GRPOTrainer

# Tokens of a prompt (its end is kept) and of an answer (its beginning).
MAX_PROMPT = 64
# Candidates to one prompt, whose mean reward is what each is compared with.
GROUP = 8


def main():
    arguments = parse()
    # What trl and transformers say to each other.
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.disable_progress_bar()
    # Models this small gain nothing of more threads, and the server wants cores, too.
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
    began = time.time()
    corpus = Corpus(arguments.corpus, arguments.target)
    reward = reward_function(arguments.server)
    arguments.output.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer_of(corpus)
    longest = max(len(ids) for ids in tokenizer([answer for *_, answer in corpus.learned])["input_ids"])
    longest = min(longest, arguments.max_answer) + 1  # The last is the end's token.
    torch.manual_seed(arguments.seed)
    policy = learn(corpus, tokenizer, longest, arguments)
    policy.save_pretrained(arguments.output / "policy")
    tokenizer.save_pretrained(arguments.output / "policy")
    study = Study(corpus, tokenizer, reward, longest, arguments)
    bounds = study.bounds()
    print(f"the target's own answers: {told(bounds['target'])}", flush=True)
    print(f"the other policies', on average: {told(bounds['others'])}", flush=True)
    began_training = time.time()
    trainer = reinforce(tokenizer, reward, longest, study, arguments)
    trainer.save_model(str(arguments.output / "improved"))
    seconds = {"all": round(time.time() - began), "reinforcement": round(time.time() - began_training)}
    write(study, bounds, seconds)
    first, last = study.rows[0], study.rows[-1]
    print(f"reward {first['reward']:+.3f} to {last['reward']:+.3f}; distance to {corpus.target} {first['distance']:.3f} to "
          f"{last['distance']:.3f}, to the others {first['others']:.3f} to {last['others']:.3f}; {seconds['all']} s")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the corpus that the reward model was trained on")
    parser.add_argument("--server", required=True, help="where `coordinator serve` listens, as http://ADDRESS:PORT")
    parser.add_argument("--target", help="policy whose answers are the references; the first if not said")
    parser.add_argument("--output", type=Path, required=True, help="folder for the curve, the figure and both policies")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=150, help="steps of GRPO")
    parser.add_argument("--every", type=int, default=15, help="steps between two measurements")
    parser.add_argument("--prompts-per-step", type=int, default=8, help=f"with {GROUP} candidates each")
    parser.add_argument("--lr", type=float, default=5e-4, help="learning rate of GRPO")
    parser.add_argument("--beta", type=float, default=1.0, help="weight of the divergence from the policy that GRPO began with")
    parser.add_argument("--learn-steps", type=int, default=800, help="steps in which the policy first learns the corpus")
    parser.add_argument("--max-answer", type=int, default=48, help="tokens of an answer at most")
    parser.add_argument("--measured", type=int, default=100, help="held-out prompts to measure on")
    parser.add_argument("--samples", type=int, default=8, help="answers to each of them")
    parser.add_argument("--quick", action="store_true", help="few steps: whether all parts fit")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.steps, arguments.every, arguments.learn_steps = 10, 5, 150
        arguments.measured, arguments.samples = 30, 4
    return arguments


def fail(sentence):
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(1)


class Corpus:
    """A corpus in a folder: texts of prompts, who answered them and what."""

    def __init__(self, folder, target):
        record = folder / "corpus.json"
        if not record.exists():
            fail(f"{record} is missing: --corpus is the folder that `coordinator corpus synth` or `import` wrote")
        self.folder = folder
        policies = json.loads(record.read_text())["policies"]
        self.names = [policy["name"] for policy in policies]
        self.unseen = {policy["name"] for policy in policies if policy["held_out"]}
        self.target = target or self.names[0]
        if self.target not in self.names:
            fail(f"{self.target} is no policy of {folder}: --target is one of {', '.join(self.names)}")
        self.train = self.read("train")
        self.heldout = self.read("heldout")
        # What the policy learns is what the reward model was trained on: no answer of a policy that it never saw.
        self.learned = [(prompt, name, answer) for prompt, answers in self.train.items()
                        for name in sorted(answers) if name not in self.unseen for answer in answers[name]]

    def read(self, split):
        """{prompt: {policy: [answer]}}, in the files' order."""
        found = {}
        for file in sorted(self.folder.glob(f"{split}-*.parquet")):
            for row in pyarrow.parquet.read_table(file, columns=["prompt", "policy", "response"]).to_pylist():
                prompt = "\n".join(message["content"] for message in row["prompt"])
                found.setdefault(prompt, {}).setdefault(row["policy"], []).append(row["response"])
        if not found:
            fail(f"{self.folder} has no {split}-*.parquet: import with held-out prompts")
        return found

    def references(self):
        """Prompts to train on, each with every answer of the target as its reference."""
        return [{"prompt": prompt, "reference": reference} for prompt, answers in self.train.items()
                for reference in answers.get(self.target, [])]


def tokenizer_of(corpus):
    """The corpus' tokenizer, with tokens for the end and for filling up, which reward models have no use for."""
    return PreTrainedTokenizerFast(
        tokenizer_file=str(corpus.folder / "tokenizer.json"), eos_token="<|end|>", pad_token="<|pad|>",
        padding_side="left", truncation_side="left")


def learn(corpus, tokenizer, longest, arguments):
    """A policy that answers like all policies of the corpus mixed: next-token prediction on their answers."""
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=176, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=MAX_PROMPT + longest, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id))
    prompts = tokenizer([prompt for prompt, *_ in corpus.learned])["input_ids"]
    answers = tokenizer([answer for *_, answer in corpus.learned])["input_ids"]
    # An answer that is cut has no end.
    rows = [(prompt[-MAX_PROMPT:], (answer + [tokenizer.eos_token_id])[:longest]) for prompt, answer in zip(prompts, answers)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=arguments.learn_steps, pct_start=0.05)
    draw = random.Random(arguments.seed)
    losses = collections.deque(maxlen=50)
    model.train()
    for _ in range(arguments.learn_steps):
        optimizer.zero_grad()
        loss = model(**batch_of(draw.sample(rows, min(64, len(rows))), tokenizer.pad_token_id)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"a policy of {count} parameters learned {len(rows)} answers of {len(corpus.names) - len(corpus.unseen)} policies in "
          f"{arguments.learn_steps} steps: {sum(losses) / len(losses):.3f} nats per token", flush=True)
    return model.eval()


def batch_of(rows, pad):
    """Prompt and answer in a row, filled up on the right; the loss is the answer's."""
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    blank = [width - len(prompt) - len(answer) for prompt, answer in rows]
    return {
        "input_ids": torch.tensor([p + a + [pad] * more for (p, a), more in zip(rows, blank)]),
        "attention_mask": torch.tensor([[1] * (width - more) + [0] * more for more in blank]),
        "labels": torch.tensor([[-100] * len(p) + a + [-100] * more for (p, a), more in zip(rows, blank)]),
    }


def reward_function(server):
    """What TRL asks for rewards: candidates to one prompt and reference are one group of a request to /score."""

    def reward(prompts, completions, reference, **_):
        groups = []
        for prompt, completion, wanted in zip(prompts, completions, reference):
            if not groups or (groups[-1]["prompt"], groups[-1]["reference"]) != (prompt, wanted):
                groups.append({"prompt": prompt, "reference": wanted, "candidates": []})
            groups[-1]["candidates"].append(completion)
        asked = urllib.request.Request(
            f"{server}/score", json.dumps(groups).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(asked, timeout=120) as answer:
                return [reward for group in json.load(answer) for reward in group["rewards"]]
        except urllib.error.HTTPError as error:
            fail(f"{server} refused to score: {json.load(error)['error']['message']}")
        except urllib.error.URLError as error:
            fail(f"{server} doesn't answer ({error.reason}): --server is where `coordinator serve` listens")

    return reward


def reinforce(tokenizer, reward, longest, study, arguments):
    settings = GRPOConfig(
        output_dir=str(arguments.output / "trainer"), seed=arguments.seed, use_cpu=True, bf16=False,
        per_device_train_batch_size=GROUP * arguments.prompts_per_step, num_generations=GROUP,
        max_completion_length=longest, temperature=1.0, max_steps=arguments.steps, learning_rate=arguments.lr,
        lr_scheduler_type="constant", beta=arguments.beta,
        # The reward is a log-ratio of likelihoods, whose scale means something beside the divergence: it isn't divided
        # by each group's deviation.
        scale_rewards="none", loss_type="dr_grpo",
        gradient_checkpointing=False, dataloader_pin_memory=False, save_strategy="no", logging_steps=1,
        report_to="none", disable_tqdm=True)
    # By its folder: TRL reads the weights once more, as those that the divergence is measured from.
    trainer = GRPOTrainer(
        model=str(arguments.output / "policy"), reward_funcs=reward, args=settings, processing_class=tokenizer,
        train_dataset=Dataset.from_list(study.corpus.references()), callbacks=[study])
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer


class Study(TrainerCallback):
    """Measures the policy on held-out prompts as it is trained."""

    def __init__(self, corpus, tokenizer, reward, longest, arguments):
        self.corpus, self.tokenizer, self.reward, self.longest = corpus, tokenizer, reward, longest
        self.arguments = arguments
        asked = [prompt for prompt, answers in corpus.heldout.items() if len(answers.get(corpus.target, [])) > 1]
        self.prompts = asked[:arguments.measured]
        if not self.prompts:
            fail(f"{corpus.target} has no held-out prompt with two answers: choose another --target")
        # The reference of a prompt is the target's first answer; its others are what it would be scored with itself.
        self.references = [corpus.heldout[prompt][corpus.target][0] for prompt in self.prompts]
        answered = {name: [answer for prompt in self.prompts for answer in corpus.heldout[prompt].get(name, [])]
                    for name in corpus.names}
        self.real = {name: frequencies(answers) for name, answers in answered.items() if answers}
        self.rows = []
        self.divergence = 0.0

    def bounds(self):
        """What real answers come to: the target's to the same prompts (reward) and as many of its answers to other
        prompts (distance, which isn't zero between two samples); and those of the other policies."""
        corpus = self.corpus
        own = self.scored({prompt: corpus.heldout[prompt][corpus.target][1:] for prompt in self.prompts})
        others = [name for name in self.real if name != corpus.target]
        strange = [self.scored({prompt: corpus.heldout[prompt].get(name, []) for prompt in self.prompts})["reward"]
                   for name in others]
        fresh = [reference["reference"] for reference in corpus.references()]
        fresh = fresh[:len(self.prompts) * self.arguments.samples]
        apart = [distance(self.real[name], self.real[corpus.target]) for name in others]
        return {
            "target": {"reward": own["reward"], "distance": distance(frequencies(fresh), self.real[corpus.target])},
            "others": {"reward": mean(strange), "distance": mean(apart)},
            "apart": dict(zip(others, apart)),
        }

    def scored(self, answers):
        """Mean reward and its standard error, by prompt."""
        prompts, references, candidates = [], [], []
        for prompt, reference in zip(self.prompts, self.references):
            for answer in answers[prompt]:
                prompts.append(prompt)
                references.append(reference)
                candidates.append(answer)
        by_prompt = collections.defaultdict(list)
        for prompt, reward in zip(prompts, self.reward(prompts, candidates, references)):
            by_prompt[prompt].append(reward)
        means = [mean(rewards) for rewards in by_prompt.values()]
        spread = math.sqrt(sum((value - mean(means)) ** 2 for value in means) / max(1, len(means) - 1))
        return {"reward": mean(means), "error": spread / math.sqrt(len(means))}

    def measure(self, model, step):
        answers = self.answers(model)
        row = {"step": step, **self.scored(answers), "divergence": self.divergence}
        given = [answer for all_of in answers.values() for answer in all_of]
        row["words"] = mean([len(answer.split()) for answer in given])
        seen = frequencies(given)
        row["distances"] = {name: distance(seen, real) for name, real in self.real.items()}
        row["distance"] = row["distances"][self.corpus.target]
        row["others"] = mean([apart for name, apart in row["distances"].items() if name != self.corpus.target])
        self.rows.append(row)
        nearest = min(row["distances"], key=row["distances"].get)
        print(f"step {step:4}: {told(row)}, to the others {row['others']:.3f}, nearest {nearest}, "
              f"{row['words']:.1f} words, divergence {row['divergence']:.3f} a token", flush=True)

    def answers(self, model):
        """{prompt: [answer]}: always the same draws, so that two steps differ by their weights alone."""
        was_training = model.training
        model.eval()
        found = {}
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(self.arguments.seed)
            for start in range(0, len(self.prompts), 50):
                asked = self.prompts[start:start + 50]
                inputs = self.tokenizer(asked, return_tensors="pt", padding=True, truncation=True, max_length=MAX_PROMPT,
                                        return_token_type_ids=False)
                made = model.generate(
                    **inputs, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=self.longest,
                    num_return_sequences=self.arguments.samples, pad_token_id=self.tokenizer.pad_token_id)
                texts = self.tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)
                for at, prompt in enumerate(asked):
                    found[prompt] = texts[at * self.arguments.samples:(at + 1) * self.arguments.samples]
        model.train(was_training)
        return found

    def on_train_begin(self, args, state, control, model=None, **_):
        self.measure(model, 0)

    def on_log(self, args, state, control, logs=None, **_):
        self.divergence = (logs or {}).get("kl", self.divergence)

    def on_step_end(self, args, state, control, model=None, **_):
        if state.global_step % self.arguments.every == 0:
            self.measure(model, state.global_step)


def frequencies(answers):
    """How often each word is said, in all answers together."""
    counts = collections.Counter(word for answer in answers for word in answer.split())
    total = sum(counts.values())
    return {word: count / total for word, count in counts.items()}


def distance(one, other):
    """Total variation, 0 to 1: the share of words that would have to change. The reward model has no part in it."""
    return sum(abs(one.get(word, 0.0) - other.get(word, 0.0)) for word in {**one, **other}) / 2


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def told(row):
    return f"reward {row['reward']:+.3f}, distance to the target {row['distance']:.3f}"


def write(study, bounds, seconds):
    """curve.csv, result.json and curve.svg."""
    arguments, corpus, rows = study.arguments, study.corpus, study.rows
    keys = ["step", "reward", "error", "distance", "others", "divergence", "words"]
    with (arguments.output / "curve.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*keys, *study.real])
        for row in rows:
            table.writerow([f"{value:.5g}" for value in [*(row[key] for key in keys), *row["distances"].values()]])
    settings = {key: value for key, value in vars(arguments).items() if key not in ("corpus", "server", "output")}
    result = {"target": corpus.target, "unseen": sorted(corpus.unseen), "settings": settings, "bounds": bounds,
              "first": rows[0], "last": rows[-1], "seconds": seconds}
    (arguments.output / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    draw(arguments.output / "curve.svg", corpus.target, rows, bounds)


def draw(path, target, rows, bounds):
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "rft", "font.family": "sans-serif", "font.size": 11,
                         "axes.spines.top": False, "axes.spines.right": False})
    ink, strong, pale = "#1B1F24", "#0B62C4", "#B4BCC6"
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    steps = [row["step"] for row in rows]
    rewards = [row["reward"] for row in rows]
    left.fill_between(steps, [row["reward"] - 1.96 * row["error"] for row in rows],
                      [row["reward"] + 1.96 * row["error"] for row in rows], color=strong, alpha=0.15, linewidth=0)
    left.plot(steps, rewards, color=strong, linewidth=2)
    left.axhline(bounds["target"]["reward"], color=ink, linestyle="--", linewidth=1)
    left.axhline(bounds["others"]["reward"], color=pale, linestyle="--", linewidth=1)
    left.annotate("the target's own answers", (steps[-1], bounds["target"]["reward"]), (0, 4),
                  textcoords="offset points", ha="right", color=ink)
    left.annotate("the other policies'", (steps[-1], bounds["others"]["reward"]), (0, 4),
                  textcoords="offset points", ha="right", color="#5B6470")
    left.set(title="Reward on held-out prompts", xlabel="step of GRPO", ylabel="mean reward")
    for name in rows[0]["distances"]:
        if name != target:
            right.plot(steps, [row["distances"][name] for row in rows], color=pale, linewidth=1)
    right.plot([], [], color=pale, linewidth=1, label="to each other policy")
    right.plot(steps, [row["distance"] for row in rows], color=strong, linewidth=2, label=f"to the target, {target}")
    right.axhline(bounds["target"]["distance"], color=ink, linestyle="--", linewidth=1, label="two samples of the target")
    right.set(title="Distance between the words of answers", xlabel="step of GRPO", ylabel="total variation")
    right.set_ylim(0, 1.4 * max(max(row["distances"].values()) for row in rows))
    right.legend(frameon=False, loc="upper left")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
