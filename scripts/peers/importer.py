"""Hugging Face datasets and tokenizers on the rows of a JSONL file: read, sorted by prompt, written as
Parquet, with a byte-level BPE trained on a sample of the texts and with a given one; and the tokenization
of all texts on all cores. One line of JSON."""

import json
import os
import random
import shutil
import sys
import time

os.environ["HF_DATASETS_OFFLINE"] = "1"

import datasets
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SAMPLE_BYTES = 32 << 20


def imported(rows, folder):
    """Reads, sorts and writes; the rows."""
    shutil.rmtree(folder, ignore_errors=True)
    data = datasets.load_dataset("json", data_files=rows, split="train", cache_dir=f"{folder}/cache")
    data = data.sort("prompt")
    data.to_parquet(f"{folder}/train.parquet")
    return data


def sampled(data, draw):
    """As many of the texts as the sample has room for: every prompt once, every answer."""
    texts = [*dict.fromkeys(data["prompt"]), *data["response"]]
    share = SAMPLE_BYTES / sum(len(text.encode()) for text in texts)
    return [text for text in texts if draw.random() < share]


def trained(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8192,
        min_frequency=2,
        show_progress=False,
        special_tokens=["<s>", "<|reward|>", "[UNUSED_TOKEN_130]"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def main(rows, folder):
    datasets.disable_progress_bars()
    begun = time.perf_counter()
    data = imported(rows, f"{folder}/given")
    plain = time.perf_counter() - begun
    begun = time.perf_counter()
    data = imported(rows, f"{folder}/trained")
    tokenizer = trained(sampled(data, random.Random(0)))
    training = time.perf_counter() - begun

    texts = [*data["prompt"], *data["response"]]
    begun = time.perf_counter()
    tokens = 0
    for at in range(0, len(texts), 4096):
        batch = tokenizer.encode_batch_fast(texts[at:at + 4096], add_special_tokens=False)
        tokens += sum(len(encoding) for encoding in batch)
    seconds = time.perf_counter() - begun
    found = dict(trained=len(data) / training, given=len(data) / plain, tokens=tokens / seconds, count=tokens)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
