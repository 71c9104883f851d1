"""Writes an identity as another user: joining is done by root, and keeping by the service's user.

    python -m llamaforge.identity.keep FOLDER < JSON

Root never writes in a folder that the service's user could have filled with symbolic links.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from llamaforge.errors import UserError
from llamaforge.identity import folder
from llamaforge.identity.folder import About


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is written."""

    key: str
    certificate: str
    authority: str
    about: About

    def __repr__(self) -> str:
        return "Kept()"  # never in a log


def keep_as(user: str, home: Path, what: Kept) -> None:
    """Writes an identity in a child process that is that user.

    Args:
        user: name of the account; empty: this process's own.
        home: the identity's folder.
        what: it.

    Raises:
        UserError: it can't be written; says why.
    """
    import pwd

    account = pwd.getpwnam(user) if user else None
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(home)],
        input=msgspec.json.encode(what),
        capture_output=True,
        check=False,
        cwd="/",
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise UserError(f"the certificate can't be kept in {home}: {said}")


def _main() -> int:
    what = msgspec.json.decode(sys.stdin.buffer.read(), type=Kept)
    os.umask(0o077)
    try:
        folder.save(
            Path(sys.argv[1]),
            key=what.key,
            certificate=what.certificate,
            authority=what.authority,
            about=what.about,
        )
    except OSError as why:
        print(why, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
