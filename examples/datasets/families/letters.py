"""Families that look inside one word: its vowels, its letters and how many there are."""

from random import Random

from .problem import Problem, family
from .vocabulary import NOUNS, noun

SHORT_NOUNS = tuple(word for word in NOUNS if len(word) <= 4)


@family(
    "Remove the vowels from this word. || {word}",
    "Delete all vowels (a, e, i, o, u). || {word}",
    "Keep only the consonants of the word. || {word}",
    "What is left of the word '{word}' without its vowels?",
    "Write {word} without vowels.",
)
def remove_vowels(rng: Random) -> Problem:
    """`table` -> `tbl`."""
    word = noun(rng)
    return Problem("".join(letter for letter in word if letter not in "aeiou"), {"word": word})


@family(
    "Spell the word with a hyphen between the letters. || {word}",
    "Spell out '{word}', letter by letter, with hyphens.",
    "How do you spell {word}? Put hyphens between the letters.",
    "Split the word into its letters and join them with hyphens. || {word}",
)
def spell_out(rng: Random) -> Problem:
    """`table` -> `t-a-b-l-e`."""
    word = noun(rng)
    return Problem("-".join(word), {"word": word})


@family(
    "Reverse the letters of the word. || {word}",
    "Write the word backwards. || {word}",
    "Spell {word} backwards.",
    "What is the word '{word}' when its letters are read from right to left?",
)
def reverse_letters(rng: Random) -> Problem:
    """`lamp` -> `pmal` (short words only)."""
    word = rng.choice(SHORT_NOUNS)
    return Problem(word[::-1], {"word": word})


@family(
    "Count the letters of the word. || {word}",
    "How many letters does the word '{word}' have?",
    "How long is this word, in letters? || {word}",
    "Give the number of letters in {word}.",
)
def count_letters(rng: Random) -> Problem:
    """`table` -> `5`."""
    word = noun(rng)
    return Problem(str(len(word)), {"word": word})
