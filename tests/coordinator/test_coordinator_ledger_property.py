"""The ledger against a model: random work, a disk that fails anywhere, crashes at any moment."""

from __future__ import annotations

import copy
import errno
import os
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llamaforge.coordinator.ledger import DurableFile, Ledger, writer
from llamaforge.spec.states import JOB_MOVES, JobState

FILES = st.sampled_from(["a", "deep/b", "c"])
JOBS = st.sampled_from(["j1", "j2", "j3"])


@dataclass
class Model:
    """What the ledger should hold."""

    events: list[tuple[str, str]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, str] = field(default_factory=dict)


class LedgerMachine(RuleBasedStateMachine):
    """`history` has the model after each operation since the last time all was durable."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.model = Model()
        self.history: list[Model] = []
        self._open()

    def teardown(self) -> None:
        self.ledger.close(flush=False)
        shutil.rmtree(self.folder)

    def _open(self) -> None:
        with mock.patch("llamaforge.coordinator.ledger.backup.save"):
            self.ledger = Ledger.open(self.folder / "ledger.db")
        self.ledger._writer._save = lambda: None  # type: ignore[method-assign]
        self.open: dict[str, DurableFile] = {}
        self.history = [copy.deepcopy(self.model)]

    def _done(self) -> None:
        self.history.append(copy.deepcopy(self.model))

    def _event(self, subject: str, what: str) -> None:
        self.model.events.append((subject, what))

    def _file(self, name: str) -> DurableFile:
        if name not in self.open:
            self.open[name] = self.ledger.file(self.folder / name)
        return self.open[name]

    # ── work ──────────────────────────────────────────────────────────────────────────────────

    @rule(subject=JOBS, what=st.sampled_from(["x", "y"]))
    def event(self, subject: str, what: str) -> None:
        event = self.ledger.event("node", subject, what)
        self._event(subject, what)
        assert event.number == len(self.model.events)
        self._done()

    @rule(name=FILES, data=st.binary(min_size=1, max_size=9))
    def append(self, name: str, data: bytes) -> None:
        file = self._file(name)
        file.append(data)
        self.model.files[name] = self.model.files.get(name, b"") + data
        assert file.size == len(self.model.files[name])
        self._done()

    @precondition(lambda self: any(self.model.files.values()))
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(n for n, c in self.model.files.items() if c)))
        size = data.draw(st.integers(0, len(self.model.files[name])))
        self._file(name).truncate(size)
        self.model.files[name] = self.model.files[name][:size]
        self._done()

    @precondition(lambda self: self.model.files)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.files)))
        self._file(name).remove()
        del self.open[name], self.model.files[name]
        self._done()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def close_file(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.open)))
        self.open.pop(name).close()

    @rule(name=JOBS, old=st.sampled_from(JobState), new=st.sampled_from(JobState))
    def job(self, name: str, old: JobState, new: JobState) -> None:
        """Adds a job, or moves it from where it is (often) or from elsewhere (a mistake)."""
        present = self.model.jobs.get(name)
        if present is None:
            self.ledger.jobs.add(name, key="k", submission=b"", submitter="local:a", reason="")
            self.model.jobs[name] = "queued"
            self._event(name, "queued")
        elif old.value == present and (new is old or new in JOB_MOVES[old]):
            self.ledger.jobs.move(name, old, new, "because")
            self.model.jobs[name] = new.value
            self._event(name, new.value)
        else:
            with pytest.raises(ValueError, match="can't"):
                self.ledger.jobs.move(name, old, new, "because")
        self._done()

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data())
    def legal_move(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.jobs)))
        old = JobState(self.model.jobs[name])
        if old.final:
            self.ledger.jobs.remove(name)
            del self.model.jobs[name]
        else:
            new = data.draw(st.sampled_from(sorted(JOB_MOVES[old], key=lambda s: s.value)))
            self.ledger.jobs.move(name, old, new, "because")
            self.model.jobs[name] = new.value
            self._event(name, new.value)
        self._done()

    # ── the disk ──────────────────────────────────────────────────────────────────────────────

    @rule()
    def flush(self) -> None:
        self.ledger.flush()
        self.history = [copy.deepcopy(self.model)]

    @rule(commits=st.integers(0, 2), torn=st.booleans())
    def failing_flush(self, commits: int, torn: bool) -> None:
        """The disk takes some batches, then refuses, perhaps with half of the bytes written."""
        left, transaction = commits, self.ledger._writer._transaction

        def limited(batch: writer.Batch) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise sqlite3.OperationalError("database or disk is full")
            transaction(batch)

        def half(handle: int, change: Any) -> None:
            os.pwrite(handle, bytes(change.data[: len(change.data) // 2]) + b"!", change.offset)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        tear = mock.patch.object(writer, "_write_all", half) if torn else mock.MagicMock()
        with mock.patch.object(self.ledger._writer, "_transaction", limited), tear:
            try:
                self.ledger.flush()
            except OSError:
                assert self.ledger.trouble
            else:
                self.history = [copy.deepcopy(self.model)]

    @rule()
    def crash(self) -> None:
        """Whatever is there afterwards is what had been there after one of the operations."""
        self.ledger.close(flush=False)
        self._open_and_look()

    @rule()
    def restart(self) -> None:
        self.ledger.close()
        self.history = [copy.deepcopy(self.model)]
        self._open_and_look()

    def _open_and_look(self) -> None:
        possible = self.history
        self.model = Model()
        self._open()
        read = self.ledger.read
        numbers = [number for (number,) in read("SELECT number FROM events ORDER BY number")]
        assert numbers == list(range(1, len(numbers) + 1)), "no gap"
        self.model.events = [(e.subject, e.what) for e in self.ledger.events(limit=10**6)]
        self.model.jobs = dict(read("SELECT id, state FROM jobs"))
        for name, size in read("SELECT path, size FROM files"):
            file = self._file(name)
            assert file.size == file.durable == size
            self.model.files[name] = file.path.read_bytes() if size else b""
            assert len(self.model.files[name]) == size, "cut to what is durable"
        assert self.model in possible
        self.history = [copy.deepcopy(self.model)]

    @invariant()
    def readers_see_only_what_is_durable(self) -> None:
        for name, file in self.open.items():
            if file.durable:
                present = file.path.read_bytes()[: file.durable]
                assert present == self.model.files[name][: file.durable]


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
