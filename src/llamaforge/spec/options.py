"""The table of a job's options, read once from `JobSpec`.

The command line, the parser of job files, the shell completion and docs/CLI.md are all made from
this table, so that an option has its name, range, default and help text in one place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast, get_args, get_type_hints

import msgspec
from msgspec import inspect

from llamaforge.spec.job import JobSpec

Kind = Literal["text", "integer", "number", "flag", "choice", "list", "mapping"]

PATHS = frozenset({"dataset", "heldout", "chat_template", "checkpoint_dir", "output_dir"})
"""Options whose value is a file or folder. `model` is not among them: it may be a hub name."""

FREE_TEXT = frozenset({"sample_prompts"})
"""List options whose items may hold commas: given once per item instead of comma separated."""

_KINDS: dict[type[inspect.Type], Kind] = {
    inspect.StrType: "text",
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.BoolType: "flag",
    inspect.LiteralType: "choice",
    inspect.VarTupleType: "list",
    inspect.DictType: "mapping",
}


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option of a job."""

    name: str
    """The key in a job file: `lora_r`."""
    group: str
    """One of `spec.job.GROUPS`."""
    text: str
    """What it does, in a phrase."""
    advanced: bool
    """Left out of the short help."""
    kind: Kind
    optional: bool
    """Whether `none` is a value."""
    default: Any
    """The value when it is not given; `msgspec.NODEFAULT` when it must be given."""
    choices: tuple[str, ...]
    """What a choice may be, in the order of the declaration."""
    least: float | None
    above: float | None
    most: float | None
    below: float | None
    named: bool
    """Whether a text must be a name: no spaces, no slashes, at most 64 characters."""
    annotation: Any
    """The field's type, for `msgspec.convert`."""

    @property
    def flag(self) -> str:
        """The option as written on a command line: `--lora-r`."""
        return "--" + self.name.replace("_", "-")

    @property
    def required(self) -> bool:
        """Whether a job can't be without it."""
        return self.default is msgspec.NODEFAULT

    @property
    def allowed(self) -> str:
        """What values are right, as a phrase that follows "is not"."""
        if self.kind == "choice":
            return "one of " + ", ".join(self.choices)
        noun = _NAME if self.named else _NOUNS[self.kind]
        return f"{noun} {self._range}" if self._range else noun

    @property
    def _range(self) -> str:
        """The bounds in words: `from 1 to 4096`, `of at least 1`, `above 0`; empty without any."""
        closed = self.most is not None or self.below is not None
        words = (
            ("from" if closed else "of at least", self.least),
            ("above", self.above),
            ("to", self.most),
            ("to below", self.below),
        )
        return " ".join(f"{word} {bound:.16g}" for word, bound in words if bound is not None)


_NOUNS: dict[Kind, str] = {
    "text": "a text",
    "integer": "a whole number",
    "number": "a number",
    "flag": "true or false",
    "list": "a list",
    "mapping": "a mapping such as key=value,key=value",
}

_NAME = "a name of at most 64 letters, digits, '.', '_' and '-', beginning with a letter or digit"


@cache
def options() -> dict[str, Option]:
    """All options of a job by name, in the order of their declaration."""
    hints = get_type_hints(JobSpec, include_extras=True)
    described = cast("inspect.StructType", inspect.type_info(JobSpec))
    return {field.name: _option(field, hints[field.name]) for field in described.fields}


def closest(word: str, known: dict[str, Any] | tuple[str, ...]) -> str | None:
    """The name among `known` that somebody who wrote `word` most likely meant, if any."""
    import difflib

    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def _option(field: inspect.Field, annotation: Any) -> Option:
    bare, meta, optional = _unwrap(field.type)
    default = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        default = cast("Any", field.default_factory)()
    return Option(
        name=field.name,
        group=meta["extra"]["group"],
        text=meta["text"],
        advanced=meta["extra"]["advanced"],
        kind=_KINDS[type(bare)],
        optional=optional,
        default=default,
        choices=_literal(annotation) if isinstance(bare, inspect.LiteralType) else (),
        least=getattr(bare, "ge", None),
        above=getattr(bare, "gt", None),
        most=getattr(bare, "le", None),
        below=getattr(bare, "lt", None),
        named=getattr(bare, "pattern", None) is not None,
        annotation=annotation,
    )


def _unwrap(kind: inspect.Type) -> tuple[inspect.Type, dict[str, Any], bool]:
    """Splits a field's type into the bare type, its metadata, and whether None is allowed."""
    meta: dict[str, Any] = {}
    if isinstance(kind, inspect.Metadata):
        schema = kind.extra_json_schema or {}
        meta = {"extra": kind.extra, "text": schema.get("description", "")}
        kind = kind.type
    optional = isinstance(kind, inspect.UnionType) and kind.includes_none
    if isinstance(kind, inspect.UnionType):
        kind = next(part for part in kind.types if not isinstance(part, inspect.NoneType))
    if isinstance(kind, inspect.Metadata):
        kind = kind.type
    return kind, meta, optional


def _literal(annotation: Any) -> tuple[str, ...]:
    """The values of a `Literal` inside `Annotated`, in the order in which they were written."""
    return get_args(get_args(annotation)[0])
