"""What a node's ranks, and people's own scripts, may touch: the job's files and the usual places.

They run as the worker's user, so file permissions don't keep them from the worker's key, its
tokens or other jobs' files. Landlock does: ranks read everything but the fleet's secrets, write to
the job's folder, to caches and temporary folders, and can't look into processes that are not the
job's. `docs/SECURITY.md` says what this is good for, and what it is not.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from llamaforge import landlock, paths
from llamaforge.landlock import READ, WRITE, WRITE_FILE, Ruleset
from llamaforge.spec.fleet import WorkerSettings
from llamaforge.worker.tether import tether

TOKENS = "tokens"
"""Folder of tokenised rows in the cache; all that ranks of fleets may write to there."""
SHARED_SECRETS = (
    "/var/lib/llamaforge",
    "/var/lib/llamaforge-coordinator",
    "/run/llamaforge-coordinator",
    "/run/credentials",
    "/etc/llamaforge/token",
    "/etc/llamaforge/environment",
    "/etc/llamaforge/mail.conf",
)
"""Hidden where the worker itself could read them: keys, tokens, the coordinator's files."""
CACHES = (
    *("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "TORCH_HOME", "XDG_CACHE_HOME"),
    *("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH", "MPLCONFIGDIR"),
)
"""Variables that name folders for things that can be made again."""
HOME_CACHES = (".cache/huggingface", ".cache", ".triton", ".nv")
PRIVILEGES = (2, 16, 17, 18, 19, 21, 22, 25, 27, 32, 33, 34, 38, 39, 40)
"""Capabilities (capability.h: raw devices, modules, tracing, mounts, the clock, …) that a rank of
a worker that runs as root loses for good: each would be a way around the rules."""
_PR_CAPBSET_DROP = 24
_libc = ctypes.CDLL(None)
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")


class Confinement:
    """The rules for the ranks of one worker.

    Args:
        settings: of the worker.
        environment: of its ranks; names caches and the home folder.
        worker: the worker's own environment; names its credentials.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        environment: Mapping[str, str],
        worker: Mapping[str, str] | None = None,
    ) -> None:
        self._settings, self._environment = settings, environment
        self._worker = os.environ if worker is None else worker
        self._cache = Path(settings.cache_dir).absolute()
        self._state = Path(settings.state_dir).absolute()
        self._extra = tuple(Path(one) for one in settings.writable_folders)
        self._secrets: tuple[Path, ...] = ()

    @property
    def scratch(self) -> Path | None:
        """What TMPDIR must be; None where the machine's temporary folder can be used.

        It can't where the worker's own state is below it, as that of a private fleet is.
        """
        below = Path(self._environment.get("TMPDIR") or "/tmp").resolve()
        self._secrets = tuple(_secrets(self._settings, self._worker))
        hidden = any(below == one or below in one.parents for one in self._secrets)
        return self._state / "tmp" if hidden else None

    @contextmanager
    def entrance(self, own: Sequence[Path], *, cache: bool = False) -> Iterator[Callable[[], None]]:
        """Gives the `preexec_fn` of a child that is confined and ends with this process.

        Where the kernel has no Landlock it only ends with this process; see `landlock.why_not`.

        Args:
            own: the job's folders, which it may write to.
            cache: whether it may write to the whole cache, as the classic way's ranks must.

        Raises:
            OSError: no child can be started.
        """
        tied = tether()
        if not landlock.version():
            yield tied
            return
        with Ruleset() as rules:
            self._grant(rules, [*own, self._cache] if cache else own)
            enter = rules.enter()

            def after_fork() -> None:
                tied()
                for number in PRIVILEGES:  # without the right to do so there are none to lose
                    _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
                enter()

            try:
                yield after_fork
            except subprocess.SubprocessError as why:  # what Popen makes of an error after the fork
                raise OSError(None, f"a process can't be confined: {why}") from why

    def _grant(self, rules: Ruleset, own: Sequence[Path]) -> None:
        """Fills the rules: what is read, what is written to."""
        self._secrets = tuple(_secrets(self._settings, self._worker))  # one may be new
        rules.grant(Path("/"), landlock.READ_DIR)  # names are no secrets; contents are
        for folder in (Path("/"), self._cache, *_installation(), *own):
            rules.grant(folder, READ, but=self._below(folder))
        for folder in own:
            for file in self._bundled(folder):
                rules.grant(file, READ)
        rules.grant(Path("/dev"), WRITE_FILE)
        for folder in (*self._places(), *self._extra):
            rules.grant(folder, READ | WRITE, but=[*self._below(folder), self._cache])
        for folder in (*own, self._made(self._cache / TOKENS), self._made(self.scratch)):
            rules.grant(folder, READ | WRITE, but=self._below(folder))

    def _below(self, folder: Path) -> list[Path]:
        """The secrets that stand inside a folder.

        Who names a folder that is itself among them, such as a cache in the service's home, means
        it.
        """
        resolved = folder.resolve()
        return [one for one in self._secrets if resolved in one.parents]

    def _bundled(self, own: Path) -> Iterator[Path]:
        """Files that a job's bundle refers to and that lie among what is hidden."""
        for link in (own / "bundle").rglob("*"):
            if link.is_symlink():
                target = link.resolve()
                if any(one in target.parents for one in self._secrets):
                    yield target

    def _places(self) -> Iterator[Path]:
        """Temporary folders and caches that are not only ours."""
        named = [self._environment.get(name) for name in (*CACHES, "TMPDIR")]
        home = Path(self._environment.get("HOME") or "/nonexistent")
        yield from (self._made(Path(one).expanduser()) for one in named if one)
        for cache in HOME_CACHES:
            known = cache.startswith(".cache") or home.resolve() == self._state.resolve()
            yield self._made(home / cache) if known else home / cache
        yield from map(Path, TEMPORARY)

    @staticmethod
    def _made(folder: Path | None) -> Path:
        """The folder, made where that is possible: only what exists can be granted."""
        if folder is None:
            return Path("/nonexistent")
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        return folder


def _secrets(settings: WorkerSettings, worker: Mapping[str, str]) -> Iterator[Path]:
    """Existing files and folders that hold what ranks must not read, resolved."""
    home = Path(worker.get("HOME") or "/nonexistent")
    fleet = Path(settings.fleet).parent if settings.fleet else paths.state_dir()
    yield Path(settings.state_dir).resolve()
    named = [
        settings.token_file,
        worker.get("CREDENTIALS_DIRECTORY"),
        fleet,
        paths.state_dir(),
        home / ".config" / "llamaforge",
        *SHARED_SECRETS,
    ]
    for one in named:
        if one and os.access(one, os.R_OK):
            yield Path(one).resolve()


def _installation() -> Iterator[Path]:
    """Where Python, the libraries and this package are: wherever that is, ranks need it."""
    yield from {Path(sys.prefix), Path(sys.base_prefix), Path(__file__).resolve().parents[1]}
