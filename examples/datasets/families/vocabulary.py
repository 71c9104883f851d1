"""The closed stock of words that the families put into their texts and lists.

It is small on purpose: a model of a few million parameters can learn how each of these words is
spelt, capitalised, sorted and counted. Add a word here and every family may use it.
"""

from random import Random


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NOUNS = _words(
    """apple bag ball basket bell bird boat book bottle bowl box bread bridge brush bus cake candle
    car cat chair clock coat cow cup desk dog door drum duck farm fish flag flower fox frog garden
    glass goat hat hill horse house key king kite lake lamp leaf lemon lion map moon mouse nest
    onion orange owl pen pig plane plate queen rabbit ring river road robot rose sheep ship shoe
    spoon star sun table tiger train tree van wagon wheel window wolf"""
)
ADJECTIVES = _words(
    """big black blue brave bright brown clean cold dark fast green happy kind little long loud new
    old quiet red round sad short slow small soft strong tall tiny warm white wild wise yellow
    young"""
)
VERBS = _words("falls jumps moves rests runs shines sings sleeps spins stops waits wins")
FIRST_NAMES = _words(
    """Adam Alice Anna Ben Carla David Diana Emma Eric Fred Grace Henry Ivan Jack Julia Karen Leo
    Lucy Maria Mark Nina Oscar Paul Peter Rosa Sam Sara Tom Victor Wendy"""
)
LAST_NAMES = _words(
    """Adams Baker Black Brown Carter Clark Cook Davis Evans Fisher Ford Gray Green Hill Jones King
    Lee Moore Parker Price Reed Scott Smith Stone Taylor Turner Walker Ward White Young"""
)
PATTERNS = (
    "the {a} {n} {v}",
    "my {a} {n} {v}",
    "our {n} {v} today",
    "every {n} {v} at night",
    "{a} {n} and {b} {m}",
    "one {a} {n} with the {m}",
    "that {n} {v} near the {m}",
    "her {a} {n}",
    "this {a} and {b} {n}",
    "his {n} and my {m}",
    "when the {n} {v}",
)


def noun(rng: Random) -> str:
    """Draw one noun."""
    return rng.choice(NOUNS)


def nouns(rng: Random, fewest: int, most: int) -> list[str]:
    """Draw between `fewest` and `most` different nouns, in no particular order."""
    return rng.sample(NOUNS, rng.randint(fewest, most))


def phrase(rng: Random) -> str:
    """Draw a lower-case phrase of three to six different words."""
    (a, b), (n, m) = rng.sample(ADJECTIVES, 2), rng.sample(NOUNS, 2)
    return rng.choice(PATTERNS).format(a=a, b=b, n=n, m=m, v=rng.choice(VERBS))


def full_name(rng: Random) -> tuple[str, str]:
    """Draw a first and a last name."""
    return rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)
