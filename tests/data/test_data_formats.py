from collections.abc import Mapping
from typing import Any

import pytest

from llamaforge.data.formats import Empty, Record, detect, named
from llamaforge.data.formats.detect import check_fields
from llamaforge.data.rows import Chat, Completion, Row, Text, Turn
from llamaforge.errors import DataError, SpecError


def record(values: dict[str, Any], fields: Mapping[str, str] | None = None) -> Record:
    return Record(values, 7, lambda line: f"rows.jsonl:{line}", fields or {}, "alpaca")


def convert(layout: str, values: dict[str, Any], **fields: str) -> Row | Empty:
    return named(layout).convert(record(values, fields))


def user(text: str) -> Turn:
    return Turn(role="user", content=text)


def assistant(text: str, trained: bool = True) -> Turn:
    return Turn(role="assistant", content=text, trained=trained)


def system(text: str) -> Turn:
    return Turn(role="system", content=text)


def chat(*turns: Turn) -> Chat:
    return Chat(line=7, turns=turns)


GOOD = [
    ("alpaca", {"instruction": "Add", "output": "3"}, chat(user("Add"), assistant("3"))),
    (
        "alpaca",
        {"instruction": "Add", "input": "1 2", "output": "3", "system": "Brief.", "id": 4},
        chat(system("Brief."), user("Add\n\n1 2"), assistant("3")),
    ),
    (
        "alpaca",
        {"instruction": "And?", "input": None, "output": "c", "history": [["a?", "b"]]},
        chat(user("a?"), assistant("b"), user("And?"), assistant("c")),
    ),
    (
        "alpaca",
        {"instruction": "q", "output": "a", "history": '[["x", "y"]]', "system": ""},
        chat(user("x"), assistant("y"), user("q"), assistant("a")),
    ),
    (
        "sharegpt",
        {
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "human", "value": "q"},
                {"from": "GPT", "value": "a"},
            ]
        },
        chat(system("s"), user("q"), assistant("a")),
    ),
    (
        "sharegpt",
        {"system": "s", "conversations": [{"from": "gpt", "value": "a"}], "tools": ""},
        chat(system("s"), assistant("a")),
    ),
    (
        "messages",
        {
            "messages": [
                {"role": "developer", "content": "s"},
                {"role": "user", "content": [{"type": "text", "text": "q"}]},
                {"role": "assistant", "content": "no", "weight": 0},
                {"role": "assistant", "content": "a", "weight": 1, "tool_calls": None},
            ]
        },
        chat(system("s"), user("q"), assistant("no", trained=False), assistant("a")),
    ),
    (
        "messages",
        {"messages": '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]'},
        chat(user("q"), assistant("a")),
    ),
    (
        "prompt-completion",
        {"prompt": "", "completion": " x"},
        Completion(line=7, prompt="", completion=" x"),
    ),
    ("text", {"text": " words "}, Text(line=7, text=" words ")),
]


@pytest.mark.parametrize(("layout", "values", "row"), GOOD)
def test_each_layout_becomes_canonical(layout, values, row) -> None:
    assert convert(layout, values) == row


@pytest.mark.parametrize(("layout", "values", "row"), GOOD)
def test_each_layout_is_detected(layout, values, row) -> None:
    assert detect([record(values)]).name == layout


@pytest.mark.parametrize(
    ("layout", "values", "reason"),
    [
        ("alpaca", {"instruction": " ", "input": "", "output": "x"}, Empty.INSTRUCTION),
        ("alpaca", {"instruction": "x", "output": None}, Empty.COMPLETION),
        ("alpaca", {"instruction": "x", "output": " \n"}, Empty.COMPLETION),
        ("sharegpt", {"conversations": []}, Empty.NO_ASSISTANT),
        ("sharegpt", {"conversations": [{"from": "human", "value": "q"}]}, Empty.NO_ASSISTANT),
        ("sharegpt", {"conversations": [{"from": "gpt", "value": ""}]}, Empty.COMPLETION),
        ("messages", {"messages": None}, Empty.NO_ASSISTANT),
        ("messages", {"messages": [{"role": "assistant", "content": None}]}, Empty.COMPLETION),
        (
            "messages",
            {"messages": [{"role": "assistant", "content": "a", "weight": 0}]},
            Empty.UNTRAINED,
        ),
        ("prompt-completion", {"prompt": "x", "completion": ""}, Empty.COMPLETION),
        ("text", {"text": None}, Empty.TEXT),
    ],
)
def test_rows_with_nothing_to_train_say_why(layout, values, reason) -> None:
    assert convert(layout, values) is reason


