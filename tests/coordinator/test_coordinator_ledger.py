"""The ledger: what was settled is there after any end, and nothing else."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from llamaforge.coordinator.ledger import Ledger, backup, schema, writer
from llamaforge.errors import IntegrityError, Occupied, UserError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.db"


async def test_what_was_settled_is_there_again(path: Path) -> None:
    ledger = Ledger.open(path)
    ledger.write("INSERT INTO meta VALUES (?, ?)", "fleet", "f1")
    ledger.event("node", "box1", "ready", "joined", by="person:anna", cores=4)
    file = ledger.file(path.parent / "jobs" / "j" / "stream")
    file.append(b"one\n")
    assert ledger.events() == []
    assert file.durable == 0
    await ledger.settled()
    file.append(b"lost\n")
    ledger.write("INSERT INTO meta VALUES ('never', 1)")
    ledger.event("node", "box1", "lost")
    ledger.close(flush=False)

    again = Ledger.open(path)
    assert again.read("SELECT * FROM meta") == [("fleet", "f1")]
    (event,) = again.events()
    assert (event.number, event.by, event.fields) == (1, "person:anna", {"cores": 4})
    file = again.file(path.parent / "jobs" / "j" / "stream")
    assert (file.size, file.durable, file.path.read_bytes()) == (4, 4, b"one\n")
    assert again.event("node", "box1", "lost").number == 2
    again.close()


async def test_rows_are_written_soon_even_if_nobody_waits(path: Path) -> None:
    ledger = Ledger.open(path)
    ledger.event("coordinator", "", "started")
    for _ in range(500):
        if ledger.last_event:
            break
        await asyncio.sleep(0.01)
    assert ledger.last_event == 1
    ledger.close()


async def test_many_callers_share_a_commit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger.open(path)
    batches: list[writer.Batch] = []
    submit = ledger._writer.submit

    def counted(batch: writer.Batch):
        batches.append(batch)
        return submit(batch)

    monkeypatch.setattr(ledger._writer, "submit", counted)

    async def caller(number: int) -> None:
        ledger.event("job", f"j{number}", "queued")
        await ledger.settled()
        assert ledger.last_event > 0

    await asyncio.gather(*(caller(number) for number in range(200)))
    assert len(batches) <= 2
    assert len(ledger.events()) == 200
    ledger.close()


def test_events_are_found_by_kind_subject_and_number(path: Path) -> None:
    ledger = Ledger.open(path)
    for number in range(6):
        ledger.event(("job", "node")[number % 2], f"s{number % 3}", "x")
    ledger.flush()
    assert [event.number for event in ledger.events(after=4)] == [5, 6]
    assert [event.number for event in ledger.events(kind="job")] == [1, 3, 5]
    assert [event.number for event in ledger.events(kind="node", subject="s0")] == [4]
    assert [event.number for event in ledger.events(limit=2)] == [1, 2]
    ledger.close()


def test_reading_sees_what_is_queued_and_looking_does_not(path: Path) -> None:
    ledger = Ledger.open(path)
    ledger.write("INSERT INTO meta VALUES ('a', 1)")
    assert ledger.look("SELECT value FROM meta WHERE key = ?", "a") == []
    assert ledger.read("SELECT value FROM meta WHERE key = ?", "a") == [(1,)]
    assert ledger.look("SELECT value FROM meta WHERE key = ?", "a") == [(1,)]
    ledger.close()


# ── files ─────────────────────────────────────────────────────────────────────────────────────


def test_a_file_is_cut_and_goes_on(path: Path) -> None:
    ledger = Ledger.open(path)
    file = ledger.file(path.parent / "metrics")
    file.append(b"12345678")
    ledger.flush()
    file.append(b"9")
    file.truncate(4)
    assert (file.size, file.durable) == (4, 4)
    file.append(b"abc")
    ledger.flush()
    assert file.path.read_bytes() == b"1234abc"
    assert file.durable == 7
    with pytest.raises(ValueError, match="can't be cut to 9"):
        file.truncate(9)
    ledger.close()


def test_a_removed_file_begins_anew(path: Path) -> None:
    ledger = Ledger.open(path)
    file = ledger.file(path.parent / "a")
    file.append(b"old")
    ledger.flush()
    with file.path.open("rb") as reader:
        file.remove()
        assert file.path.exists(), "not before the commit"
        new = ledger.file(path.parent / "a")
        assert new.size == 0
        new.append(b"n")
        ledger.flush()
        assert reader.read() == b"old"
    assert new.path.read_bytes() == b"n"
    new.remove()
    ledger.flush()
    assert not new.path.exists()
    assert ledger.read("SELECT * FROM files") == []
    ledger.close()


def test_a_closed_file_is_still_written_and_opens_again(path: Path) -> None:
    ledger = Ledger.open(path)
    file = ledger.file(path.parent / "a")
    file.append(b"x")
    file.close()
    assert ledger.file(path.parent / "a") is file
    file.close()
    ledger.flush()
    again = ledger.file(path.parent / "a")
    assert again is not file
    assert (again.size, again.path.read_bytes()) == (1, b"x")
    ledger.close()


def test_a_file_that_lost_bytes_is_refused(path: Path) -> None:
    ledger = Ledger.open(path)
    ledger.file(path.parent / "a").append(b"12345")
    ledger.close()
    (path.parent / "a").write_bytes(b"123")
    again = Ledger.open(path)
    with pytest.raises(IntegrityError, match="has 3 bytes, and 5 had been written"):
        again.file(path.parent / "a")
    again.close()


def test_a_file_that_somebody_deletes_does_not_hold_up_the_rest(path: Path) -> None:
    ledger = Ledger.open(path)
    file = ledger.file(path.parent / "a")
    file.append(b"12345")
    ledger.flush()
    file.path.unlink()
    file.append(b"6")
    ledger.event("job", "j", "queued")
    ledger.flush()
    assert "has been deleted" in file.lost
    assert ledger.last_event == 1
    ledger.close()


def test_the_state_folder_can_be_moved(path: Path, tmp_path: Path) -> None:
    ledger = Ledger.open(path)
    ledger.file(path.parent / "jobs" / "a").append(b"12")
    ledger.close()
    shutil.move(path.parent, tmp_path / "moved")
    again = Ledger.open(tmp_path / "moved" / "ledger.db")
    assert again.file(tmp_path / "moved" / "jobs" / "a").size == 2
    again.close()


# ── a disk that refuses ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["pwrite", "fsync", "open"])
async def test_a_refusing_disk_loses_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    ledger = Ledger.open(path)
    file = ledger.file(path.parent / "a")
    file.append(b"first")
    await ledger.settled()

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as broken:
        broken.setattr(writer.os, call, refuse)
        file.append(b" second")
        ledger.event("job", "j", "queued")
        for _ in range(2):
            with pytest.raises(OSError, match=os.strerror(number)):
                await ledger.settled()
        assert os.strerror(number) in ledger.trouble
        assert (ledger.events(), file.durable) == ([], 5)
    file.append(b" third")
    await ledger.settled()
    assert ledger.trouble == ""
    assert file.path.read_bytes() == b"first second third"
    assert [event.number for event in ledger.events()] == [1]
    ledger.close()


async def test_a_full_database_loses_nothing(path: Path) -> None:
    ledger = Ledger.open(path)
    connection = ledger._writer._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    ledger.write("INSERT INTO meta VALUES ('big', ?)", bytes(100_000))
    ledger.event("job", "j", "queued")
    with pytest.raises(OSError, match="No space left") as error:
        await ledger.settled()
    assert error.value.errno == errno.ENOSPC
    assert ledger.events() == []
    connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
    await ledger.settled()
    assert len(ledger.read("SELECT * FROM meta")) == 1
    ledger.close()


async def test_a_disk_that_gets_better_is_noticed_without_being_asked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamaforge.coordinator.ledger.queue.RETRY", 0.01)
    ledger = Ledger.open(path)
    commit, tries = ledger._writer._transaction, []

    def sometimes(batch: writer.Batch) -> None:
        tries.append(batch)
        if len(tries) < 4:
            raise sqlite3.OperationalError("disk I/O error")
        commit(batch)

    monkeypatch.setattr(ledger._writer, "_transaction", sometimes)
    ledger.event("job", "j", "queued")
    with pytest.raises(OSError, match="Input/output error"):
        await ledger.settled()
    for _ in range(500):
        if ledger.last_event:
            break
        await asyncio.sleep(0.01)
    assert (ledger.last_event, ledger.trouble) == (1, "")
    ledger.close()


async def test_a_mistake_is_not_tried_again(path: Path) -> None:
    ledger = Ledger.open(path)
    ledger.write("INSERT INTO nowhere VALUES (1)")
    for _ in range(2):
        with pytest.raises(sqlite3.Error, match="nowhere"):
            await ledger.settled()
    assert "nowhere" in ledger.trouble
    ledger.close(flush=False)


async def test_who_stops_waiting_disturbs_nobody(path: Path) -> None:
    ledger = Ledger.open(path)
    ledger.event("job", "j", "queued")
    waiting = [asyncio.ensure_future(ledger.settled()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.gather(waiting[0], waiting[2])
    assert ledger.last_event == 1
    ledger.close()


# ── opening ───────────────────────────────────────────────────────────────────────────────────


def test_nobody_else_can_read_it_or_open_it_twice(path: Path) -> None:
    ledger = Ledger.open(path)
    ledger.event("a", "b", "c")
    ledger.file(path.parent / "f").append(b"x")
    ledger.flush()
    for file in path.parent.rglob("*"):
        assert file.stat().st_mode & 0o077 == 0, file
    with pytest.raises(Occupied, match=f"another coordinator \\(process {os.getpid()}\\)"):
        Ledger.open(path)
    ledger.close()
    Ledger.open(path).close()


def test_a_newer_schema_is_refused_with_both_versions(path: Path) -> None:
    Ledger.open(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {schema.VERSION + 3}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(UserError) as error:
        Ledger.open(path)
    assert f"has schema {schema.VERSION + 3}" in error.value.message
    assert f"schemas up to {schema.VERSION}" in error.value.message
    assert path.read_bytes() == before


def test_a_damaged_database_is_refused_and_its_copy_opens(path: Path) -> None:
    ledger = Ledger.open(path)
    for number in range(300):
        ledger.event("job", f"j{number}", "queued", "x" * 200)
    ledger.flush()
    ledger.close()
    copy = backup.newest(path)
    assert copy is not None
    content = bytearray(path.read_bytes())
    content[4096:20000] = bytes(20000 - 4096)
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged") as error:
        Ledger.open(path)
    assert str(copy) in error.value.hint
    subprocess.run(["bash", "-c", error.value.hint.partition(": ")[2]], check=True)
    again = Ledger.open(path)
    assert len(again.events()) == 300
    again.close()


def test_something_else_is_not_taken_for_a_ledger(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("my shopping list " * 500)
    with pytest.raises(UserError, match="is damaged: file is not a database"):
        Ledger.open(path)


def test_a_migration_is_all_or_nothing(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    schema.migrate(connection)
    more = (*schema.MIGRATIONS, ("CREATE TABLE more (x)", "CREATE TABLE more (x)"))
    with pytest.raises(sqlite3.OperationalError):
        schema.migrate(connection, more)
    assert schema.version_of(connection) == schema.VERSION
    assert "more" not in {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    schema.migrate(connection, (*more[:-1], ("CREATE TABLE more (x)",)))
    assert schema.version_of(connection) == schema.VERSION + 1
    connection.close()


def test_an_older_database_is_copied_before_it_is_migrated(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ledger.open(path).close()
    more = (*schema.MIGRATIONS, ("CREATE TABLE more (x)",))
    monkeypatch.setattr(schema, "MIGRATIONS", more)
    monkeypatch.setattr(schema, "VERSION", len(more))
    monkeypatch.setattr(schema.migrate, "__defaults__", (more,))
    ledger = Ledger.open(path)
    assert ledger.read("SELECT * FROM more") == []
    ledger.close()
    copy = sqlite3.connect(path.parent / "backups" / f"ledger-before-schema-{len(more)}.db")
    assert schema.version_of(copy) == len(more) - 1
    copy.close()


def test_copies_of_old_days_are_dropped(path: Path) -> None:
    ledger = Ledger.open(path)
    for day in range(1, 13):
        backup.save(ledger._writer._connection, path, f"ledger-2026-01-{day:02}.db")
    names = sorted(file.name for file in backup.folder_of(path).iterdir())
    assert len(names) == backup.KEPT
    assert names[-1] == "ledger-2026-01-12.db"
    ledger.close()


# ── kill -9 ───────────────────────────────────────────────────────────────────────────────────

CHILD = """
import asyncio, random, sys
from pathlib import Path
from llamaforge.coordinator.ledger import Ledger

async def main(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    ledger = Ledger.open(folder / "ledger.db")
    files = [ledger.file(folder / "files" / str(n)) for n in range(3)]
    number = ledger.last_event
    while True:
        for _ in range(chance.randrange(1, 6)):
            number = ledger.event("job", "j", "x").number
            for file in files:
                file.append(number.to_bytes(4, "big"))
        await ledger.settled()
        print(number, flush=True)

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


def test_kill_at_any_moment(tmp_path: Path) -> None:
    """Rows and files agree after each SIGKILL, and hold all that had been settled."""
    program = textwrap.dedent(CHILD)
    for round_ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), str(round_)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        for _ in range(3 + 7 * round_):
            line = child.stdout.readline()
        child.kill()
        said = int((child.stdout.read().split("\n")[:-1] or [line])[-1])
        child.wait()
        ledger = Ledger.open(tmp_path / "ledger.db")
        numbers = [row[0] for row in ledger.read("SELECT number FROM events ORDER BY number")]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) >= said
        for name in range(3):
            file = ledger.file(tmp_path / "files" / str(name))
            content = file.path.read_bytes()
            read = [int.from_bytes(content[i : i + 4], "big") for i in range(0, len(content), 4)]
            assert read == numbers
        ledger.close()
