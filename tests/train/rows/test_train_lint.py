import msgspec
import numpy as np
import pytest

import tiny_tokenizers as tiny
from llamaforge.data.rows import Chat, Row, Text, Turn
from llamaforge.data.scan import Drop, ScanReport
from llamaforge.train.rows.feed import Feed
from llamaforge.train.rows.lint import WARNING, LintReport, lint, of_feed
from llamaforge.train.rows.tokens import Encoder, Tokens


def tokens(trained: str, **facts) -> Tokens:
    """Tokens from a mask such as `..XX`; ids count from 5."""
    mask = np.array([mark == "X" for mark in trained])
    return Tokens(ids=np.arange(5, 5 + len(mask), dtype=np.int32), trained=mask, **facts)


def check(rows: list[Tokens], **options) -> LintReport:
    return lint(rows, **{"begin": 1, "template": "model", "max_length": 8, **options})


def test_shares_are_of_tokens() -> None:
    report = check([tokens("..XX"), tokens("....XX", truncated=True, cut=10)])
    assert report.tokens == 10
    assert report.trained == pytest.approx(0.4)
    assert report.masked == pytest.approx(0.6)
    assert report.truncated == pytest.approx(0.5)
    assert (report.longest, report.mean, report.p99) == (6, 5.0, 6)
    assert not report.sampled


def test_a_sound_dataset_has_no_warnings() -> None:
    report = check([tokens("..XX")] * 10)
    assert report.warnings() == []
    assert not any(line.startswith(WARNING) for line in report.lines())
    assert "all of them" in " ".join(report.lines())


@pytest.mark.parametrize(
    ("rows", "warning"),
    [
        ([tokens("...."), tokens("..X")], "1 of 2 (50.0 %) rows have no trained token"),
        ([tokens("..X", truncated=True, cut=1)], "1 of 1 (100.0 %) rows are cut to 8 tokens"),
        ([tokens("..X", ended=False), tokens("..X")], "end token is trained in 1 of 2 (50.0 %)"),
        ([tokens("..X", last_turn_only=True)], "1 of 1 (100.0 %) rows only the last answer"),
        (
            [Tokens(ids=np.array([1, 1, 7], np.int32), trained=np.array([False, False, True]))],
            "1 of 1 (100.0 %) rows begin with two start tokens",
        ),
    ],
)
def test_every_trouble_has_its_warning(rows: list[Tokens], warning: str) -> None:
    report = check(rows)
    assert len(report.warnings()) == 1
    assert warning in report.warnings()[0]
    assert report.lines()[-1].startswith(WARNING)


def test_a_hundredth_without_an_end_is_tolerated() -> None:
    rows = [tokens("..X")] * 99
    assert check([*rows, tokens("..X", ended=False)]).warnings() == []
    assert len(check([*rows, *[tokens("..X", ended=False)] * 2]).warnings()) == 1


def test_large_datasets_are_sampled_always_alike_and_it_says_so() -> None:
    rows = [tokens("..X" + "X" * (n % 7)) for n in range(3000)]
    one, two = check(rows, limit=100), check(rows, limit=100)
    assert one == two
    assert (one.rows, one.checked, one.sampled) == (3000, 100, True)
    assert "a sample of 100 of them" in " ".join(one.lines())


def test_the_scan_adds_what_was_dropped() -> None:
    scan = ScanReport(
        source="a",
        format="text",
        rows=1,
        dropped=(Drop(reason="empty text", rows=2, first=("a:1", "a:4")),),
        duplicates=3,
        sha256="",
        size=1,
    )
    lines = check([tokens("..X")], scan=scan).lines()
    assert lines[0] == "1 row used, 2 dropped"
    assert "dropped 2: empty text (a:1, a:4)" in lines
    assert "3 rows repeat an earlier one; they are kept" in lines


def test_real_rows_through_a_feed() -> None:
    encoder = Encoder(tiny.llama3_base(), max_length=40)
    rows: list[Row] = [
        Text(line=1, text="Hello"),
        Text(line=2, text="<|begin_of_text|>Hello"),
        Chat(
            line=3,
            turns=(
                Turn(role="user", content="Hello " * 50),
                Turn(role="assistant", content="x"),
            ),
        ),
    ]
    feed = Feed(rows, encoder, folder=None)
    report = of_feed(feed)
    feed.close()
    assert report.template == "default"
    assert (report.rows_doubled_start, report.rows_untrained, report.rows_truncated) == (1, 1, 1)
    assert report.rows_ended == 2
    assert msgspec.json.decode(msgspec.json.encode(report), type=LintReport) == report
