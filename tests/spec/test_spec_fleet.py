"""Settings of workers and coordinators: flag, then environment, then default; and clear errors."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from llamaforge.errors import SpecError
from llamaforge.spec.fleet import (
    CoordinatorSettings,
    WorkerSettings,
    coordinator_settings,
    host_and_port,
    meanings,
    variables,
    worker_settings,
)
from llamaforge.spec.settings_file import SettingsFile


def test_flag_beats_environment_beats_default() -> None:
    assert worker_settings({}, {}).peer_port == 29500
    assert worker_settings({}, {"LLAMAFORGE_PEER_PORT": "1"}).peer_port == 1
    assert worker_settings({"peer_port": 2}, {"LLAMAFORGE_PEER_PORT": "1"}).peer_port == 2
    assert worker_settings({"peer_port": None}, {"LLAMAFORGE_PEER_PORT": "1"}).peer_port == 1


def test_torchruns_variables_are_understood() -> None:
    settings = worker_settings(
        {},
        {
            "MASTER_ADDR": "10.0.0.1",
            "MASTER_PORT": "29501",
            "NODE_RANK": "2",
            "WORLD_SIZE": "3",
            "NPROC_PER_NODE": "4",
            "HF_HOME": "/models",
        },
    )
    assert settings.master_addr == "10.0.0.1"
    assert (settings.master_port, settings.node_rank, settings.world_size) == (29501, 2, 3)
    assert (settings.nproc_per_node, settings.hf_home) == (4, "/models")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MASTER_PORT", "abc"),
        ("MASTER_PORT", "70000"),
        ("WORLD_SIZE", "0"),
        ("NODE_RANK", "-1"),
        ("LLAMAFORGE_NODE_NAME", "a b"),
        ("LLAMAFORGE_STOP_SECONDS", "soon"),
        ("MASTER_ADDR", "a..b"),
        ("MASTER_ADDR", "10.0.0.300"),
    ],
)
def test_a_bad_value_is_named_with_its_variable(variable: str, value: str) -> None:
    with pytest.raises(SpecError) as error:
        worker_settings({}, {variable: value})
    assert f"{variable} is {value!r}" in error.value.message
    assert error.value.hint


@pytest.mark.parametrize("text", ["a:b", "a..b", ":1", "a:99999", "a b:1", "[::1]x:1:2", "a:1:2"])
def test_a_coordinator_that_can_not_be_one_is_refused_when_it_is_read(text: str) -> None:
    with pytest.raises(SpecError, match="LLAMAFORGE_COORDINATOR") as error:
        worker_settings({}, {"LLAMAFORGE_COORDINATOR": text})
    assert "HOST:PORT" in error.value.hint


@pytest.mark.parametrize(
    ("variable", "may_be"),
    [
        ("NODE_RANK", "a whole number from 0 up"),
        ("MASTER_PORT", "a whole number from 0 to 65535"),
        ("LLAMAFORGE_RANKS", "a whole number from 1 to 4096"),
        ("LLAMAFORGE_STOP_SECONDS", "a number above 0 and up to 86400"),
        ("LLAMAFORGE_NODE_NAME", "a name: letters, digits"),
    ],
)
def test_what_a_setting_may_be_is_said_for_people(variable: str, may_be: str) -> None:
    with pytest.raises(SpecError, match=may_be):
        worker_settings({}, {variable: "-!"})


def test_a_bad_flag_is_named_as_a_flag() -> None:
    with pytest.raises(SpecError, match="--peer-port is 70000"):
        worker_settings({"peer_port": 70000}, {})


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("a", "a", 29400), ("a:1", "a", 1), ("[::1]", "::1", 29400), ("[::1]:7", "::1", 7)],
)
def test_host_and_port(text: str, host: str, port: int) -> None:
    assert host_and_port(text) == (host, port)


@pytest.mark.parametrize("text", [":1", "a:b", "a:70000", ""])
def test_a_bad_address_is_named(text: str) -> None:
    with pytest.raises(SpecError, match="--coordinator"):
        host_and_port(text)


def test_a_node_rank_outside_the_world_is_refused() -> None:
    with pytest.raises(SpecError, match="NODE_RANK is 2, but WORLD_SIZE is 2"):
        worker_settings({}, {"MASTER_ADDR": "a", "NODE_RANK": "2"})


def test_an_empty_variable_counts_as_unset() -> None:
    assert worker_settings({}, {"MASTER_ADDR": ""}).master_addr is None


def test_the_coordinator_listens_on_loopback_unless_told_or_a_service() -> None:
    assert coordinator_settings({}, {}).host == "127.0.0.1"
    assert coordinator_settings({}, {"STATE_DIRECTORY": "/var/lib/x"}).host == "::"
    assert coordinator_settings({}, {}).port == 29400
    assert coordinator_settings({"port": 0}, {}).port == 0


@pytest.mark.parametrize("kind", [WorkerSettings, CoordinatorSettings])
def test_every_setting_has_a_variable_of_its_own(kind: type[WorkerSettings]) -> None:
    names = list(variables(kind).values())
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("kind", "heading"), [(WorkerSettings, "Worker"), (CoordinatorSettings, "Coordinator")]
)
def test_every_setting_is_documented_in_order(kind: type[WorkerSettings], heading: str) -> None:
    """docs/FLEET.md lists variable, default and meaning of each, in the order of the code."""
    page = (Path(__file__).parents[2] / "docs" / "FLEET.md").read_text()
    table = page.split(f"### {heading}\n")[1].split("\n#")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if "`" in line]
    assert [row[0].strip("`") for row in rows] == list(variables(kind).values())
    fields = msgspec.structs.fields(kind)
    for field, (_, default, text) in zip(fields, rows, strict=True):
        if field.default not in (None, msgspec.NODEFAULT):
            assert default == f"`{field.default}`", field.name
        assert text == meanings(kind)[field.name]


def test_a_service_listens_on_all_addresses_and_a_worker_by_hand_on_loopback() -> None:
    assert worker_settings({}, {}).peer_host == "127.0.0.1"
    assert worker_settings({}, {"STATE_DIRECTORY": "/var/lib/llamaforge"}).peer_host == "::"
    assert worker_settings({}, {"STATE_DIRECTORY": "/x", "LLAMAFORGE_PEER_HOST": "127.0.0.1"}) == (
        worker_settings({"peer_host": "127.0.0.1"}, {"STATE_DIRECTORY": "/x"})
    )


def test_a_list_of_who_may_connect_is_checked_at_once() -> None:
    with pytest.raises(SpecError, match="LLAMAFORGE_ALLOW names"):
        worker_settings({}, {"LLAMAFORGE_ALLOW": "10.9.66"})


def test_a_coordinator_takes_the_folders_of_its_unit() -> None:
    unit = {"STATE_DIRECTORY": "/s", "CACHE_DIRECTORY": "/c:/d", "RUNTIME_DIRECTORY": "/r"}
    settings = coordinator_settings({}, unit)
    assert (settings.state_dir, settings.cache_dir, settings.runtime_dir) == ("/s", "/c", "/r")
    assert coordinator_settings({"state_dir": "/mine"}, {}).runtime_dir == "/mine"


def test_labels_and_sizes_are_checked_when_they_are_read() -> None:
    settings = worker_settings({}, {"LLAMAFORGE_LABELS": "b,a", "LLAMAFORGE_CACHE_LIMIT": "2G"})
    assert settings.node_labels == ("a", "b")
    assert settings.cache_bytes == 2 << 30
    assert worker_settings({}, {}).cache_bytes is None
    with pytest.raises(SpecError, match="LLAMAFORGE_LABELS names"):
        worker_settings({}, {"LLAMAFORGE_LABELS": "a b"})
    for read in (worker_settings, coordinator_settings):
        with pytest.raises(SpecError, match="LLAMAFORGE_CACHE_LIMIT is 'big'"):
            read({}, {"LLAMAFORGE_CACHE_LIMIT": "big"})


def test_the_public_address_of_a_coordinator_is_one() -> None:
    given = {"LLAMAFORGE_PUBLIC": "forge.example.org:29400"}
    assert coordinator_settings({}, given).public == "forge.example.org:29400"
    with pytest.raises(SpecError, match="LLAMAFORGE_PUBLIC"):
        coordinator_settings({}, {"LLAMAFORGE_PUBLIC": "a..b"})


def test_a_coordinators_file_comes_after_its_environment() -> None:
    file = SettingsFile(path="c", values={"LLAMAFORGE_PORT": "1", "LLAMAFORGE_NODE_GRACE": "7"})
    settings = coordinator_settings({}, {"LLAMAFORGE_PORT": "2"}, file)
    assert (settings.port, settings.node_grace) == (2, 7.0)
