"""What a task family is: a way to draw problems with one right answer, and ways to ask them.

A family is written as one small function that draws a problem, decorated with its wordings:

    @family("Write this text in capital letters. || {text}", "How does '{text}' look in capitals?")
    def upper_case(rng: Random) -> Problem:
        text = phrase(rng)
        return Problem(text.upper(), {"text": text})

Calling the family with a random generator gives one row. In a wording, ` || ` parts the
instruction from the input; a wording without it has an empty input.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

SEPARATOR = " || "


class Row(NamedTuple):
    """One row in the alpaca format."""

    instruction: str
    input: str
    output: str


@dataclass(frozen=True)
class Problem:
    """A drawn problem: its only right answer, and the values that a wording fills in."""

    answer: str
    slots: Mapping[str, str]


@dataclass(frozen=True)
class Family:
    """A named kind of task. `draw` makes a problem, `wordings` are the ways to ask it."""

    name: str
    draw: Callable[[Random], Problem]
    wordings: tuple[str, ...]

    def __call__(self, rng: Random) -> Row:
        """Draw one row: a problem, a wording for it, and now and then some politeness."""
        problem = self.draw(rng)
        instruction, given = fill(rng.choice(self.wordings), problem)
        return Row(politely(rng, instruction), given, problem.answer)


def family(*wordings: str) -> Callable[[Callable[[Random], Problem]], Family]:
    """Turn a function that draws problems into a `Family` of the function's name."""

    def decorate(draw: Callable[[Random], Problem]) -> Family:
        return Family(draw.__name__, draw, wordings)

    return decorate


def fill(wording: str, problem: Problem) -> tuple[str, str]:
    """Return the instruction and the input (may be empty) of a problem asked in one wording."""
    instruction, _, given = wording.partition(SEPARATOR)
    return instruction.format(**problem.slots), given.format(**problem.slots)


def politely(rng: Random, instruction: str) -> str:
    """Leave most instructions as they are; add a please, a thank you or a preamble to others."""
    if rng.random() < 0.6:
        return instruction
    polite = _polite_questions if "?" in instruction else _polite_requests
    return rng.choice(polite(instruction))


def _polite_questions(question: str) -> tuple[str, ...]:
    return (f"Hello! {question}", f"I have a question. {question}", f"{question} Thanks!")


def _polite_requests(request: str) -> tuple[str, ...]:
    """Rewrite one sentence that begins with a verb and ends with a period."""
    lowered = request[0].lower() + request[1:]
    bare = lowered.removesuffix(".")
    return (
        f"Please {lowered}",
        f"Could you {bare}?",
        f"Can you {bare} for me?",
        f"{request} Thank you.",
        f"I would like you to {lowered}",
    )
