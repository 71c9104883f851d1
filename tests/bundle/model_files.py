"""Files of a very small model, made without torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save

CONFIG = {"model_type": "llama", "hidden_size": 4, "num_hidden_layers": 1, "vocab_size": 8}


def weights(*names: str) -> bytes:
    """A safetensors file with one 8x4 float32 tensor for each name."""
    return save({name: np.ones((8, 4), np.float32) for name in names})


def model_files() -> dict[str, bytes]:
    """A whole model in one weight file, with things beside it that no job needs."""
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": weights("embed", "head"),
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": b"{}",
        "chat_template.jinja": b"{{ messages }}",
        "README.md": b"# Model",
        "pytorch_model.bin": b"pickle",
    }


def sharded_files() -> dict[str, bytes]:
    """The same model in two weight files."""
    one, two = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    files = model_files()
    del files["model.safetensors"]
    index = {"weight_map": {"embed": one, "head": two}}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    return {**files, one: weights("embed"), two: weights("head")}


def lay_out(folder: Path, files: dict[str, bytes]) -> Path:
    """Writes files into a folder and returns it."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder
