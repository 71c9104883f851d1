"""What ranks inherit."""

from __future__ import annotations

from llamaforge.spec.fleet import WorkerSettings
from llamaforge.worker.rank_environment import notes, rank_environment

SETTINGS = WorkerSettings(name="n", state_dir="/s", cache_dir="/c", hf_home="/hf")


def test_what_an_administrator_sets_reaches_the_ranks() -> None:
    got = rank_environment({"NCCL_DEBUG": "INFO", "A": "unit"}, SETTINGS, {"A": "file"})
    assert got == {"NCCL_DEBUG": "INFO", "A": "file", "HF_HOME": "/hf"}


def test_what_is_not_about_ranks_stays_behind() -> None:
    base = {
        "WORLD_SIZE": "2",
        "PET_NNODES": "3",
        "NOTIFY_SOCKET": "/run/x",
        "WATCHDOG_USEC": "1",
        "CREDENTIALS_DIRECTORY": "/run/credentials/x",
        "LLAMAFORGE_TOKEN_FILE": "/etc/token",
        "PATH": "/bin",
    }
    assert rank_environment(base, SETTINGS, {}) == {"PATH": "/bin", "HF_HOME": "/hf"}


def test_the_old_name_of_the_cache_is_accepted_with_a_note() -> None:
    got = rank_environment({"TRANSFORMERS_CACHE": "/old"}, SETTINGS, {})
    assert got["HF_HUB_CACHE"] == "/old"
    assert "TRANSFORMERS_CACHE" in notes(got)[0]
    assert "HF_HOME" in notes(got)[0]
    both = rank_environment({"TRANSFORMERS_CACHE": "/old", "HF_HUB_CACHE": "/new"}, SETTINGS, {})
    assert both["HF_HUB_CACHE"] == "/new"
    assert "is ignored" in notes(both)[0]
    assert notes(rank_environment({}, SETTINGS, {})) == []
