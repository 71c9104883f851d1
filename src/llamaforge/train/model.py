"""Loads a model as transformers knows it, and decides which tensors are trained.

Any decoder that `AutoModelForCausalLM` loads will do. Code from the model's folder is never run,
and weights are read from safetensors only.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from llamaforge.errors import ModelError, SpecError
from llamaforge.spec.job import JobSpec, Precision
from llamaforge.train import attention

DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32}


def load(folder: Path, precision: Precision) -> PreTrainedModel:
    """Loads the weights of a folder, memory-mapped, with attention per row where the model can.

    Raises:
        ModelError: the folder holds no decoder that transformers can load, or lacks weights.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    options: dict[str, Any] = {
        "dtype": DTYPES[precision],
        "local_files_only": True,
        "use_safetensors": True,
        "trust_remote_code": False,
        "output_loading_info": True,
    }
    try:
        model, seen = _with_row_attention(folder, options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"the model's files can't be loaded as a causal language model: {error}",
            hint="config.json and the safetensors files must be of one decoder that "
            "transformers' AutoModelForCausalLM knows",
        ) from error
    missing = sorted(seen["missing_keys"])
    if missing:
        raise ModelError(
            f"the model's files lack {len(missing)} tensors, the first is {missing[0]}",
            hint="download or copy the model again; all shards are needed",
        )
    model.config.use_cache = False
    return model


def make_trainable(model: PreTrainedModel, spec: JobSpec) -> torch.nn.Module:
    """Adds LoRA adapters, or opens all weights.

    LoRA is peft's (Hu et al., arXiv:2106.09685); its initial values come from the job's seed.

    Returns:
        The model to train: a peft model, or the model itself.

    Raises:
        SpecError: `lora_targets` names no module of this model.
    """
    if spec.gradient_checkpointing:
        with warnings.catch_warnings():  # the new name is not in every 5.x
            warnings.simplefilter("ignore", FutureWarning)
            model.gradient_checkpointing_enable({"use_reentrant": False})
    if spec.method == "full":
        model.requires_grad_(True)
        return model
    everything = spec.lora_targets == ("all-linear",)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.lora_r,
        lora_alpha=spec.lora_alpha,
        lora_dropout=spec.lora_dropout,
        use_rslora=spec.rslora,
        target_modules="all-linear" if everything else list(spec.lora_targets),
    )
    torch.manual_seed(spec.seed)
    try:
        with warnings.catch_warnings():  # peft asks transformers by a name that is going away
            warnings.simplefilter("ignore", FutureWarning)
            return get_peft_model(model, config, autocast_adapter_dtype=False)
    except ValueError as error:
        linear = {name for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
        known = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linear}))
        raise SpecError(
            f"lora_targets={','.join(spec.lora_targets)}: no such module in this model",
            hint=f"its linear modules are: {known}; or use all-linear",
        ) from error


def trained(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    """Name and parameter of every trained tensor, in the model's order; tied ones once."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def _with_row_attention(folder: Path, options: dict[str, Any]) -> tuple[PreTrainedModel, Any]:
    loader: Callable[..., Any] = AutoModelForCausalLM.from_pretrained
    try:
        return loader(folder, attn_implementation=attention.NAME, **options)
    except ValueError as error:
        if "attn_implementation" not in str(error) and attention.NAME not in str(error):
            raise
        return loader(folder, **options)
