"""Families of small sums: numbers stay below a hundred so that a tiny model can learn them."""

from random import Random

from .problem import Problem, family


@family(
    "What is {a} + {b}?",
    "Add the two numbers. || {a} and {b}",
    "Calculate the sum. || {a} + {b}",
    "How much is {a} plus {b}?",
    "I have {a} coins and find {b} more. How many coins do I have now?",
)
def add(rng: Random) -> Problem:
    """`23 + 8` -> `31`; sums stay below 60."""
    a, b = rng.randint(1, 40), rng.randint(1, 19)
    return Problem(str(a + b), {"a": str(a), "b": str(b)})


@family(
    "What is {a} - {b}?",
    "Subtract {b} from {a}.",
    "Calculate the difference. || {a} - {b}",
    "How much is {a} minus {b}?",
    "There were {a} birds and {b} flew away. How many birds are left?",
)
def subtract(rng: Random) -> Problem:
    """`23 - 8` -> `15`; never negative."""
    b, rest = rng.randint(1, 19), rng.randint(0, 30)
    return Problem(str(rest), {"a": str(rest + b), "b": str(b)})


@family(
    "What is {a} times {b}?",
    "Multiply the two numbers. || {a} and {b}",
    "Calculate the product. || {a} x {b}",
    "How much is {a} x {b}?",
    "There are {a} bags with {b} apples each. How many apples is that?",
)
def multiply(rng: Random) -> Problem:
    """`7 times 8` -> `56`; the small table only."""
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    return Problem(str(a * b), {"a": str(a), "b": str(b)})


@family(
    "Is {a} even or odd?",
    "Say whether the number is even or odd. || {a}",
    "Decide if this number is odd or even. || {a}",
    "Is the number {a} an odd or an even number?",
)
def even_or_odd(rng: Random) -> Problem:
    """`23` -> `odd`."""
    a = rng.randint(1, 999)
    return Problem("odd" if a % 2 else "even", {"a": str(a)})


@family(
    "What number comes next? || {numbers}",
    "Continue the sequence with one number. || {numbers}",
    "Give the next number of the series {numbers}.",
    "Which number follows in this pattern? || {numbers}",
)
def next_number(rng: Random) -> Problem:
    """`3, 5, 7, 9` -> `11`; steps of 1, 2, 5 and 10."""
    step, start = rng.choice((1, 2, 5, 10)), rng.randint(1, 30)
    numbers = [start + step * k for k in range(5)]
    return Problem(str(numbers[-1]), {"numbers": ", ".join(map(str, numbers[:-1]))})
