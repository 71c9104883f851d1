"""A join token as text."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.errors import UserError
from llamaforge.identity.token import JoinToken

hexadecimal = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(hexadecimal)
def test_text_and_back(authority: str) -> None:
    made = JoinToken.make(authority)
    assert JoinToken.parse(f"  {made.text}\n") == made
    assert len(made.text) == 104
    assert not set(made.text) & set(string.whitespace)


@given(st.text(max_size=200))
def test_anything_else_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(UserError) as error:
        JoinToken.parse(text)
    assert len(text) < 20 or text not in str(error.value)


def test_it_does_not_print_itself() -> None:
    made = JoinToken.make("0" * 64)
    assert made.secret not in repr(made) + str(made) + f"{[made]}"


def test_the_digest_says_nothing_of_the_secret() -> None:
    made = JoinToken.make("0" * 64)
    assert len(made.digest) == 64
    assert made.secret not in made.digest
