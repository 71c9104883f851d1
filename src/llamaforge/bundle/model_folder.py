"""Whether a folder holds a whole model: configuration, tokenizer and safetensors weights."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from llamaforge.bundle.weights import tensors
from llamaforge.errors import ModelError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

_TOKENIZERS: tuple[tuple[str, ...], ...] = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("spiece.model",),
    ("tekken.json",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
)
"""Any of these sets of files is a tokenizer."""

_OTHERS = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True, kw_only=True)
class Found:
    """A whole model on this machine."""

    name: str
    """Short, for job names: `Llama-3.2-1B`."""
    folder: Path
    files: tuple[str, ...]
    """Names in `folder` of the files that a job needs, sorted."""
    config: dict[str, Any]
    """What config.json holds."""
    parameters: int
    """Numbers in all weights, as their files say; tied weights are stored once."""


def check(folder: Path, *, name: str) -> Found:
    """Checks that nothing is missing in a model's folder.

    Args:
        folder: the folder.
        name: the model's short name.

    Raises:
        ModelError: names what is missing, cut short or in a format that can run code.
    """
    present = {path.name for path in folder.iterdir() if path.is_file()}
    config = _config(folder, present)
    shards = _weights(folder, present)
    for shard in shards:
        if shard not in present:
            missing = [each for each in shards if each not in present]
            raise ModelError(
                f"{folder} lacks {len(missing)} of {len(shards)} weight files: {_some(missing)}",
                hint=f"copy them into {folder}, or download the model again",
            )
    tokenizer = next((names for names in _TOKENIZERS if present.issuperset(names)), None)
    if tokenizer is None:
        raise ModelError(
            f"{folder} has no tokenizer (tokenizer.json or tokenizer.model)",
            hint="copy the tokenizer's files from the model's original folder",
        )
    every = {name for names in _TOKENIZERS for name in names} | set(_OTHERS) | set(shards)
    if WEIGHTS not in shards:
        every.add(INDEX)
    return Found(
        name=name,
        folder=folder,
        files=tuple(sorted(every & present)),
        config=config,
        parameters=sum(t.elements for shard in shards for t in tensors(folder / shard).values()),
    )


def _config(folder: Path, present: set[str]) -> dict[str, Any]:
    if "config.json" not in present:
        if "adapter_config.json" in present:
            raise ModelError(
                f"{folder} is a LoRA adapter, not a model",
                hint="give the model that it was trained on (base_model_name_or_path in "
                f"{folder / 'adapter_config.json'})",
            )
        raise ModelError(
            f"{folder} has no config.json, so it is not a model's folder{_nested(folder)}",
            hint="give the folder that holds config.json and *.safetensors",
        )
    return _json(folder / "config.json")


def _nested(folder: Path) -> str:
    inner = sorted(path.parent.name for path in folder.glob("*/config.json"))
    return f"; {', '.join(inner[:3])} in it could be meant" if inner else ""


def _weights(folder: Path, present: set[str]) -> tuple[str, ...]:
    """Names of the weight files: one, or the shards that the index lists."""
    if WEIGHTS in present:
        return (WEIGHTS,)
    if INDEX in present:
        shards = sorted(set(_json(folder / INDEX).get("weight_map", {}).values()))
        if shards and all(isinstance(s, str) and Path(s).name == s for s in shards):
            return tuple(shards)
        raise ModelError(f"{folder / INDEX} lists no weight files", hint="download it again")
    pickles = sorted(name for name in present if name.endswith(_PICKLES))
    if pickles:
        raise ModelError(
            f"{folder} has its weights only as pickle ({_some(pickles)}), which can run any code; "
            "LlamaForge reads safetensors",
            hint=f"if you trust their source, convert them once: {conversion(str(folder))}",
        )
    raise ModelError(
        f"{folder} has no weights: neither {WEIGHTS} nor {INDEX}",
        hint="copy the model's *.safetensors files there",
    )


def conversion(model: str) -> str:
    """The command that writes a safetensors copy of a model beside it."""
    copy = f"{Path(model).name}-safetensors"
    program = (
        "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; "
        f"m = {model!r}; M.from_pretrained(m, dtype='auto').save_pretrained({copy!r}); "
        f"T.from_pretrained(m).save_pretrained({copy!r})"
    )
    return f"python3 -c {shlex.quote(program)}, then --model {copy}"


def _json(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise ModelError(
            f"{path} is not a JSON object: {error}", hint="copy or download the file again"
        ) from error


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f", … ({len(names)} files)" if len(names) > 3 else "")
