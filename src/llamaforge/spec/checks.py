"""What the options of a job mean together, and whether the files that they name are there.

Each check sees only values that were converted without a mistake, so that one wrong value is
reported once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from llamaforge.spec.options import closest, options

DATA_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".txt")


class Mistake(NamedTuple):
    """One thing that is wrong with one option."""

    key: str
    text: str


def contradictions(found: Mapping[str, Any]) -> list[Mistake]:
    """All mistakes in values that are each well-formed.

    Args:
        found: converted values by option name; may lack required ones.
    """
    return [mistake for check in _CHECKS for mistake in check(found)]


def fraction(text: str) -> float | None:
    """The number that `text` is, or None when it is a path instead."""
    try:
        return float(text)
    except ValueError:
        return None


def _dataset(found: Mapping[str, Any]) -> Iterator[Mistake]:
    if "dataset" in found and (wrong := _not_a_file(found["dataset"])):
        yield Mistake("dataset", wrong)


def _heldout(found: Mapping[str, Any]) -> Iterator[Mistake]:
    value = found.get("heldout")
    if value is None:
        return
    share = fraction(value)
    if share is None:
        if value.endswith("%") and fraction(value[:-1]) is not None:
            yield Mistake("heldout", f"{value!r} is not a fraction; write {_percent(value)}")
        elif wrong := _not_a_file(value):
            yield Mistake("heldout", wrong)
    elif not 0 < share <= 0.5 and not Path(value).is_file():
        yield Mistake("heldout", f"{value} is neither a fraction above 0 to 0.5 nor a file")


def _percent(text: str) -> str:
    return f"{float(text[:-1]) / 100:g}"


def _chat_template(found: Mapping[str, Any]) -> Iterator[Mistake]:
    value = found.get("chat_template")
    if value is not None and (wrong := _not_a_file(value, suffixes=(".jinja", ".j2", ".txt"))):
        yield Mistake("chat_template", wrong)


def _learning_rate(found: Mapping[str, Any]) -> Iterator[Mistake]:
    rate = found.get("learning_rate")
    if rate is not None and rate >= 1:
        usual = "2e-5" if found.get("method") == "full" else "2e-4"
        yield Mistake("learning_rate", f"{rate:g} would destroy the model; {usual} is usual")


def _local_model(found: Mapping[str, Any]) -> Iterator[Mistake]:
    model = found.get("model", "")
    written_as_path = model.startswith(("/", "./", "../", "~"))
    if written_as_path and not Path(model).expanduser().exists():
        meant = closest(Path(model).name, _names_beside(Path(model), folders=True))
        yield Mistake(
            "model", f"no folder {model!r}" + (f"; did you mean {meant}?" if meant else "")
        )
    if found.get("revision") is not None and (written_as_path or model == "tiny"):
        yield Mistake("revision", f"only a hub model has revisions, and {model!r} is local")


def _lora_only(found: Mapping[str, Any]) -> Iterator[Mistake]:
    if found.get("method") != "full":
        return
    if found.get("merge"):
        yield Mistake("merge", "only with method lora; method full writes whole weights anyway")
    for key in ("lora_r", "lora_alpha", "lora_dropout", "lora_targets", "rslora"):
        if key in found and found[key] != options()[key].default:
            yield Mistake(key, "only with method lora; method full has no adapters")


def _evaluation(found: Mapping[str, Any]) -> Iterator[Mistake]:
    nothing = not found.get("heldout") and not found.get("sample_prompts")
    if found.get("eval_steps") is not None and nothing:
        yield Mistake("eval_steps", "nothing to evaluate; give heldout rows or sample_prompts")


def _folders(found: Mapping[str, Any]) -> Iterator[Mistake]:
    for key in ("output_dir", "checkpoint_dir"):
        value = found.get(key)
        if value is not None and Path(value).exists() and not Path(value).is_dir():
            yield Mistake(key, f"{value} is a file, not a folder")


def _not_a_file(text: str, *, suffixes: tuple[str, ...] = DATA_SUFFIXES) -> str | None:
    """Why `text` can't be read as a file, with what might have been meant; None when it can."""
    path = Path(text)
    if path.is_file():
        return None
    if path.is_dir():
        inside = [p.name for p in sorted(path.iterdir()) if p.suffix in suffixes]
        return f"{text} is a folder" + (f"; it holds {_some(inside)}" if inside else "")
    if path.exists():
        return None
    beside = _names_beside(path, suffixes=suffixes)
    if meant := closest(path.name, beside):
        return f"no file {text!r}; did you mean {path.parent / meant}?"
    if not path.parent.is_dir():
        return f"no file {text!r}; there is no folder {path.parent}"
    return f"no file {text!r}" + (f"; {path.parent} holds {_some(list(beside))}" if beside else "")


def _names_beside(
    path: Path, *, suffixes: tuple[str, ...] = (), folders: bool = False
) -> tuple[str, ...]:
    """Names in the folder of `path` that could have been meant; none when it can't be listed."""
    try:
        entries = sorted(path.expanduser().parent.iterdir())
    except OSError:
        return ()
    return tuple(p.name for p in entries if (p.is_dir() if folders else p.suffix in suffixes))


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


_CHECKS: tuple[Callable[[Mapping[str, Any]], Iterator[Mistake]], ...] = (
    _local_model,
    _dataset,
    _heldout,
    _chat_template,
    _learning_rate,
    _lora_only,
    _evaluation,
    _folders,
)
