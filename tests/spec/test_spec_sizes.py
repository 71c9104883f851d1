"""Sizes in settings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.errors import SpecError
from llamaforge.spec.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("50G", 50 << 30), ("1.5 TiB", 3 << 39), ("4096", 4096), ("2m", 2 << 20), ("1kB", 1024)],
)
def test_a_size_is_bytes(text: str, size: int) -> None:
    assert parse_size(text, source="X") == size


@pytest.mark.parametrize("text", ["", "0", "0G", "-1G", "lots", "5X", "1e9", "٥G", "20%", "1.G"])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(SpecError, match="X is ") as error:
        parse_size(text, source="X")
    assert "50G" in error.value.hint


@given(st.integers(1, 999_999_999), st.sampled_from("KMGT"))
def test_a_unit_is_a_power_of_1024(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}", source="X") == number << (10 * ("KMGT".index(unit) + 1))
