"""What a person may ask a lab for: a slip of the fingers does nothing and is explained."""

from __future__ import annotations

from typing import Any

import pytest

from lab.errors import LabError
from lab.verbs import do


class Recorder:
    """A node, or a lab of two, that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.nodes = {"a": self, "b": self}

    def __getattr__(self, name: str) -> Any:
        return lambda *words: self.told.append((name, *words))


@pytest.mark.parametrize(
    ("verb", "value", "told"),
    [
        ("throttle", "0.25", ("throttle", 0.25)),
        ("throttle", "off", ("throttle", None)),
        ("shape", "100mbit", ("shape", "100mbit")),
        ("shape", "1.5gbit", ("shape", "1.5gbit")),
        ("shape", "off", ("shape", None)),
    ],
)
def test_a_value_reaches_the_node(verb: str, value: str, told: tuple[Any, ...]) -> None:
    lab = Recorder()
    do(lab, verb, ["a"], value)  # type: ignore[arg-type]
    assert lab.told == [told]


@pytest.mark.parametrize(
    ("verb", "names", "value", "said"),
    [
        ("throttle", ["a"], "0", "no number of cores"),
        ("throttle", ["a"], "fast", "no number of cores"),
        ("throttle", ["a"], "nan", "no number of cores"),
        ("shape", ["a"], "100", "no rate; 100mbit is one"),
        ("shape", ["a"], "fast", "no rate; 100mbit is one"),
        ("partition", ["a", "a"], None, "two different nodes"),
        ("boot", ["c"], None, "there is no node 'c'; there are a, b"),
    ],
)
def test_a_slip_is_explained_and_does_nothing(
    verb: str, names: list[str], value: str | None, said: str
) -> None:
    lab = Recorder()
    with pytest.raises(LabError, match=said):
        do(lab, verb, names, value)  # type: ignore[arg-type]
    assert lab.told == []
