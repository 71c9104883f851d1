"""Families about English words: plurals, past tenses, opposites and comparatives."""

from random import Random

from .knowledge import COMPARATIVES, IRREGULAR_PLURALS, OPPOSITES, PAST_TENSES
from .problem import Problem, family
from .vocabulary import NOUNS

PLURAL_NOUNS = tuple(dict.fromkeys((*NOUNS, *IRREGULAR_PLURALS)))


def plural_of(word: str) -> str:
    """Return the plural of a noun in our stock: irregular, -es after a hiss, or -s."""
    if word in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[word]
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


@family(
    "Give the plural of this noun. || {word}",
    "What is the plural of '{word}'?",
    "Write the word for more than one {word}.",
    "Turn the singular noun into a plural. || {word}",
    "What do you call two or more of these? || {word}",
)
def plural(rng: Random) -> Problem:
    """`box` -> `boxes`."""
    word = rng.choice(PLURAL_NOUNS)
    return Problem(plural_of(word), {"word": word})


@family(
    "Give the past tense of this verb. || {word}",
    "What is the past tense of '{word}'?",
    "Write the verb {word} in the simple past.",
    "Complete the sentence 'Today I {word}, yesterday I ...' with one word.",
    "Put the verb into the past tense. || {word}",
)
def past_tense(rng: Random) -> Problem:
    """`go` -> `went`."""
    word = rng.choice(list(PAST_TENSES))
    return Problem(PAST_TENSES[word], {"word": word})


@family(
    "Give the opposite of this word. || {word}",
    "What is the opposite of '{word}'?",
    "Name a word that means the contrary of {word}.",
    "Find the antonym. || {word}",
    "Which word is the antonym of {word}?",
)
def opposite(rng: Random) -> Problem:
    """`hot` -> `cold`."""
    word = rng.choice(list(OPPOSITES))
    return Problem(OPPOSITES[word], {"word": word})


@family(
    "Give the comparative form of this adjective. || {word}",
    "What is the comparative of '{word}'?",
    "Say with one word that something is more {word} than before.",
    "Write the form of {word} that is used before 'than'.",
    "Turn this adjective into its comparative. || {word}",
)
def comparative(rng: Random) -> Problem:
    """`big` -> `bigger`."""
    word = rng.choice(list(COMPARATIVES))
    return Problem(COMPARATIVES[word], {"word": word})
