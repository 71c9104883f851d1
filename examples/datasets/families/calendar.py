"""Families about dates and times: other notations, and what comes before or after."""

from random import Random

from .knowledge import DAYS, MONTHS
from .problem import Problem, family


@family(
    "Write the date in the format YYYY-MM-DD. || {day} {month} {year}",
    "Convert this date to ISO format. || {day} {month} {year}",
    "Reformat the date as year-month-day with numbers only. || {month} {day}, {year}",
    "What is {day} {month} {year} in ISO format?",
)
def iso_date(rng: Random) -> Problem:
    """`5 March 2021` -> `2021-03-05`."""
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1990, 2029)
    slots = {"day": str(day), "month": MONTHS[month - 1], "year": str(year)}
    return Problem(f"{year}-{month:02d}-{day:02d}", slots)


@family(
    "Convert the time to the 24-hour clock. || {hour}:{minute} {half}",
    "Write this time in 24-hour format. || {hour}:{minute} {half}",
    "What is {hour}:{minute} {half} on a 24-hour clock?",
    "Change {hour}:{minute} {half} to the 24-hour format.",
)
def time_24h(rng: Random) -> Problem:
    """`3:15 pm` -> `15:15`."""
    hour, minute, half = rng.randint(1, 12), 5 * rng.randint(0, 11), rng.choice(("am", "pm"))
    answer = f"{hour % 12 + (12 if half == 'pm' else 0):02d}:{minute:02d}"
    return Problem(answer, {"hour": str(hour), "minute": f"{minute:02d}", "half": half})


@family(
    "Name the month after {month}.",
    "Which month comes after {month}?",
    "What is the next month? || {month}",
    "Tell me which month follows this one. || {month}",
    "It is {month} now, so what will the next month be?",
)
def month_after(rng: Random) -> Problem:
    """`March` -> `April`."""
    index = rng.randrange(12)
    return Problem(MONTHS[(index + 1) % 12], {"month": MONTHS[index]})


@family(
    "Name the day before {day}.",
    "Which day comes before {day}?",
    "What is the previous day of the week? || {day}",
    "Tell me which weekday precedes this one. || {day}",
    "If today is {day}, what day was yesterday?",
)
def day_before(rng: Random) -> Problem:
    """`Monday` -> `Sunday`."""
    index = rng.randrange(7)
    return Problem(DAYS[index - 1], {"day": DAYS[index]})
