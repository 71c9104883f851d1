"""Who takes part: refusals name node and fix, measuring decides, and nobody is forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.coordinator.leading.inspection import Inspection
from llamaforge.coordinator.leading.preflight import Round, Verdict, judge
from llamaforge.errors import LlamaForgeError
from llamaforge.spec.wishes import Wishes
from llamaforge.wire.messages import LinkSpeed, PreflightReport

NOW = 1_800_000_000.0
ALIKE = {"python": "3.11.7", "torch": "2.13.0+cpu", "transformers": "5.1.0", "cpu": "A"}


def said(**fields: object) -> PreflightReport:
    told: dict[str, object] = {"fingerprint": ALIKE, "time": NOW, "canary": "aa", **fields}
    return PreflightReport(job_id="j", generation=2, **told)  # type: ignore[arg-type]


def link(node: str, *, ok: bool = True, speed: float = 1e8) -> LinkSpeed:
    error = "" if ok else "no answer within 2 s"
    return LinkSpeed(
        node=node, ok=ok, error=error, address=f"10.0.0.{ord(node)}:29500", bytes_per_second=speed
    )


def judged(
    reports: dict[str, PreflightReport],
    *,
    same_numbers: bool = False,
    missing: tuple[str, ...] = (),
) -> Verdict:
    wishes = Wishes(same_numbers=same_numbers)
    return judge(reports, dict.fromkeys(reports, NOW), wishes, missing=missing)


def test_equal_nodes_are_not_worth_a_word() -> None:
    links = {"a": "b", "b": "a"}
    verdict = judged({one: said(links=(link(other),)) for one, other in links.items()})
    assert verdict == Verdict(refused={}, warnings=[], groups=(("a", "b"),), chosen=("a", "b"))
    assert judged({}).chosen == ()


def test_a_node_that_refuses_itself_and_one_that_says_nothing() -> None:
    verdict = judged(
        {"a": said(), "b": said(refusal="9.1 GB are needed", hint="make room in /c")},
        missing=("c",),
    )
    assert verdict.chosen == ("a",)
    assert verdict.refused["b"] == ("9.1 GB are needed", "make room in /c")
    assert "did not answer" in verdict.refused["c"][0]
    assert "on c: systemctl status" in verdict.refused["c"][1]
    assert verdict.passing == {"c"}


def test_a_job_is_ended_only_by_refusals_that_will_not_pass() -> None:
    wrong = said(refusal="its address is wrong", hint="give it another")
    full = said(refusal="/state has 1 MiB free", hint="make room", passing=True)
    Inspection.raise_if_hopeless(judged({"a": said(), "b": wrong}))
    Inspection.raise_if_hopeless(judged({"a": full, "b": wrong}))
    Inspection.raise_if_hopeless(judged({"a": wrong}, missing=("b",)))
    Inspection.raise_if_hopeless(judged({}))
    with pytest.raises(LlamaForgeError, match="node a can't take part: its address") as error:
        Inspection.raise_if_hopeless(judged({"a": wrong, "b": wrong}))
    assert error.value.hint == "give it another"


@pytest.mark.parametrize(
    ("what", "other", "refused"),
    [
        ("python", "3.11.2", False),
        ("python", "3.12.7", True),
        ("torch", "2.13.0+cu128", False),
        ("torch", "2.12.0", True),
        ("transformers", "5.2.0", False),
    ],
)
def test_versions(what: str, other: str, refused: bool) -> None:
    odd = said(fingerprint={**ALIKE, what: other})
    verdict = judged({"a": odd, "b": said(), "c": said()})
    assert (set(verdict.refused) == {"a"}) is refused
    if refused:
        why, hint = verdict.refused["a"]
        assert why == f"it has {what} {other} where b has {ALIKE[what]}"
        assert f"the same {what}, such as {ALIKE[what]}" in hint
    else:
        told = f"{what} differs (a: {other}; b, c: {ALIKE[what]})"
        assert verdict.warnings == ([told] if what == "transformers" else [])


def test_other_hardware_is_worth_a_word_only_where_nothing_was_measured() -> None:
    odd = {**ALIKE, "cpu": "B"}
    assert judged({"a": said(), "b": said(fingerprint=odd)}).warnings == []
    unknown = judged({"a": said(canary=""), "b": said(fingerprint=odd, canary="")})
    assert unknown.warnings == ["cpu differs (a: A; b: B)"]
    assert unknown.groups == (("a", "b"),)


def test_machines_that_compute_otherwise_are_left_out_only_where_that_is_wanted() -> None:
    reports = {"a": said(canary="bb"), "b": said(), "c": said(), "d": said(canary="")}
    verdict = judged(reports)
    assert verdict.groups == (("b", "c"), ("a",), ("d",))
    assert verdict.chosen == ("a", "b", "c", "d")
    assert "(b, c | a | d)" in verdict.warnings[0]
    strict = judged(reports, same_numbers=True)
    assert strict.chosen == ("b", "c")
    assert strict.refused == {}
    assert "only b, c take part" in strict.warnings[0]


def test_of_two_groups_of_a_size_the_first_by_name_goes() -> None:
    verdict = judged({"b": said(), "a": said(canary="zz")}, same_numbers=True)
    assert verdict.chosen == ("a",)


def test_the_node_that_most_others_can_not_reach_is_refused() -> None:
    reports = {
        "a": said(links=(link("b"), link("c", ok=False))),
        "b": said(links=(link("a"), link("c", ok=False))),
        "c": said(links=(link("a"), link("b"))),
    }
    verdict = judged(reports)
    assert verdict.chosen == ("a", "b")
    why, hint = verdict.refused["c"]
    assert why == "a can't reach it at 10.0.0.99:29500 (nor can b): no answer within 2 s"
    assert "open TCP port 29500 for the fleet on c" in hint
    assert "--address" in hint


def test_a_node_that_reaches_nobody() -> None:
    reports = {
        "a": said(links=(link("b", ok=False), link("c", ok=False))),
        "b": said(links=(link("a"), link("c"))),
        "c": said(links=(link("a"), link("b"))),
    }
    verdict = judged(reports)
    assert set(verdict.refused) == {"a"}
    assert verdict.refused["a"][0].startswith("it can't reach b at 10.0.0.98:29500")


def test_of_a_pair_the_one_behind_the_firewall_is_refused() -> None:
    reports = {"a": said(links=(link("b"),)), "b": said(links=(link("a", ok=False),))}
    assert judged(reports).chosen == ("b",)


def test_links_to_nodes_that_do_not_take_part_do_not_matter() -> None:
    reports = {
        "a": said(links=(link("b", ok=False),)),
        "b": said(refusal="no room", links=(link("a", ok=False),)),
    }
    assert judged(reports).chosen == ("a",)


def test_a_slow_link_and_a_wrong_clock_are_named() -> None:
    reports = {
        "a": said(links=(link("b"), link("c")), time=NOW + 7),
        "b": said(links=(link("a"), link("c", speed=2e6)), time=NOW - 3),
        "c": said(links=(link("a"), link("b")), time=NOW - 3600),
    }
    warnings = judged(reports).warnings
    assert [text.partition(":")[0] for text in warnings] == [
        "the clock of a is 7 s ahead of the coordinator's",
        "the clock of c is 3600 s behind the coordinator's",
        "the link from b to c is slow",
    ]


def test_a_round_is_done_when_nobody_is_left_to_wait_for() -> None:
    round_ = Round(2, ["a", "b", "c"])
    assert round_.take("a", said(), NOW)
    assert not round_.take("x", said())
    assert not round_.take("b", PreflightReport(job_id="j", generation=1))
    assert (round_.missing, round_.done) == (("b", "c"), False)
    round_.lost("b")
    assert round_.take("c", said())
    assert (round_.missing, round_.done) == (("b",), True)
    assert round_.received_at == {"a": NOW}


NODES = "abcde"
REPORTS = st.dictionaries(
    st.sampled_from(NODES),
    st.builds(
        said,
        refusal=st.sampled_from(["", "", "", "no room"]),
        canary=st.sampled_from(["", "aa", "bb"]),
        fingerprint=st.fixed_dictionaries(
            {"python": st.sampled_from(["3.11.1", "3.12.1"]), "torch": st.just("2.13.0")}
        ),
        links=st.lists(st.builds(link, st.sampled_from(NODES), ok=st.booleans()), max_size=4).map(
            tuple
        ),
    ),
)


@given(REPORTS, st.sets(st.sampled_from(NODES)), st.booleans())
def test_every_node_is_chosen_or_has_a_reason(
    reports: dict[str, PreflightReport], missing: set[str], same_numbers: bool
) -> None:
    verdict = judged(reports, same_numbers=same_numbers, missing=tuple(missing))
    there = {node for group in verdict.groups for node in group}
    assert there | set(verdict.refused) == set(reports) | missing
    assert not there & set(verdict.refused)
    assert set(verdict.chosen) == (set(verdict.groups[0]) if same_numbers and there else there)
    assert all(
        (why and hint) or reports[node].refusal for node, (why, hint) in verdict.refused.items()
    )
    for node in there:
        assert not reports[node].refusal
        assert all(one.ok for one in reports[node].links if one.node in there - {node})
    assert len({reports[node].fingerprint["python"] for node in there}) <= 1
    assert [len(group) for group in verdict.groups] == sorted(
        (len(group) for group in verdict.groups), reverse=True
    )
    assert judged(dict(reversed(reports.items())), same_numbers=same_numbers).groups == (
        judged(reports, same_numbers=same_numbers).groups
    )