@pytest.mark.parametrize(
    ("layout", "values", "message"),
    [
        ("alpaca", {"instruction": "x", "output": 3}, "'output' must be text, this is a number: 3"),
        (
            "alpaca",
            {"instruction": ["x"], "output": "y"},
            "'instruction' must be text, this is a l",
        ),
        ("alpaca", {"instruction": "x", "output": "y", "history": [["a"]]}, "[question, answer]"),
        ("alpaca", {"instruction": "x", "output": "y", "history": "[1,"}, "a JSON array"),
        ("sharegpt", {"conversations": "hello"}, "must be a list, this is text"),
        ("sharegpt", {"conversations": ["x"]}, "must be an object in a list"),
        ("sharegpt", {"conversations": [{"from": "gpt"}]}, "no 'value'"),
        (
            "sharegpt",
            {"conversations": [{"from": "gtp", "value": "x"}]},
            "turn 1 has the role 'gtp'",
        ),
        ("sharegpt", {"conversations": [{"from": "observation", "value": "x"}]}, "a tool"),
        ("sharegpt", {"conversations": [], "tools": "[{}]"}, "'tools' is used"),
        (
            "messages",
            {"messages": [{"role": "tool", "content": "x"}]},
            "turn 1 is spoken by a tool",
        ),
        ("messages", {"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "'tool_calls'"),
        (
            "messages",
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "'content' must be text, or parts",
        ),
        (
            "messages",
            {"messages": [{"role": "assistant", "content": "x", "weight": 0.5}]},
            "'weight' must be 0 or 1",
        ),
        ("prompt-completion", {"prompt": [], "completion": "x"}, "'prompt' must be text"),
        ("text", {"text": True}, "'text' must be text, this is true or false"),
    ],
)
def test_wrong_types_and_roles_are_refused_by_line(layout, values, message) -> None:
    with pytest.raises(DataError) as caught:
        convert(layout, values)
    assert caught.value.message.startswith("rows.jsonl:7: ")
    assert message in caught.value.message


def test_a_missing_column_names_the_keys_and_the_option() -> None:
    with pytest.raises(DataError) as caught:
        convert("alpaca", {"instructions": "x", "output": "y"})
    assert "no 'instruction'" in caught.value.message
    assert "'instructions', 'output'" in caught.value.message
    assert "--fields instruction=instructions" in caught.value.hint


def test_a_mapping_reads_other_columns_and_keys() -> None:
    assert convert("alpaca", {"q": "x", "a": "y"}, instruction="q", output="a") == chat(
        user("x"), assistant("y")
    )
    row = {"dialog": [{"speaker": "human", "says": "x"}, {"speaker": "gpt", "says": "y"}]}
    mapping = {"conversations": "dialog", "from": "speaker", "value": "says"}
    assert convert("sharegpt", row, **mapping) == chat(user("x"), assistant("y"))
    assert detect([record(row, mapping)]).name == "sharegpt"


def test_a_file_with_a_text_column_beside_alpaca_is_alpaca() -> None:
    row = record({"instruction": "x", "output": "y", "text": "### Instruction…"})
    assert detect([row]).name == "alpaca"


def test_detection_follows_the_majority() -> None:
    odd = record({"text": "x"})
    usual = record({"instruction": "x", "output": "y"})
    assert detect([odd, usual, usual]).name == "alpaca"


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        (
            {"instruction": "x", "context": "c", "response": "y"},
            "--format alpaca --fields output=response,input=context",
        ),
        (
            {"conversations": [{"role": "user", "content": "x"}]},
            "--format messages --fields messages=conversations",
        ),
        ({"a": 1}, "map your columns"),
    ],
)
def test_an_unknown_layout_comes_with_a_mapping_to_try(values, hint) -> None:
    with pytest.raises(DataError) as caught:
        detect([record(values)])
    assert "can't tell the layout of a row with" in caught.value.message
    assert hint in caught.value.hint


def test_unknown_formats_and_field_names_are_spec_errors() -> None:
    with pytest.raises(SpecError, match="did you mean --format alpaca"):
        named("alpacca")
    with pytest.raises(SpecError, match="did you mean output=b"):
        check_fields({"ouput": "b"}, [named("alpaca")])
