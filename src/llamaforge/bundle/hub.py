"""Models from the Hugging Face hub: from its cache where they are, downloaded where they may be.

huggingface_hub is imported only when a hub model is asked for. Endpoint, cache, token and offline
mode are its own settings (HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE).
"""

from __future__ import annotations

import errno
import logging
import re
from pathlib import Path

from llamaforge.bundle.model_folder import Found, check, conversion
from llamaforge.errors import ModelError

_WANTED = [
    "model*.safetensors",
    "*.json",
    "*.jinja",
    "tokenizer.model",
    "spiece.model",
    "vocab.txt",
    "merges.txt",
]
_UNWANTED = ["*/*"]
"""Subfolders hold other formats of the same weights (`original/`, `onnx/`)."""

_log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def is_hub_name(name: str) -> bool:
    """Whether `name` has the form of a hub model's name: `owner/model`, or an old `model`."""
    return _NAME.fullmatch(name) is not None and len(name) <= 96


def find(name: str, revision: str | None) -> Found:
    """Finds a hub model in the cache, or downloads it.

    Args:
        name: `owner/model`.
        revision: branch, tag or commit; None is the default branch.

    Raises:
        ModelError: it doesn't exist, is gated, can't be reached, or has no safetensors weights;
            says what to do.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError

    incomplete: ModelError | None = None
    try:
        return check(_snapshot(name, revision, cached=True), name=_short(name))
    except LocalEntryNotFoundError:
        _log.debug("%s is not in the hub's cache", name)
    except ModelError as error:
        incomplete = error  # for example an interrupted download: going on completes it
    try:
        return _downloaded(name, revision)
    except _Unreachable as error:
        raise incomplete or error from error


class _Unreachable(ModelError):
    """The hub could not be asked."""


def _snapshot(name: str, revision: str | None, *, cached: bool) -> Path:
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            name,
            revision=revision,
            local_files_only=cached,
            allow_patterns=_WANTED,
            ignore_patterns=_UNWANTED,
        )
    )


def _downloaded(name: str, revision: str | None) -> Found:
    from huggingface_hub.errors import HTTPError

    try:
        folder = _snapshot(name, revision, cached=False)
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        raise _explained(name, revision, error) from error
    if not list(folder.glob("model*.safetensors")):
        raise ModelError(
            f"the hub's {name} has no safetensors weights; LlamaForge reads no pickle (.bin)",
            hint=f"if you trust its owner, convert it once: {conversion(name)}",
        )
    return check(folder, name=_short(name))


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _explained(name: str, revision: str | None, error: Exception) -> ModelError:
    """Turns what huggingface_hub raises into what a person can do about it."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{name}"
    status = _status(error) or _status(error.__cause__)
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return ModelError(
            f"{name} is gated ({status}): its owner wants you to accept a licence first",
            hint=f"accept it at {page}, then log in with `hf auth login` (or set HF_TOKEN)",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(f"{name} has no revision {revision!r}", hint=f"see {page}/tree/main")
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return ModelError(
            f"there is no model {name!r} at {constants.ENDPOINT} that you may read ({status})",
            hint="check its spelling; for a private or gated one log in with `hf auth login`, "
            f"after accepting its licence at {page}",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES):
        return ModelError(
            f"{name} can't be downloaded into {constants.HF_HUB_CACHE}: {error.strerror}",
            hint="free some space there, or choose another place with HF_HOME",
        )
    if status is None:
        return _unreachable(name, revision, error)
    return ModelError(f"the hub answered {status} for {name}", hint=f"try again later: {page}")


def _status(error: BaseException | None) -> int | None:
    """The HTTP status that an error of huggingface_hub carries, if any."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _unreachable(name: str, revision: str | None, error: Exception) -> _Unreachable:
    from huggingface_hub import constants

    cause = error.__cause__ or error
    offline = type(cause).__name__ == "OfflineModeIsEnabled"
    why = "HF_HUB_OFFLINE is set" if offline else f"{type(cause).__name__}: {_first_line(cause)}"
    at = f" --revision {revision}" if revision else ""
    download = (
        f"hf download {name}{at} --exclude '*/*' --exclude '*.bin' --local-dir {_short(name)}"
    )
    return _Unreachable(
        f"{name} is not on this machine, and {constants.ENDPOINT} can't be reached ({why})",
        hint=f"on a machine with internet run `{download}`, copy the folder {_short(name)} here, "
        f"and give --model ./{_short(name)}",
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no details"])[0]
