import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.data.rows import Chat, Completion, Row, Text, Turn, decode, encode
from llamaforge.errors import IntegrityError

words = st.text(st.characters(exclude_categories=("Cs",)))
turns = st.builds(
    Turn,
    role=st.sampled_from(["system", "user", "assistant"]),
    content=words,
    trained=st.booleans(),
)
lines = st.integers(1, 2**53)
rows = st.one_of(
    st.builds(Chat, line=lines, turns=st.lists(turns).map(tuple)),
    st.builds(Completion, line=lines, prompt=words, completion=words),
    st.builds(Text, line=lines, text=words),
)


@given(rows)
def test_a_row_survives_its_line_of_json(row: Row) -> None:
    line = encode(row)
    assert decode(line) == row
    assert line.count(b"\n") == 1


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b'{"kind":"chat","line":1}', b'{"kind":"text","line":1,"text":"\xff"}', b"x"],
)
def test_damaged_bytes_are_not_a_row(line: bytes) -> None:
    with pytest.raises(IntegrityError, match="damaged"):
        decode(line)
