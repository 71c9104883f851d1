"""The example dataset is what its script makes, has the promised shape, and its answers are right.

Run from the root of the repository: python -m pytest tests/examples/test_alpaca_1k.py
"""

import json
import re
from collections import Counter
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from examples.datasets import make_alpaca_1k as maker
from examples.datasets.families import FAMILIES
from examples.datasets.families.knowledge import CAPITALS, OPPOSITES

DRAWS = 200


def rows_of(name: str) -> list[dict[str, str]]:
    """Read a committed JSONL file."""
    lines = (maker.FOLDER / name).read_text(encoding="ascii").splitlines()
    return [json.loads(line) for line in lines]


TRAIN = rows_of(maker.TRAIN_FILE)
HELD_OUT = rows_of(maker.HELD_OUT_FILE)


def question_of(row: dict[str, str]) -> tuple[str, str]:
    """Return what must not stand in both files."""
    return row["instruction"], row["input"]


def test_script_makes_the_committed_files() -> None:
    for name, content in maker.make_files().items():
        assert (maker.FOLDER / name).read_bytes() == content, f"{name} is stale"


def test_check_names_a_stale_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["make", "--folder", str(tmp_path)])
    assert maker.main() == 0
    monkeypatch.setattr("sys.argv", ["make", "--check", "--folder", str(tmp_path)])
    assert maker.main() == 0
    (tmp_path / maker.TRAIN_FILE).write_text("{}\n", encoding="ascii")
    assert maker.main() == 1
    assert maker.TRAIN_FILE in capsys.readouterr().err


def test_sizes_and_keys() -> None:
    assert (len(TRAIN), len(HELD_OUT)) == (1_000, 200)
    assert all(list(row) == ["instruction", "input", "output"] for row in TRAIN)
    assert all(list(row) == ["instruction", "input", "output", "family"] for row in HELD_OUT)


def test_no_question_is_asked_twice() -> None:
    questions = [question_of(row) for row in TRAIN + HELD_OUT]
    assert len(set(questions)) == len(questions)


