"""What a finished job leaves: adapter or weights, tokenizer, and on request the merged model.

Everything loads without LlamaForge: the adapter in plain peft, weights in plain transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from llamaforge.errors import LlamaForgeError
from llamaforge.spec.job import JobSpec
from llamaforge.train.exact.layout import Layout

FULL = "model"
MERGED = "merged"


def write(
    folder: Path,
    *,
    spec: JobSpec,
    model: Any,
    tokenizer: Any,
    chat_template: str | None,
    layout: Layout,
    master: torch.Tensor,
    parameters: list[torch.nn.Parameter],
) -> None:
    """Writes a job's artifacts. The model is used up: its weights change precision.

    Args:
        folder: where to; made if needed.
        spec: what was asked for.
        model: the trained model.
        tokenizer: saved beside the weights, with the template that rows were rendered with.
        chat_template: that template.
        layout: the trained tensors.
        master: their fp32 values, flat.
        parameters: the same tensors in the model.

    Raises:
        LlamaForgeError: the disk is full or refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.chat_template = chat_template
        tokenizer.save_pretrained(folder)
        if spec.method == "full":
            _save_model(model, tokenizer, folder / FULL)
            return
        for parameter, view in zip(parameters, layout.views(master), strict=True):
            parameter.data = view
        _save_adapter(model, folder, spec)
        if spec.merge:
            _save_model(_merged(model), tokenizer, folder / MERGED)
    except (OSError, SafetensorError) as error:
        raise LlamaForgeError(
            f"the results can't be written to {folder}: {error}",
            hint="the last checkpoint is whole: make room and go on with --auto-resume",
        ) from error


def _save_adapter(model: Any, folder: Path, spec: JobSpec) -> None:
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = spec.model
    config["revision"] = spec.revision
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _merged(model: Any) -> Any:
    """Adds the adapters, which are fp32 by now, to the weights: each sum is rounded once."""
    return model.merge_and_unload()


def _save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    model.config.use_cache = True
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
