"""All task families of the example dataset, by name, in a fixed order.

The order is part of the data: rows are drawn family by family from one seeded generator.
"""

from . import arithmetic, calendar, facts, formats, grammar, letters, order, text
from .problem import Family, Problem, Row, fill

_ALL: tuple[Family, ...] = (
    text.upper_case,
    text.lower_case,
    text.title_case,
    text.reverse_words,
    text.first_word,
    text.last_word,
    text.drop_first_word,
    text.replace_word,
    letters.remove_vowels,
    letters.spell_out,
    letters.reverse_letters,
    letters.count_letters,
    grammar.plural,
    grammar.past_tense,
    grammar.opposite,
    grammar.comparative,
    arithmetic.add,
    arithmetic.subtract,
    arithmetic.multiply,
    arithmetic.even_or_odd,
    arithmetic.next_number,
    order.largest_number,
    order.smallest_number,
    order.sort_numbers,
    order.sort_words,
    order.count_words,
    formats.json_list,
    formats.json_object,
    formats.initials,
    formats.email_address,
    formats.join_with_and,
    calendar.iso_date,
    calendar.time_24h,
    calendar.month_after,
    calendar.day_before,
    facts.capital,
    facts.continent,
    facts.color,
    facts.young_animal,
    facts.legs,
)
FAMILIES: dict[str, Family] = {family.name: family for family in _ALL}

__all__ = ["FAMILIES", "Family", "Problem", "Row", "fill"]