def test_every_family_has_its_share_of_both_files() -> None:
    held_out = Counter(row["family"] for row in HELD_OUT)
    assert held_out == dict.fromkeys(FAMILIES, 200 // len(FAMILIES))
    rng, seen = Random(maker.SEED), set[tuple[str, str]]()
    train = Counter(name for name, _ in maker.draw_rows(rng, maker.TRAIN_ROWS, seen))
    assert train == dict.fromkeys(FAMILIES, 1_000 // len(FAMILIES))


def test_texts_are_plain_and_short() -> None:
    for row in TRAIN + HELD_OUT:
        assert row["instruction"].strip() == row["instruction"] != ""
        assert row["output"].strip() == row["output"] != ""
        assert len(row["output"].split()) <= 20
        assert not re.search(r"[{}|]", row["instruction"])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_a_function_of_its_generator(name: str) -> None:
    family = FAMILIES[name]
    assert [family(Random(7)) for _ in range(3)] == [family(Random(7))] * 3
    assert len({family(Random(seed)) for seed in range(DRAWS)}) > 30


def test_arithmetic_is_right() -> None:
    rng = Random(1)
    signs = {"add": "+", "subtract": "-", "multiply": "*"}
    for name in list(signs) * DRAWS:
        problem = FAMILIES[name].draw(rng)
        a, b = int(problem.slots["a"]), int(problem.slots["b"])
        expected = {"+": a + b, "-": a - b, "*": a * b}[signs[name]]
        assert int(problem.answer) == expected >= 0


def test_even_or_odd_looks_at_the_last_digit() -> None:
    rng = Random(2)
    for _ in range(DRAWS):
        problem = FAMILIES["even_or_odd"].draw(rng)
        assert (problem.answer == "even") == (problem.slots["a"][-1] in "02468")


def test_sequences_go_on_by_the_same_step() -> None:
    rng = Random(3)
    for _ in range(DRAWS):
        problem = FAMILIES["next_number"].draw(rng)
        numbers = [int(text) for text in (*problem.slots["numbers"].split(", "), problem.answer)]
        steps = {after - before for before, after in pairwise(numbers)}
        assert len(steps) == 1


@pytest.mark.parametrize("name", ["sort_numbers", "sort_words"])
def test_sorted_lists_keep_their_items(name: str) -> None:
    rng = Random(4)
    for _ in range(DRAWS):
        problem = FAMILIES[name].draw(rng)
        given = next(iter(problem.slots.values())).split(", ")
        answer = problem.answer.split(", ")
        assert sorted(answer) == sorted(given)
        keys = [(int(item), "") if item.isdigit() else (0, item) for item in answer]
        assert all(a < b for a, b in pairwise(keys))


def test_extremes_bound_their_lists() -> None:
    rng = Random(5)
    for _ in range(DRAWS):
        for name, sign in (("largest_number", 1), ("smallest_number", -1)):
            problem = FAMILIES[name].draw(rng)
            numbers = [int(text) for text in problem.slots["numbers"].split(", ")]
            answer = int(problem.answer)
            assert answer in numbers
            assert all(sign * number <= sign * answer for number in numbers)


def test_case_families_only_change_case() -> None:
    rng = Random(6)
    for name in ("upper_case", "lower_case", "title_case"):
        problem = FAMILIES[name].draw(rng)
        assert problem.answer.casefold() == problem.slots["text"].casefold()
        assert problem.answer != problem.slots["text"]


def test_letters_are_taken_apart_rightly() -> None:
    rng = Random(7)
    for _ in range(DRAWS):
        spelled = FAMILIES["spell_out"].draw(rng)
        assert spelled.answer.replace("-", "") == spelled.slots["word"]
        turned = FAMILIES["reverse_letters"].draw(rng)
        assert all(
            a == b for a, b in zip(turned.answer, reversed(turned.slots["word"]), strict=True)
        )
        bare = FAMILIES["remove_vowels"].draw(rng)
        assert re.sub("[aeiou]", "", bare.slots["word"]) == bare.answer


def test_words_are_picked_and_replaced_rightly() -> None:
    rng = Random(8)
    for _ in range(DRAWS):
        first = FAMILIES["first_word"].draw(rng)
        assert first.slots["text"].startswith(first.answer + " ")
        last = FAMILIES["last_word"].draw(rng)
        assert last.slots["text"].endswith(" " + last.answer)
        swapped = FAMILIES["replace_word"].draw(rng)
        old, new = swapped.slots["old"], swapped.slots["new"]
        assert re.sub(rf"\b{new}\b", old, swapped.answer) == swapped.slots["text"]


def test_json_answers_parse_to_what_was_given() -> None:
    rng = Random(9)
    for _ in range(DRAWS):
        listed = FAMILIES["json_list"].draw(rng)
        assert json.loads(listed.answer) == listed.slots["csv"].split(",")
        given = FAMILIES["json_object"].draw(rng)
        parsed = {key: str(value) for key, value in json.loads(given.answer).items()}
        assert parsed == dict(given.slots)


def test_dates_and_times_parse_to_the_same_moment() -> None:
    rng = Random(10)
    for _ in range(DRAWS):
        date = FAMILIES["iso_date"].draw(rng)
        given = datetime.strptime("{day} {month} {year}".format(**date.slots), "%d %B %Y")
        assert given.strftime("%Y-%m-%d") == date.answer
        time = FAMILIES["time_24h"].draw(rng)
        moment = datetime.strptime("{hour}:{minute} {half}".format(**time.slots), "%I:%M %p")
        assert moment.strftime("%H:%M") == time.answer


@pytest.mark.parametrize(
    ("name", "slot", "value", "answer"),
    [
        ("capital", "country", "Norway", "Oslo"),
        ("continent", "country", "Peru", "South America"),
        ("young_animal", "animal", "cow", "calf"),
        ("legs", "animal", "spider", "8"),
        ("month_after", "month", "December", "January"),
        ("day_before", "day", "Monday", "Sunday"),
        ("plural", "word", "mouse", "mice"),
        ("plural", "word", "brush", "brushes"),
        ("past_tense", "word", "write", "wrote"),
        ("comparative", "word", "big", "bigger"),
        ("opposite", "word", "hot", "cold"),
    ],
)
def test_known_facts(name: str, slot: str, value: str, answer: str) -> None:
    problems = (FAMILIES[name].draw(Random(seed)) for seed in range(5_000))
    found = next(problem for problem in problems if problem.slots[slot] == value)
    assert found.answer == answer


def test_opposites_of_opposites_lead_back() -> None:
    returning = [word for word, other in OPPOSITES.items() if other in OPPOSITES]
    assert len(returning) > 20
    assert all(OPPOSITES[OPPOSITES[word]] == word for word in returning)
    assert len(set(CAPITALS.values())) == len(CAPITALS)
