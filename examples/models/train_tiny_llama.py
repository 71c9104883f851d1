"""Train the tiny Llama of the examples from nothing: its tokenizer, then its weights.

The examples and tests need a Llama that is small enough for the repository, loads like any other,
and gets visibly better when it is fine-tuned on `examples/datasets/alpaca_1k.jsonl`. It learns the
skills of that dataset under other wordings and with wordy answers (see `pretraining/`), so what is
left for fine-tuning is the style and the new wordings. Run from the root of the repository:

    python -m examples.models.train_tiny_llama --steps 8000
    python -m examples.models.train_tiny_llama --minutes 10 --folder /tmp/tiny-llama

With --steps the run is a function of the seed (on one kind of machine); --minutes ends on time.
"""

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .pretraining.conversations import Example, draw_conversation, draw_example
from .pretraining.tokenizer import BEGIN, END, LONGEST, PAD, VOCABULARY, train_tokenizer

SEED = 20
BATCH = 64  # rows in a step
BUCKET = 16  # batches that are drawn together and sorted by length, to pad little
PEAK_RATE = 2e-3
WARM_UP = 200  # steps
TOKENIZER_ROWS = 40_000
IGNORED = -100
FOLDER = Path(__file__).resolve().parent / "tiny-llama"
CONFIG = LlamaConfig(
    vocab_size=VOCABULARY,
    hidden_size=256,
    intermediate_size=704,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=LONGEST,
    tie_word_embeddings=True,
    pad_token_id=PAD,
    bos_token_id=BEGIN,
    eos_token_id=END,
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When to stop: after a number of steps, or of minutes."""

    steps: int | None
    minutes: float | None

    def done(self, step: int, elapsed: float) -> float:
        """Return the share of the run that is behind us, from the step and the seconds so far."""
        if self.minutes is not None:
            return elapsed / (60 * self.minutes)
        return step / (self.steps or 1)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Train the tokenizer on rows of the same kind as the model will see."""
    rng = Random(SEED)
    rows = (draw_example(rng) for _ in range(TOKENIZER_ROWS))
    return train_tokenizer("".join(piece.text for piece in row.pieces) for row in rows)


def encode(tokenizer: PreTrainedTokenizerFast, row: Example) -> tuple[list[int], list[int]]:
    """Return the tokens of a row and, of the same length, its labels (`IGNORED`: not trained)."""
    tokens: list[int] = []
    labels: list[int] = []
    for text, trained in row.pieces:
        ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        tokens += ids
        labels += ids if trained else [IGNORED] * len(ids)
    return tokens, labels


def pad(rows: list[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor]:
    """Return the tokens and labels of rows as two tensors `[rows, longest]`, padded on the right.

    Attention is causal, so padding on the right needs no mask. Lengths are rounded up because a
    CPU kernel is compiled anew for each new shape.
    """
    longest = _rounded(max(len(tokens) for tokens, _ in rows), 8)
    tokens = [row + [PAD] * (longest - len(row)) for row, _ in rows]
    labels = [row + [IGNORED] * (longest - len(row)) for _, row in rows]
    return torch.tensor(tokens), torch.tensor(labels)


def _rounded(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def batches(tokenizer: PreTrainedTokenizerFast, rng: Random) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw batches without end; rows of about the same length share a batch."""
    while True:
        rows = [encode(tokenizer, draw_example(rng)) for _ in range(BATCH * BUCKET)]
        rows.sort(key=lambda row: len(row[0]))
        starts = list(range(0, len(rows), BATCH))
        rng.shuffle(starts)
        for start in starts:
            yield pad(rows[start : start + BATCH])


def trained_logits(
    model: LlamaForCausalLM, tokens: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Return logits `[trained, vocabulary]` and targets `[trained]` of the trained tokens only.

    At the end stand a few ignored ones, which round up the shape (see `pad`).
    """
    targets = torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], IGNORED)], dim=1).flatten()
    chosen = (targets != IGNORED).nonzero().flatten()
    spare = (targets == IGNORED).nonzero().flatten()
    chosen = torch.cat([chosen, spare[: _rounded(len(chosen), 128) - len(chosen)]])
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state
        return model.lm_head(hidden.flatten(0, 1)[chosen]), targets[chosen]


def rate(done: float, step: int) -> float:
    """Learning rate: linear warm-up, then a cosine down to a fiftieth of the peak."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return PEAK_RATE * min(1.0, (step + 1) / WARM_UP) * (0.02 + 0.98 * cosine)


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, limits: Limits) -> None:
    """Train in place until the limit, with a line of progress now and then."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.05, fused=True
    )
    began, seen = time.monotonic(), 0
    for step, (tokens, labels) in enumerate(batches(tokenizer, Random(SEED + 1))):
        elapsed = time.monotonic() - began
        done = limits.done(step, elapsed)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate(done, step)
        logits, targets = trained_logits(model, tokens, labels)
        loss = cross_entropy(logits.float(), targets, ignore_index=IGNORED)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seen += tokens.numel()
        if step % 100 == 0:
            print(
                f"step {step}  {done:4.0%}  loss {loss.item():.4f}  {elapsed:.0f} s"
                f"  {seen / max(elapsed, 1):.0f} tokens/s",
                flush=True,
            )
        if step % 2_000 == 1_999:
            report(model, tokenizer)


@torch.no_grad()
def report(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: int = 1_200) -> None:
    """Print the share of brief answers that greedy decoding gets right, worst families first.

    All trained tokens being the most likely ones is the same as greedy decoding being right.
    """
    rng, right = Random(SEED + 2), defaultdict[str, list[bool]](list)
    for _ in range(rows // 50):
        drawn = [draw_conversation(rng, turns=1, brief=True) for _ in range(50)]
        tokens, labels = pad([encode(tokenizer, row) for row in drawn])
        logits, targets = trained_logits(model, tokens, labels)
        hits = iter((logits.argmax(-1) == targets).tolist())
        for row, count in zip(drawn, (labels != IGNORED).sum(1).tolist(), strict=True):
            correct = [next(hits) for _ in range(count)]
            right[row.family].append(all(correct))
    shares = sorted((sum(hits) / len(hits), name) for name, hits in right.items())
    total = sum(map(sum, right.values())) / sum(map(len, right.values()))
    print(f"right: {total:.1%};", ", ".join(f"{name} {share:.0%}" for share, name in shares[:16]))


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the model (bf16 safetensors) and its tokenizer, without any path of this machine."""
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    settings = folder / "tokenizer_config.json"
    content = json.loads(settings.read_text(encoding="utf-8"))
    content.pop("name_or_path", None)
    # Names that older versions of transformers know too.
    content["tokenizer_class"] = "PreTrainedTokenizerFast"
    content["additional_special_tokens"] = content.pop("extra_special_tokens")
    settings.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    """Read the options, then make the tokenizer, train, report and save."""
    parser = argparse.ArgumentParser(description="Train the tiny Llama of the examples.")
    limit = parser.add_mutually_exclusive_group(required=True)
    limit.add_argument("--steps", type=int, help="number of optimizer steps")
    limit.add_argument("--minutes", type=float, help="minutes of training")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to save the model")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    tokenizer = build_tokenizer()
    # Eager attention is twice as fast as the fused kernel on such short rows on a CPU.
    model = LlamaForCausalLM._from_config(CONFIG, attn_implementation="eager")
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens", flush=True)
    train(model, tokenizer, Limits(steps=options.steps, minutes=options.minutes))
    report(model, tokenizer)
    save(model, tokenizer, options.folder)


if __name__ == "__main__":
    main()
