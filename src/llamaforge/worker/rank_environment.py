"""The environment of ranks: the worker's own, without what is not about them, plus settings.

What an administrator sets in the unit or with `export` in the settings file reaches the ranks.
"""

from __future__ import annotations

from collections.abc import Mapping

from llamaforge.spec.fleet import WorkerSettings

NOT_INHERITED = frozenset(
    {
        # where a torchrun that is not this job's would put a process
        *("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "WORLD_SIZE", "NPROC_PER_NODE"),
        *("RANK", "LOCAL_RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE"),
        "TORCH_ELASTIC_WORKER_IDENTICAL",
        # what systemd gives to the worker alone
        *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY"),
        *("JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"),
        *("LLAMAFORGE_TOKEN_FILE", "LLAMAFORGE_CONFIG"),
    }
)
_PREFIXES = ("PET_", "TORCHELASTIC_")
"""Variables of torchrun's own."""


def rank_environment(
    base: Mapping[str, str], settings: WorkerSettings, exports: Mapping[str, str]
) -> dict[str, str]:
    """What ranks get.

    Args:
        base: the worker's environment.
        settings: `hf_home` is set for the ranks where it is given.
        exports: from the settings file.
    """
    kept = {
        name: value
        for name, value in base.items()
        if name not in NOT_INHERITED and not name.startswith(_PREFIXES)
    }
    if settings.hf_home:
        kept["HF_HOME"] = settings.hf_home
    kept.update(exports)
    if (cache := kept.get("TRANSFORMERS_CACHE")) and "HF_HUB_CACHE" not in kept:
        kept["HF_HUB_CACHE"] = cache
    return kept


def notes(environment: Mapping[str, str]) -> list[str]:
    """What a person should know about the variables that ranks get."""
    cache = environment.get("TRANSFORMERS_CACHE")
    if not cache:
        return []
    if environment.get("HF_HUB_CACHE") == cache:
        return [
            f"TRANSFORMERS_CACHE is read no longer by transformers; {cache} is used as "
            "HF_HUB_CACHE. Set HF_HOME instead"
        ]
    return [
        f"TRANSFORMERS_CACHE={cache} is ignored: HF_HUB_CACHE={environment['HF_HUB_CACHE']} "
        "is set as well"
    ]
