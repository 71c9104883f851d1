"""The worker's settings file: strict about names, clear about lines."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.errors import SpecError
from llamaforge.spec.fleet import CoordinatorSettings, WorkerSettings, variables, worker_settings
from llamaforge.spec.settings_file import SettingsFile, parse, read

KNOWN = list(variables(WorkerSettings).values())


def test_settings_and_exports_are_kept_apart() -> None:
    file = parse(
        "# a comment\n\n MASTER_ADDR = 10.0.0.1 # the GPU box\nexport NCCL_DEBUG=INFO\n"
        'HF_HOME="/mnt/big disk #2"\n',
        "worker.conf",
        KNOWN,
    )
    assert file.values == {"MASTER_ADDR": "10.0.0.1", "HF_HOME": "/mnt/big disk #2"}
    assert file.exports == {"NCCL_DEBUG": "INFO"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("MASTER_ADRR=x", "did you mean MASTER_ADDR?"),
        ("GLOO_SOCKET_IFNAME=eth0", "export GLOO_SOCKET_IFNAME="),
        ("just words", "is not NAME=value"),
        ("2X=1", "is not NAME=value"),
        ('HF_HOME="/mnt', "is not closed"),
        ("HF_HOME=/a\nHF_HOME=/b", "is set twice"),
    ],
)
def test_a_wrong_line_is_named(line: str, said: str) -> None:
    with pytest.raises(SpecError) as error:
        parse(f"# first\n{line}\n", "worker.conf", KNOWN)
    assert "worker.conf:" in error.value.message
    assert said in str(error.value)


def test_a_coordinators_file_has_no_ranks_to_export_to() -> None:
    known = list(variables(CoordinatorSettings).values())
    read_ = parse("LLAMAFORGE_PORT=1\n", "c", known, "coordinator")
    assert read_.values == {"LLAMAFORGE_PORT": "1"}
    with pytest.raises(SpecError, match="the coordinator has no ranks"):
        parse("export NCCL_DEBUG=INFO\n", "c", known, "coordinator")
    with pytest.raises(SpecError, match="not a setting of the coordinator") as error:
        parse("LLAMAFORGE_PROT=1\n", "c", known, "coordinator")
    assert "did you mean LLAMAFORGE_PORT?" in error.value.hint


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with suppress(SpecError):
        assert set(parse(text, "worker.conf", KNOWN).values) <= set(KNOWN)


@given(st.sampled_from(KNOWN), st.text(st.characters(blacklist_categories=("C", "Z")), min_size=1))
def test_a_quoted_value_comes_back_as_it_is(name: str, value: str) -> None:
    if '"' not in value:
        assert parse(f'{name}="{value}"', "f", KNOWN).values == {name: value}


def test_flag_beats_environment_beats_file_beats_default() -> None:
    file = SettingsFile(path="f", values={"MASTER_PORT": "3"})
    assert worker_settings({}, {}).master_port == 29500
    assert worker_settings({}, {}, file).master_port == 3
    assert worker_settings({}, {"MASTER_PORT": "2"}, file).master_port == 2
    assert worker_settings({"master_port": 1}, {"MASTER_PORT": "2"}, file).master_port == 1


def test_a_bad_value_is_named_with_its_file() -> None:
    file = SettingsFile(path="/etc/llamaforge/worker.conf", values={"WORLD_SIZE": "two"})
    with pytest.raises(SpecError, match=r"WORLD_SIZE in /etc/llamaforge/worker.conf is 'two'"):
        worker_settings({}, {}, file)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    for content in (b"\xff\xfe", b"#" * (2 << 20), b"export A=b\0c\n"):
        (tmp_path / "f").write_bytes(content)
        with pytest.raises(SpecError):
            read(tmp_path / "f", KNOWN)
    with pytest.raises(SpecError, match="No such file"):
        read(tmp_path / "missing", KNOWN)


def test_systemd_gives_folders_and_the_token(tmp_path: Path) -> None:
    environ = {
        "STATE_DIRECTORY": "/var/lib/llamaforge:/var/lib/other",
        "CACHE_DIRECTORY": "/var/cache/llamaforge",
        "CREDENTIALS_DIRECTORY": str(tmp_path),
    }
    (tmp_path / "token").write_text("\n")
    settings = worker_settings({}, environ)
    assert settings.state_dir == "/var/lib/llamaforge"
    assert settings.cache_dir == "/var/cache/llamaforge"
    assert settings.token_file is None, "an empty credential is the unit's default for none"
    (tmp_path / "token").write_text("secret")
    assert worker_settings({}, environ).token_file == str(tmp_path / "token")
    assert worker_settings({"state_dir": "/x"}, environ).state_dir == "/x"
