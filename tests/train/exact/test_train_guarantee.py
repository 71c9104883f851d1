"""The promise of a job: the weakest of its generations, and the same canary in all of them."""

from __future__ import annotations

from typing import Any

from llamaforge.train.exact.guarantee import Guarantee, Promise, over_all

NOW = Guarantee(Promise.SAME_NUMBERS, "all 2 ranks agree", "aa")


def generation(number: int, promise: Promise, canary: str) -> dict[str, Any]:
    return {
        "generation": number,
        "guarantee": promise.value,
        "why": f"why {number}",
        "canary": canary,
    }


def test_the_first_generation_promises_what_it_measured() -> None:
    assert over_all(NOW, []) == NOW


def test_generations_that_compute_alike_keep_the_promise() -> None:
    assert over_all(NOW, [generation(1, Promise.SAME_NUMBERS, "aa")]) == NOW


def test_a_promise_that_was_broken_once_stays_broken() -> None:
    past = [generation(1, Promise.SAME_ROWS, "aa"), generation(2, Promise.SAME_ROWS, "aa")]
    after = over_all(NOW, past)
    assert after.promise is Promise.SAME_ROWS
    assert after.why == "in generation 1, why 1"


def test_machines_that_compute_otherwise_than_an_earlier_generation_s_break_it() -> None:
    past = [generation(1, Promise.SAME_NUMBERS, "aa"), generation(2, Promise.SAME_NUMBERS, "bb")]
    after = over_all(NOW, past)
    assert after.promise is Promise.SAME_ROWS
    assert after.why == "generation 2 computed the canary slice to other bits than this one"
    assert after.canary == "aa"
