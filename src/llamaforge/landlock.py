"""Landlock: how an ordinary process gives up for good what it, or a child of it, has no use for.

The kernel's way (landlock(7), Linux 5.13) to confine a process without root: a ruleset says what
may be done below which folders, and whoever enters it can't do anything else, nor can its children.
It only knows permissions, no bans; so "everything but this folder" is granted by walking along the
path to that folder and granting its neighbours (`Ruleset.grant`).

Who has entered a ruleset can neither trace nor read the memory and the environment of processes
outside, and from Linux 6.12 on can't signal them either. Through ctypes; no library is needed.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_CHAR, MAKE_DIR = 1 << 4, 1 << 5, 1 << 6, 1 << 7
MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = 1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12
REFER, TRUNCATE = 1 << 13, 1 << 14

READ = EXECUTE | READ_FILE | READ_DIR
WRITE = (
    WRITE_FILE
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REG
    | MAKE_SOCK
    | MAKE_FIFO
    | MAKE_SYM
    | REFER
    | TRUNCATE
)
_ALL = READ | WRITE | MAKE_CHAR | MAKE_BLOCK
"""Everything that is governed. IOCTL_DEV is not: devices stay usable, GPUs among them."""
_FOR_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
"""What can be granted on a file."""
_SINCE = {REFER: 2, TRUNCATE: 3}
"""The kernel interface's version that knows a right; one that doesn't refuses it."""
_SIGNALS_SINCE = 6
_SCOPE_SIGNAL = 1 << 1

_CREATE, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # system calls; the same on every machine
_VERSION = 1
_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38
_libc = ctypes.CDLL(None, use_errno=True)


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("files", ctypes.c_uint64),
        ("network", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"  # what _pack_ means; Python 3.13 and later want it said
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """The version of the kernel's interface; 0 where it has none or this process may not ask.

    3 (Linux 6.2) governs truncation, 6 (Linux 6.12) signals as well.
    """
    found = int(_libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION)))
    return max(found, 0)


def why_not() -> str:
    """Why this process can't use Landlock, for people; empty where it can."""
    if version():
        return ""
    number = ctypes.get_errno()
    if number == errno.ENOSYS:
        return "this kernel has no Landlock (Linux 5.13 and later have it)"
    if number == errno.EOPNOTSUPP:
        return "Landlock is switched off in this kernel: add landlock to lsm= at boot"
    return f"Landlock is forbidden here ({os.strerror(number)}): a filter of system calls, perhaps"


class Ruleset:
    """What may be done below which folders; a context manager that forgets it.

    Nothing may be done that is not granted. Make it before a fork, `enter` it after.

    Raises:
        OSError: the kernel has no Landlock; see `why_not`.
    """

    def __init__(self) -> None:
        known = version()
        self._governed = _ALL
        for right, since in _SINCE.items():
            if known < since:
                self._governed &= ~right
        scoped = _SCOPE_SIGNAL if known >= _SIGNALS_SINCE else 0
        attributes = _Attributes(self._governed, 0, scoped)
        size = ctypes.c_size_t(ctypes.sizeof(attributes))
        self._handle = _checked(_libc.syscall(_CREATE, ctypes.byref(attributes), size, 0))

    def __enter__(self) -> Ruleset:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._handle)

    def grant(self, path: Path, rights: int, *, but: Collection[Path] = ()) -> None:
        """Grants rights on a file, or on a folder and everything below it.

        What does not exist or can't be opened is passed over.

        Args:
            path: where.
            rights: such as `READ | WRITE`.
            but: folders and files below which nothing is granted. On the way to them only what is
                there now is: new neighbours of theirs stay closed.
        """
        path = Path(os.path.realpath(path))
        closed = {Path(os.path.realpath(one)) for one in but}
        if path in closed or closed & set(path.parents):
            return
        if not any(path in one.parents for one in closed):
            self._add(path, rights)
            return
        try:
            children = list(os.scandir(path))
        except OSError:
            return
        for child in children:
            if not child.is_symlink():
                self.grant(path / child.name, rights, but=closed)

    def enter(self) -> Callable[[], None]:
        """What a child does after the fork (`preexec_fn`): enters, with all that it will start.

        Nothing is imported or looked up there.
        """
        handle = ctypes.c_int(self._handle)
        nothing = ctypes.c_uint32(0)
        privileges = (ctypes.c_ulong(1), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))

        def after_fork() -> None:
            _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, *privileges))
            _checked(_libc.syscall(_RESTRICT_SELF, handle, nothing))

        return after_fork

    def _add(self, path: Path, rights: int) -> None:
        try:
            parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return
        try:
            governed = rights & self._governed
            if not path.is_dir():
                governed &= _FOR_FILES
            if governed:
                rule = ctypes.byref(_PathBeneath(governed, parent))
                _checked(_libc.syscall(_ADD_RULE, self._handle, _PATH_BENEATH, rule, 0))
        except OSError as why:
            if why.errno != errno.EBADFD:  # something that is no file of a disk, such as a pipe
                raise
        finally:
            os.close(parent)


def _checked(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(answer)
