"""Small random models and tokenizers for tests, written as transformers writes them.

Shapes of the families that people fine-tune, at a few thousand parameters: what they share with
the real ones is the code path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|role|>")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|role|>{{ m.role }}\n{{ m.content }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|role|>assistant\n{% endif %}"
)
SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}


def make_tokenizer(*, template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without merges: 256 bytes and the special tokens; no padding token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SPECIAL[0], eos_token=SPECIAL[2]
    )
    fast.chat_template = template
    return fast


def make_model(folder: Path, kind: str = "llama", *, template: str | None = TEMPLATE) -> Path:
    """Writes a random model and its tokenizer into a folder and returns it.

    Args:
        folder: made if needed.
        kind: `llama`, `llama3` (tied embeddings, llama3 rope, a large vocabulary), `qwen2`,
            `qwen3` or `mistral` (a sliding window).
        template: the chat template; None for a base model.
    """
    torch.manual_seed(11)
    small = {**SIZE, "vocab_size": 320, "bos_token_id": 256, "eos_token_id": 258}
    if kind == "llama3":
        rope = {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 256,
        }
        tied = {"vocab_size": 128256, "tie_word_embeddings": True, "rope_parameters": rope}
        model: Any = LlamaForCausalLM(LlamaConfig(**{**small, **tied}))
    elif kind == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**small))
    elif kind == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**small, head_dim=8))
    elif kind == "mistral":
        model = MistralForCausalLM(MistralConfig(**small, sliding_window=24))
    else:
        model = LlamaForCausalLM(LlamaConfig(**small))
    model.save_pretrained(folder)
    make_tokenizer(template=template).save_pretrained(folder)
    return folder
