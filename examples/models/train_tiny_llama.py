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
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from .pretraining.batches import BATCH, IGNORED, batches, encode, pad, rounded
from .pretraining.conversations import EQUAL_PRACTICE, draw_conversation, draw_example
from .pretraining.tokenizer import BEGIN, END, LONGEST, PAD, VOCABULARY, train_tokenizer

SEED = 20
PEAK_RATE = 8e-3
WARM_UP = 100  # steps
TOKENIZER_ROWS = 40_000
EXAM = 500  # steps between exams; families that do badly are practised more from then on
EXAM_BATCHES = 20
FOLDER = Path(__file__).resolve().parent / "tiny-llama"
CONFIG = LlamaConfig(
    vocab_size=VOCABULARY,
    hidden_size=256,
    intermediate_size=704,
    num_hidden_layers=4,
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
    rows = (draw_example(rng, EQUAL_PRACTICE) for _ in range(TOKENIZER_ROWS))
    return train_tokenizer("".join(piece.text for piece in row.pieces) for row in rows)


def trained_logits(
    model: LlamaForCausalLM, tokens: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Return logits `[trained, vocabulary]` and targets `[trained]` of the trained tokens only.

    At the end stand a few ignored ones, which round up the shape (see `pad`).
    """
    targets = torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], IGNORED)], dim=1).flatten()
    chosen = (targets != IGNORED).nonzero().flatten()
    spare = (targets == IGNORED).nonzero().flatten()
    chosen = torch.cat([chosen, spare[: rounded(len(chosen), 128) - len(chosen)]])
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state
        return model.lm_head(hidden.flatten(0, 1)[chosen]), targets[chosen]


def rate(done: float, step: int) -> float:
    """Learning rate: linear warm-up, then a cosine down to a fiftieth of the peak."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return PEAK_RATE * min(1.0, (step + 1) / WARM_UP) * (0.02 + 0.98 * cosine)


def make_optimizers(model: LlamaForCausalLM) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms.

    Muon (Jordan et al., 2024) needs clearly fewer rows than AdamW alone for the same skills.
    """
    matrices = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    rest = [*model.model.embed_tokens.parameters(), *model.model.norm.parameters()]
    rest += [weight for weight in model.model.layers.parameters() if weight.ndim == 1]
    return (
        torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.0),
    )


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, limits: Limits) -> None:
    """Train in place until the limit, with a line of progress now and then."""
    optimizers = make_optimizers(model)
    practice = dict(EQUAL_PRACTICE)
    began, seen = time.monotonic(), 0
    for step, (tokens, labels) in enumerate(batches(tokenizer, Random(SEED + 1), practice)):
        elapsed = time.monotonic() - began
        done = limits.done(step, elapsed)
        if done >= 1:
            break
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = rate(done, step)
        logits, targets = trained_logits(model, tokens, labels)
        loss = cross_entropy(logits.float(), targets, ignore_index=IGNORED)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seen += tokens.numel()
        if step % 100 == 0:
            print(
                f"step {step}  {done:4.0%}  loss {loss.item():.4f}  {elapsed:.0f} s"
                f"  {seen / max(elapsed, 1):.0f} tokens/s",
                flush=True,
            )
        if step % EXAM == EXAM - 1:
            shares = report(model, tokenizer)
            practice.update({name: 0.25 + 2 * (1 - share) for name, share in shares.items()})


@torch.no_grad()
def report(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> dict[str, float]:
    """Return, by family, the share of brief answers that greedy decoding gets right; print it.

    All trained tokens being the most likely ones is the same as greedy decoding being right.
    """
    rng, right = Random(SEED + 2), defaultdict[str, list[bool]](list)
    for _ in range(EXAM_BATCHES):
        drawn = [draw_conversation(rng, EQUAL_PRACTICE, turns=1, brief=True) for _ in range(BATCH)]
        tokens, labels = pad([encode(tokenizer, row) for row in drawn])
        logits, targets = trained_logits(model, tokens, labels)
        hits = iter((logits.argmax(-1) == targets).tolist())
        for row, count in zip(drawn, (labels != IGNORED).sum(1).tolist(), strict=True):
            correct = [next(hits) for _ in range(count)]
            right[row.family].append(all(correct))
    shares = {name: sum(hits) / len(hits) for name, hits in right.items()}
    worst = sorted(shares, key=shares.__getitem__)
    print(f"right: {sum(shares.values()) / len(shares):.1%}; worst first:")
    print(", ".join(f"{name} {shares[name]:.0%}" for name in worst[:20]), flush=True)
    return shares


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
    model = AutoModelForCausalLM.from_config(CONFIG, attn_implementation="eager")
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens", flush=True)
    train(model, tokenizer, Limits(steps=options.steps, minutes=options.minutes))
    report(model, tokenizer)
    save(model, tokenizer, options.folder)


if __name__ == "__main__":
    main()
