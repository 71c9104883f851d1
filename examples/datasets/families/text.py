"""Families that edit a whole phrase: case, order of the words, dropping and replacing words."""

from random import Random

from .problem import Problem, family
from .vocabulary import NOUNS, phrase


@family(
    "Write this text in capital letters. || {text}",
    "Convert the following text to uppercase. || {text}",
    "Change every letter to a capital letter. || {text}",
    "Rewrite the phrase '{text}' in upper case.",
    "What does this look like in all caps? || {text}",
)
def upper_case(rng: Random) -> Problem:
    """`the red boat` -> `THE RED BOAT`."""
    text = phrase(rng)
    return Problem(text.upper(), {"text": text})


@family(
    "Write this text in small letters. || {text}",
    "Convert the following text to lowercase. || {text}",
    "Change every letter to lower case. || {text}",
    "Rewrite the phrase '{text}' without any capital letters.",
    "What does this look like in lower case? || {text}",
)
def lower_case(rng: Random) -> Problem:
    """`THE RED BOAT` -> `the red boat`."""
    text = phrase(rng)
    return Problem(text, {"text": text.upper()})


@family(
    "Capitalize the first letter of every word. || {text}",
    "Write this in title case. || {text}",
    "Make a title out of the phrase by capitalizing each word. || {text}",
    "Start each word of '{text}' with a capital letter.",
)
def title_case(rng: Random) -> Problem:
    """`the red boat` -> `The Red Boat`."""
    text = phrase(rng)
    return Problem(text.title(), {"text": text})


@family(
    "Reverse the order of the words. || {text}",
    "Write these words in reverse order. || {text}",
    "Put the last word first and the first word last, and so on. || {text}",
    "Read the phrase '{text}' backwards, word by word.",
    "What is this phrase with its words in the opposite order? || {text}",
)
def reverse_words(rng: Random) -> Problem:
    """`the red boat` -> `boat red the`."""
    text = phrase(rng)
    return Problem(" ".join(reversed(text.split())), {"text": text})


@family(
    "Give the first word of the text. || {text}",
    "What is the first word here? || {text}",
    "Which word does this phrase begin with? || {text}",
    "Name the opening word of '{text}'.",
)
def first_word(rng: Random) -> Problem:
    """`my red boat` -> `my`."""
    text = phrase(rng)
    return Problem(text.split()[0], {"text": text})


@family(
    "Give the last word of the text. || {text}",
    "What is the final word here? || {text}",
    "Which word does this phrase end with? || {text}",
    "Name the closing word of '{text}'.",
)
def last_word(rng: Random) -> Problem:
    """`my red boat` -> `boat`."""
    text = phrase(rng)
    return Problem(text.split()[-1], {"text": text})


@family(
    "Remove the first word. || {text}",
    "Delete the first word of the phrase and keep the rest. || {text}",
    "Drop the word at the beginning of this text. || {text}",
    "What is left of '{text}' without its first word?",
)
def drop_first_word(rng: Random) -> Problem:
    """`my red boat` -> `red boat`."""
    text = phrase(rng)
    return Problem(text.split(maxsplit=1)[1], {"text": text})


@family(
    "Replace the word '{old}' with '{new}'. || {text}",
    "Use the word {new} instead of {old}. || {text}",
    "Change {old} to {new} in this text. || {text}",
    "What does the phrase say if {old} becomes {new}? || {text}",
)
def replace_word(rng: Random) -> Problem:
    """`the red boat` with boat -> lamp: `the red lamp`."""
    text = phrase(rng)
    old = rng.choice([word for word in text.split() if word in NOUNS])
    new = rng.choice([word for word in NOUNS if word not in text.split()])
    answer = " ".join(new if word == old else word for word in text.split())
    return Problem(answer, {"text": text, "old": old, "new": new})
