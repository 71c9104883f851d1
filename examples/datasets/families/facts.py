"""Families that ask for small facts: capitals, continents, colors, animals."""

from random import Random

from .knowledge import CAPITALS, COLORS, CONTINENTS, LEGS, YOUNG
from .problem import Problem, family


@family(
    "What is the capital of {country}?",
    "Name the capital city of this country. || {country}",
    "Which city is the capital of {country}?",
    "Give the capital. || {country}",
    "Tell me the name of the capital of {country}.",
)
def capital(rng: Random) -> Problem:
    """`France` -> `Paris`."""
    country = rng.choice(list(CAPITALS))
    return Problem(CAPITALS[country], {"country": country})


@family(
    "On which continent is {country}?",
    "Name the continent of this country. || {country}",
    "Which continent does {country} belong to?",
    "Say on what continent the country lies. || {country}",
)
def continent(rng: Random) -> Problem:
    """`Japan` -> `Asia`; countries on two continents are left out."""
    country = rng.choice(list(CONTINENTS))
    return Problem(CONTINENTS[country], {"country": country})


@family(
    "What color is {thing}?",
    "Name the usual color of this. || {thing}",
    "Which color does {thing} normally have?",
    "Give the typical color of {thing}.",
)
def color(rng: Random) -> Problem:
    """`a lemon` -> `yellow`."""
    thing = rng.choice(list(COLORS))
    return Problem(COLORS[thing], {"thing": thing})


@family(
    "What is a young {animal} called?",
    "Name the young of this animal. || {animal}",
    "What do you call a baby {animal}?",
    "Give the word for the baby of this animal. || {animal}",
)
def young_animal(rng: Random) -> Problem:
    """`cow` -> `calf`."""
    animal = rng.choice(list(YOUNG))
    return Problem(YOUNG[animal], {"animal": animal})


@family(
    "How many legs does this animal have? || {animal}",
    "Give the number of legs of this animal. || {animal}",
    "How many legs has one {animal}?",
    "Count the legs of one {animal}.",
    "What is the number of legs of one {animal}?",
)
def legs(rng: Random) -> Problem:
    """`spider` -> `8`."""
    animal = rng.choice(list(LEGS))
    return Problem(LEGS[animal], {"animal": animal})
