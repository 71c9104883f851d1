"""Answers to prompts: greedy, one prompt at a time, so that a sample is reproducible."""

from __future__ import annotations

from typing import Any

import torch

from llamaforge.data.rows import Turn
from llamaforge.train.rows.tokens import Encoder


@torch.no_grad()
def answer(model: Any, encoder: Encoder, prompt: str, *, most: int) -> str:
    """What the model says to a prompt, up to its end token.

    Args:
        model: a transformers or peft model.
        encoder: the tokenizer and chat template that the job trains with.
        prompt: a user's message.
        most: longest answer, in tokens.
    """
    ids = encoder.prompt([Turn(role="user", content=prompt)])
    tokenizer = encoder.tokenizer
    model.eval()
    output = model.generate(
        input_ids=torch.from_numpy(ids).long().unsqueeze(0),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=most,
        do_sample=False,
        use_cache=True,
        eos_token_id=encoder.end_ids,
        pad_token_id=encoder.end_ids[0] if encoder.end_ids else None,
    )
    return tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True).strip()
