"""Families that bring given data into another format: JSON, initials, e-mail, enumerations."""

import json
from random import Random

from .problem import Problem, family
from .vocabulary import FIRST_NAMES, full_name, noun, nouns


@family(
    "Turn the comma separated values into a JSON list. || {csv}",
    "Convert this line of CSV to a JSON array of strings. || {csv}",
    "Write the items as a JSON list. || {csv}",
    "Make a JSON array out of {csv}.",
)
def json_list(rng: Random) -> Problem:
    """`pen,cup` -> `["pen", "cup"]`."""
    items = nouns(rng, 2, 4)
    return Problem(json.dumps(items), {"csv": ",".join(items)})


@family(
    "Write the data as a JSON object. || name: {name}, age: {age}",
    "Convert the key and value pairs to JSON. || name: {name}, age: {age}",
    "Give JSON with the keys name and age. || {name} is {age} years old",
    "Make a JSON object with the name {name} and the age {age}.",
)
def json_object(rng: Random) -> Problem:
    """`name: Anna, age: 31` -> `{"name": "Anna", "age": 31}`."""
    name, age = rng.choice(FIRST_NAMES), rng.randint(3, 90)
    return Problem(json.dumps({"name": name, "age": age}), {"name": name, "age": str(age)})


@family(
    "Give the initials of this person. || {first} {last}",
    "What are the initials of {first} {last}?",
    "Shorten the name to its initials. || {first} {last}",
    "Write only the initials, each with a period. || {first} {last}",
)
def initials(rng: Random) -> Problem:
    """`Anna Brown` -> `A.B.`."""
    first, last = full_name(rng)
    return Problem(f"{first[0]}.{last[0]}.", {"first": first, "last": last})


@family(
    "Make an e-mail address at example.com for this person. || {first} {last}",
    "Write the e-mail address of {first} {last} at example.com.",
    "Build an address like first.last@example.com. || {first} {last}",
    "What is the e-mail address of this employee at example.com? || {first} {last}",
)
def email_address(rng: Random) -> Problem:
    """`Anna Brown` -> `anna.brown@example.com`."""
    first, last = full_name(rng)
    answer = f"{first}.{last}@example.com".lower()
    return Problem(answer, {"first": first, "last": last})


@family(
    "Join the items with commas and a final 'and'. || {items}",
    "Write the list as part of a sentence, with commas and the word and. || {items}",
    "Combine these words into one enumeration: commas, then 'and'. || {items}",
    "Connect {items} with commas and put 'and' before the last one.",
)
def join_with_and(rng: Random) -> Problem:
    """`pen cup hat` -> `pen, cup and hat`."""
    items, last = nouns(rng, 2, 3), noun(rng)
    return Problem(f"{', '.join(items)} and {last}", {"items": " ".join([*items, last])})
