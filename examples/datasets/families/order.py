"""Families that sort, compare and count: numbers and words in short lists."""

from random import Random

from .problem import Problem, family
from .vocabulary import nouns, phrase


def _numbers(rng: Random, fewest: int, most: int) -> list[int]:
    """Draw different numbers of one or two digits."""
    return rng.sample(range(1, 100), rng.randint(fewest, most))


def _listed(items: list[int] | list[str]) -> str:
    """Join items as people write a list: `4, 17, 9`."""
    return ", ".join(map(str, items))


@family(
    "Which number is the largest? || {numbers}",
    "Find the maximum. || {numbers}",
    "Name the biggest of these numbers. || {numbers}",
    "What is the highest number among {numbers}?",
)
def largest_number(rng: Random) -> Problem:
    """`4, 17, 9` -> `17`."""
    numbers = _numbers(rng, 2, 4)
    return Problem(str(max(numbers)), {"numbers": _listed(numbers)})


@family(
    "Which number is the smallest? || {numbers}",
    "Find the minimum. || {numbers}",
    "Name the least of these numbers. || {numbers}",
    "What is the lowest number among {numbers}?",
)
def smallest_number(rng: Random) -> Problem:
    """`4, 17, 9` -> `4`."""
    numbers = _numbers(rng, 2, 4)
    return Problem(str(min(numbers)), {"numbers": _listed(numbers)})


@family(
    "Sort the numbers from small to large. || {numbers}",
    "Put these numbers in ascending order. || {numbers}",
    "Order the numbers, smallest first. || {numbers}",
    "Arrange {numbers} in increasing order.",
)
def sort_numbers(rng: Random) -> Problem:
    """`4, 17, 9` -> `4, 9, 17`."""
    numbers = _numbers(rng, 3, 4)
    return Problem(_listed(sorted(numbers)), {"numbers": _listed(numbers)})


@family(
    "Sort the words alphabetically. || {words}",
    "Put these words in alphabetical order. || {words}",
    "Order the list from A to Z. || {words}",
    "Arrange {words} as a dictionary would.",
)
def sort_words(rng: Random) -> Problem:
    """`ship, apple, moon` -> `apple, moon, ship`."""
    words = nouns(rng, 3, 4)
    return Problem(_listed(sorted(words)), {"words": _listed(words)})


@family(
    "Count the words of this text. || {text}",
    "How many words are there? || {text}",
    "Give the number of words in '{text}'.",
    "How many words does the phrase '{text}' have?",
)
def count_words(rng: Random) -> Problem:
    """`the small red boat` -> `4`."""
    text = phrase(rng)
    return Problem(str(len(text.split())), {"text": text})
