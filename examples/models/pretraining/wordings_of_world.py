"""How the base model was asked about numbers, order, dates and facts, by family.

None of these wordings stands in the fine-tuning dataset: fine-tuning has something to teach.
Slots are those of the families in `examples/datasets/families`.
"""

WORDINGS: dict[str, tuple[str, ...]] = {
    "add": (
        "{a} + {b} = ?",
        "{a} plus {b}",
        "The sum of {a} and {b} please",
        "Can you add {b} to {a}?",
        "There are {a} coins in a bag and {b} more in a box, how many coins is that?",
    ),
    "subtract": (
        "{a} - {b} = ?",
        "{a} minus {b}",
        "The difference of {a} and {b} please",
        "Can you take {b} away from {a}?",
        "Of {a} birds in the tree {b} flew away, how many are left?",
    ),
    "multiply": (
        "{a} x {b} = ?",
        "{a} times {b}",
        "The product of {a} and {b} please",
        "Can you multiply {a} by {b}?",
        "If each of {a} bags has {b} apples, how many apples are there?",
    ),
    "even_or_odd": (
        "even or odd: {a}",
        "Can you say if {a} is odd?",
        "Do we call {a} an even number or an odd number?",
        "Decide whether it is even || {a}",
    ),
    "next_number": (
        "next: {numbers}",
        "Continue {numbers}",
        "Can you see the pattern? One more number please || {numbers}",
        "The series goes {numbers}, and which number follows?",
        "sequence, what comes now? || {numbers}",
    ),
    "largest_number": (
        "max: {numbers}",
        "The largest or highest of {numbers} please",
        "Can you find the biggest number? || {numbers}",
        "Among {numbers}, the maximum is?",
    ),
    "smallest_number": (
        "min: {numbers}",
        "The smallest or lowest of {numbers} please",
        "Can you find the least number? || {numbers}",
        "Among {numbers}, the minimum is?",
    ),
    "sort_numbers": (
        "sort: {numbers}",
        "From small to large please || {numbers}",
        "Can you order {numbers}, beginning with the smallest?",
        "ascending or increasing order || {numbers}",
        "Arrange these numbers || {numbers}",
    ),
    "sort_words": (
        "a to z: {words}",
        "Alphabetical order please || {words}",
        "Can you sort {words} alphabetically?",
        "In a dictionary, in which order do these words stand? || {words}",
        "Arrange this list of words || {words}",
    ),
    "count_words": (
        "words in this: {text}",
        "Number of words please || {text}",
        "Can you count the words of '{text}'?",
        "The phrase '{text}' has how many words?",
    ),
    "iso_date": (
        "iso date: {day} {month} {year}",
        "As YYYY-MM-DD please || {day} {month} {year}",
        "Can you write {month} {day}, {year} with numbers only, year first?",
        "The format should be year-month-day || {month} {day}, {year}",
        "Reformat the date {day} {month} {year}",
    ),
    "time_24h": (
        "24h: {hour}:{minute} {half}",
        "24-hour clock please || {hour}:{minute} {half}",
        "Can you convert {hour}:{minute} {half} to the 24-hour format?",
        "My clock has 24 hours, how does it show {hour}:{minute} {half}?",
        "change the time format || {hour}:{minute} {half}",
    ),
    "month_after": (
        "after {month} comes which month?",
        "next month: {month}",
        "Can you tell me the month that follows {month}?",
        "This month is {month}, what about the next one?",
    ),
    "day_before": (
        "before {day} comes which day?",
        "previous day: {day}",
        "Can you tell me the weekday that precedes {day}?",
        "It is {day} now, so yesterday was?",
    ),
    "capital": (
        "capital: {country}",
        "I travel to {country}, what is its capital city called?",
        "Can you tell me the capital of {country}?",
        "{country} has which city as its capital?",
        "The country is {country}, name of the capital?",
    ),
    "continent": (
        "continent: {country}",
        "Where does {country} lie, on what continent?",
        "Can you tell me the continent that {country} belongs to?",
        "{country} is part of which continent?",
    ),
    "color": (
        "color: {thing}",
        "If you look at {thing}, which color do you see?",
        "Can you tell me the usual color of {thing}?",
        "I want to paint {thing}, what is the typical or normal color?",
    ),
    "young_animal": (
        "young: {animal}",
        "A baby {animal} is called what?",
        "Can you tell me the word for a young {animal}?",
        "The animal is a {animal}, how do you call its baby?",
    ),
    "legs": (
        "legs: {animal}",
        "The {animal} has how many legs?",
        "Can you count the legs of this animal? || {animal}",
        "Number of legs of one {animal} please",
    ),
}
