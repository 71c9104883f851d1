from __future__ import annotations

from llamaforge.monitor.events import Events, read


def test_an_event_holds_when_what_and_its_fields(tmp_path):
    path = tmp_path / "events.jsonl"
    with Events(path, clock=lambda: 12.34567) as events:
        events.add("checkpoint", "Saved step 4.", step=4, kind_of="full")
    assert read(path) == [
        {
            "time": 12.346,
            "kind": "checkpoint",
            "text": "Saved step 4.",
            "step": 4,
            "kind_of": "full",
        }
    ]


def test_fields_from_a_peer_cannot_pose_as_time(tmp_path):
    with Events(tmp_path / "e.jsonl", clock=lambda: 1.0) as events:
        events.add("note", "text", time=99.0)
    assert read(tmp_path / "e.jsonl")[0]["time"] == 1.0


def test_events_before_a_restart_stay(tmp_path):
    path = tmp_path / "events.jsonl"
    for text in ("first", "second"):
        with Events(path) as events:
            events.add("note", text)
    assert [line["text"] for line in read(path)] == ["first", "second"]
