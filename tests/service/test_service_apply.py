"""Carrying plans out: edited files stay, errors leave nothing half-done, removal leaves nothing."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_machine import FACTS, FakeMachine

from llamaforge.errors import LlamaForgeError, UserError
from llamaforge.service import manifest, removal, show
from llamaforge.service.apply import Act, Prepared, apply, decide, prepare
from llamaforge.service.manifest import digest
from llamaforge.service.places import in_home, on_machine
from llamaforge.service.plan import Facts, make
from llamaforge.service.request import Request

PLACES = on_machine()
DROPIN = "/etc/systemd/system/llamaforge-worker.service.d/50-install.conf"

texts = st.none() | st.sampled_from(["a", "b", "c"])


@given(wanted=texts, there=texts, recorded=texts)
def test_a_file_that_is_not_ours_is_never_overwritten_or_removed(wanted, there, recorded):
    act = decide(wanted, there, None if recorded is None else digest(recorded))
    ours = there is None or there == recorded
    if act in (Act.WRITE, Act.REMOVE):
        assert ours
    if act is Act.SAME:
        assert there == wanted
    if act in (Act.KEEP, Act.ASIDE, Act.LEAVE):
        assert not ours
    if wanted is not None and ours and there != wanted:
        assert act is Act.WRITE


@given(wanted=st.sampled_from("abc"), there=texts, recorded=texts)
def test_asking_again_has_nothing_to_write(wanted, there, recorded):
    first = decide(wanted, there, None if recorded is None else digest(recorded))
    then = wanted if first in (Act.WRITE, Act.SAME) else there
    assert decide(wanted, then, digest(wanted)) in (Act.SAME, Act.KEEP)


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path)


def prepared(machine: FakeMachine, request: Request, token: str | None = None) -> Prepared:
    before = manifest.read(machine.at(PLACES.manifest))
    plan = make(request, FACTS, PLACES, token=token)
    return prepare(plan, before, FACTS, PLACES, machine)


def install(machine: FakeMachine, token: str | None = None, **request: object) -> list[str]:
    ready = prepared(machine, Request(**request), token)  # type: ignore[arg-type]
    apply(ready, machine)
    return list(show.lines(ready))


def acts(machine: FakeMachine, **request: object) -> set[Act]:
    ready = prepared(machine, Request(**request))  # type: ignore[arg-type]
    return {step.act for step in ready.steps}


def test_installed_once_there_is_nothing_more_to_do(machine):
    said = install(machine, token="t", memory="8G")
    assert any(DROPIN in line for line in said)
    assert machine.at("/etc/llamaforge/token").stat().st_mode & 0o777 == 0o600
    assert acts(machine, memory="8G") == {Act.SAME}
    assert not prepared(machine, Request(memory="8G")).changes
    before = machine.everything()
    assert install(machine, memory="8G") == []
    assert machine.everything() == before  # the token stays although it was not given again


def test_an_edited_file_is_kept_and_ours_stands_beside_it(machine):
    install(machine, memory="8G")
    machine.at(DROPIN).write_text("mine")
    assert install(machine, memory="8G") == [f"kept {DROPIN}: somebody edited it"]
    said = install(machine, memory="9G")
    assert machine.read(DROPIN) == "mine"
    assert "MemoryMax=9G" in (machine.read(DROPIN + ".new") or "")
    assert DROPIN + ".new" in said[0]
    install(machine, memory="9G")
    assert machine.read(DROPIN + ".new") is not None  # until it is merged
    machine.at(DROPIN).write_text(machine.read(DROPIN + ".new"))
    install(machine, memory="9G")
    assert machine.read(DROPIN + ".new") is None


def test_what_is_no_longer_needed_goes(machine):
    install(machine, memory="8G", mail_to="a@b")
    assert machine.read("/usr/local/libexec/llamaforge/mail") is not None
    said = install(machine, memory="8G")
    assert machine.read("/usr/local/libexec/llamaforge/mail") is None
    assert any("mail" in line and line.startswith("removed") for line in said)


@pytest.mark.parametrize("broken", ["systemd-sysusers", "daemon-reload", "enable"])
def test_an_error_leaves_nothing_half_done(machine, broken):
    before = machine.everything()
    machine.fails = {broken}
    with pytest.raises(LlamaForgeError, match="it broke"):
        install(machine, token="t", memory="8G")
    assert machine.everything() == before


def test_an_error_on_an_update_restores_what_was_there(machine):
    install(machine, memory="8G", nice="3")
    machine.at(DROPIN).chmod(0o640)
    before = machine.everything()
    machine.fails = {"daemon-reload"}
    with pytest.raises(LlamaForgeError):
        install(machine, memory="9G", mail_to="a@b")
    assert machine.everything() == before


def test_a_full_disk_leaves_nothing_half_done(machine, monkeypatch):
    before = machine.everything()
    write = FakeMachine.write

    def full(self: FakeMachine, path: str, content: str, mode: int) -> None:
        if path.endswith("worker.conf"):
            raise OSError(28, "No space left on device")
        write(self, path, content, mode)

    monkeypatch.setattr(FakeMachine, "write", full)
    with pytest.raises(OSError, match="No space"):
        install(machine)
    assert machine.everything() == before


class Cut(BaseException):
    """A SIGKILL or a power cut: nothing is done any more, not even taking back."""


class CutMachine(FakeMachine):
    """A machine that is cut off before its nth change."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.left = 10_000

    def _change(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Cut

    def write(self, path: str, content: str, mode: int) -> None:
        self._change()
        super().write(path, content, mode)

    def remove(self, path: str) -> bool:
        self._change()
        return super().remove(path)

    def make_folders(self, folder: str, mode: int = 0o755) -> list[str]:
        self._change()
        return super().make_folders(folder, mode)

    def remove_folder(self, path: str) -> bool:
        self._change()
        return super().remove_folder(path)


@pytest.mark.parametrize("changes", range(0, 24, 4))
@pytest.mark.parametrize("updating", [False, True])
def test_cut_off_anywhere_it_can_be_asked_again_or_removed(tmp_path, changes, updating):
    machine = CutMachine(tmp_path)
    before = machine.everything()
    if updating:
        install(machine, memory="7G", mail_to="a@b")
    machine.left = changes
    with contextlib.suppress(Cut):
        install(machine, token="t", memory="8G", env={"A": "b"})
        install(machine, memory="7G", mail_to="a@b")
    machine.left = 10_000
    said = install(machine, memory="9G")
    assert not [line for line in said if "somebody edited" in line]
    assert "MemoryMax=9G" in (machine.read(DROPIN) or "")
    assert remove(machine, purge=True) == []
    assert machine.everything() == before


@pytest.mark.parametrize("changes", range(0, 12, 2))
def test_a_cut_off_installation_is_removed_whole(tmp_path, changes):
    machine = CutMachine(tmp_path)
    before = machine.everything()
    machine.left = changes
    with pytest.raises(Cut):
        install(machine, token="t", memory="8G", env={"A": "b"}, mail_to="a@b")
    machine.left = 10_000
    assert remove(machine, purge=True) == []
    assert machine.everything() == before
    if changes > 1:
        assert "userdel llamaforge" in machine.ran


@pytest.mark.parametrize("changes", range(0, 12, 2))
def test_a_cut_off_removal_is_done_again(tmp_path, changes):
    machine = CutMachine(tmp_path)
    before = machine.everything()
    install(machine, token="t", memory="8G")
    machine.left = changes
    with contextlib.suppress(Cut):
        remove(machine, purge=True)
    machine.left = 10_000
    assert remove(machine, purge=True) == []
    assert machine.everything() == before
    assert "userdel llamaforge" in machine.ran


def test_a_half_written_file_goes_with_the_installation(machine):
    before = machine.everything()
    install(machine, token="t", memory="8G")
    machine.at(DROPIN).with_name(".50-install.conf.ab12_xyz").write_text("half")
    remove(machine, purge=True)
    assert machine.everything() == before


def test_what_can_not_be_taken_back_is_named_and_remembered(machine, monkeypatch):
    machine.fails = {"daemon-reload"}
    monkeypatch.setattr(FakeMachine, "remove", lambda *_: read_only())
    with pytest.raises(LlamaForgeError, match=r"it broke.*not all could be taken back.*Read-only"):
        install(machine, memory="8G")
    monkeypatch.undo()
    machine.fails = set()
    assert not [line for line in install(machine, memory="9G") if "edited" in line]


def read_only() -> bool:
    raise OSError(30, "Read-only file system", "/usr/local/lib/x")


def test_lingering_is_asked_for_once_and_refusal_is_told(machine):
    places = in_home({}, "/home/a")
    facts = Facts(systemd=252, running=True, person="ann")
    machine.fails = {"enable-linger"}
    plan = make(Request(), facts, places)
    told = apply(prepare(plan, manifest.Manifest(), facts, places, machine), machine)
    assert len(told) == 1
    assert "sudo loginctl enable-linger ann" in told[0]
    lingers = Facts(systemd=252, running=True, person="ann", lingers=True)
    assert all(c.words[0] != "loginctl" for c in make(Request(), lingers, places).commands)


def test_without_a_running_systemd_only_files_and_the_link_for_the_next_boot(machine):
    facts = Facts(systemd=252, running=False)
    plan = make(Request(), facts, PLACES)
    apply(prepare(plan, manifest.Manifest(), facts, PLACES, machine), machine)
    assert "systemctl daemon-reload" not in machine.ran
    assert any(line.startswith("systemctl enable") for line in machine.ran)


def remove(machine: FakeMachine, *, purge: bool) -> list[str]:
    before = manifest.read(machine.at(PLACES.manifest))
    plan = removal.plan(before, PLACES, purge=purge)
    return removal.carry_out(plan, PLACES, machine, running=True)


def test_purged_nothing_is_left(machine):
    before = machine.everything()
    install(machine, token="t", memory="8G", env={"A": "b"}, mail_to="a@b")
    machine.at(DROPIN).write_text("mine")
    install(machine, memory="9G", env={"A": "b"}, mail_to="a@b")
    machine.make_folders("/var/lib/llamaforge")
    assert remove(machine, purge=True) == []
    assert machine.everything() == before
    assert "userdel llamaforge" in machine.ran


def test_uninstalled_settings_and_secrets_stay(machine):
    install(machine, token="t", memory="8G", env={"A": "b"})
    remove(machine, purge=False)
    files = {path for path in machine.everything() if machine.at(path).is_file()}
    assert files == {f"etc/llamaforge/{name}" for name in ("worker.conf", "token", "environment")}
    install(machine, token="t", memory="8G", env={"A": "b"})  # they are taken up again


def test_what_a_person_wrote_beside_ours_stays_and_is_named(machine):
    install(machine, memory="8G")
    machine.at(DROPIN).with_name("90-local.conf").write_text("[Service]\nNice=3\n")
    left = remove(machine, purge=True)
    assert len(left) == 1
    assert "llamaforge-worker.service.d" in left[0]


def test_a_service_that_does_not_stop_is_not_removed(machine):
    install(machine)
    before = machine.everything()
    machine.fails = {"stop"}
    with pytest.raises(LlamaForgeError, match="could not be stopped"):
        remove(machine, purge=True)
    assert machine.everything() == before


def test_a_damaged_manifest_is_named(machine):
    install(machine)
    machine.at(PLACES.manifest).write_text("{")
    with pytest.raises(UserError, match="manifest"):
        manifest.read(machine.at(PLACES.manifest))


def test_a_dry_run_shows_changes_and_no_secret(machine):
    ready = prepared(machine, Request(memory="8G", env={"A": "geheim"}), "geheim")
    shown = "\n".join(show.dry_run(ready))
    assert "+MemoryMax=8G" in shown
    assert "systemctl daemon-reload" in shown
    assert "geheim" not in shown + str(show.as_json(ready)["files"])


def test_a_token_that_is_given_goes_over_any_other(machine):
    install(machine, token="old")
    for by_hand in ("by hand\n", "again by hand\n"):  # the second time, "new" is what we wrote last
        machine.write(PLACES.token, by_hand, 0o600)
        install(machine, token="new")
        assert machine.read(PLACES.token) == "new\n"
        assert machine.at(PLACES.token).stat().st_mode & 0o777 == 0o600
    assert machine.read(PLACES.token + ".new") is None
