"""Labels of a node."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.errors import SpecError
from llamaforge.spec.labels import MOST, parse_labels

LABELS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._=/-]{0,20}", fullmatch=True)


def test_a_list_is_cut_at_commas_and_each_counts_once() -> None:
    assert parse_labels(" rack=3, gpu,,gpu ") == ("gpu", "rack=3")
    assert parse_labels(None) == parse_labels("") == ()


@pytest.mark.parametrize("text", ["a b", "-gpu", "é", "gpu;rm", "x" * 64])
def test_a_label_with_other_characters_is_named(text: str) -> None:
    with pytest.raises(SpecError, match="LLAMAFORGE_LABELS names"):
        parse_labels(f"gpu,{text}", source="LLAMAFORGE_LABELS")


def test_too_many_are_refused() -> None:
    with pytest.raises(SpecError, match=f"{MOST} are the most"):
        parse_labels(",".join(f"l{number}" for number in range(MOST + 1)))


@given(st.lists(LABELS, max_size=MOST))
def test_labels_come_back_sorted(labels: list[str]) -> None:
    assert parse_labels(",".join(labels)) == tuple(sorted(set(labels)))
