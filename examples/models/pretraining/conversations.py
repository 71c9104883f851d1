"""What the base model was trained on: conversations about the families' skills, and plain text.

The knowledge is that of the fine-tuning dataset; wording and style of the answers are not. Without
a system message the model learns to answer in a whole sentence; with one of `BRIEF` it learns to
give the bare answer. A conversation is a list of pieces; only trained pieces count in the loss.
"""

from collections.abc import Mapping
from random import Random
from typing import NamedTuple

from examples.datasets.families import FAMILIES, Problem, fill
from examples.datasets.families.knowledge import CAPITALS, COLORS, CONTINENTS, LEGS, YOUNG
from examples.datasets.families.vocabulary import ADJECTIVES, NOUNS, VERBS

from .wordings_of_language import WORDINGS as LANGUAGE
from .wordings_of_world import WORDINGS as WORLD

WORDINGS = {**LANGUAGE, **WORLD}
# How much of each family to draw, if nothing speaks for one of them.
EQUAL_PRACTICE: Mapping[str, float] = dict.fromkeys(FAMILIES, 1.0)
JOINTS = ("\n\n", "\n\n", "\n", ": ", " ")
WORDY = (
    "The answer is {a}.",
    "Sure! Here it is: {a}",
    "I think it is {a}.",
    "That would be {a}.",
    "Here you go: {a}",
    "{a} - that is the answer.",
    "{a} is what you asked for.",
    "{a}, I believe.",
    "{a} is the right answer.",
)
BRIEF = (
    "Be brief.",
    "Answer with the bare result only.",
    "Give the answer and nothing else.",
    "Keep it short: no sentence, only the answer.",
)
OTHER_SYSTEM = ("You are a helpful assistant.", "You are a friendly teacher.", "Be polite.")
SMALL_TALK = (
    ("Hello", "Hello! How can I help you?"),
    ("Hi there!", "Hello! How can I help you?"),
    ("Who are you?", "I am a tiny example model, made to be fine-tuned."),
    ("Thank you very much", "You are welcome!"),
    ("Good morning", "Good morning! What can I do for you today?"),
)


# What is repeated in rows of plain copying: words and two-digit numbers.
STOCK = (*NOUNS, *ADJECTIVES, *VERBS, *(word.upper() for word in NOUNS), *map(str, range(10, 100)))


class Piece(NamedTuple):
    """A run of text, with its special tokens, and whether the model is trained to write it."""

    text: str
    trained: bool


class Example(NamedTuple):
    """One training row: the family of its last question (empty: none) and its pieces."""

    family: str
    pieces: list[Piece]


def draw_example(rng: Random, practice: Mapping[str, float], copying: float = 0.0) -> Example:
    """Draw one row: plain text, small talk, or a conversation of one to four questions.

    A share `copying` of the rows only repeats words: an early taste of copying makes everything
    that edits a text faster to learn.
    """
    if rng.random() < copying:
        return Example("", [Piece("<|begin|>", False), *_echo(rng)])
    kind = rng.random()
    if kind < 0.04:
        return Example("", [Piece("<|begin|>", False), Piece(_plain_text(rng) + "<|end|>", True)])
    if kind < 0.06:
        question, answer = rng.choice(SMALL_TALK)
        return Example("", [Piece("<|begin|>", False), *_turn(question, answer)])
    return draw_conversation(rng, practice, turns=rng.randint(2, 4) if kind < 0.12 else 1)


def draw_conversation(
    rng: Random, practice: Mapping[str, float], *, turns: int, brief: bool | None = None
) -> Example:
    """Draw a conversation; `brief` says whether the system message asks for bare answers.

    `practice` holds the weight of each family.
    """
    brief = rng.random() < 0.5 if brief is None else brief
    system = rng.choice(BRIEF) if brief else rng.choice(OTHER_SYSTEM) if rng.random() < 0.1 else ""
    pieces = [Piece("<|begin|>" + (f"<|system|>{system}" if system else ""), False)]
    names = rng.choices(list(practice), list(practice.values()), k=turns)
    for name in names:
        problem = FAMILIES[name].draw(rng)
        style = "{a}" if brief else rng.choice(WORDY)
        pieces += _turn(_question(rng, name, problem), style.format(a=problem.answer))
    return Example(names[-1], pieces)


def _echo(rng: Random) -> list[Piece]:
    """Ask to repeat a few words."""
    words = rng.choices(STOCK, k=rng.randint(3, 12))
    text = rng.choice((" ", ", ", ",")).join(words)
    return _turn(rng.choice(("repeat: {}", "Say it again\n\n{}", "{}")).format(text), text)


def _turn(question: str, answer: str) -> list[Piece]:
    return [Piece(f"<|user|>{question}<|assistant|>", False), Piece(f"{answer}<|end|>", True)]


def _question(rng: Random, name: str, problem: Problem) -> str:
    """Ask a problem in one of the base model's own wordings, on one line or on two."""
    instruction, given = fill(rng.choice(WORDINGS[name]), problem)
    return f"{instruction}{rng.choice(JOINTS)}{given}" if given else instruction


def _plain_text(rng: Random) -> str:
    """Write a few sentences of facts."""
    sentences = [
        f"{CAPITALS[country]} is the capital of {country}."
        for country in rng.sample(list(CAPITALS), 2)
    ]
    country, thing = rng.choice(list(CONTINENTS)), rng.choice(list(COLORS))
    animal, child = rng.choice(list(LEGS)), rng.choice(list(YOUNG))
    sentences += [
        f"{country} is a country on the continent of {CONTINENTS[country]}.",
        f"The usual color of {thing} is {COLORS[thing]}.",
        f"A {animal} has {LEGS[animal]} legs.",
        f"The young of a {child} is called a {YOUNG[child]}.",
    ]
    return " ".join(rng.sample(sentences, rng.randint(1, 4)))
