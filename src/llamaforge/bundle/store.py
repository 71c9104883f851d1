"""The blob store: files known by their SHA-256, so that nothing is shipped or kept twice.

A blob is either bytes that the store owns (`blobs/ab/abcd…`) or a reference to a file that stays
where it is (`refs/ab/abcd….json`: path, size, modification time, inode), so that a 16 GB model is
never copied. A referenced file that has changed since is noticed before anybody reads it. Digests
of unchanged files, the store's own among them, are remembered under `digests/`: a blob that
somebody has written to is noticed, and fetched again.

Every write is a temporary file and a rename, so any number of processes may share one store, and
a crash leaves at most a file in `incoming/`. Big blobs come in pieces that outlive a crash
(`bundle.pieces`). When a blob was used last is its file's access time, set by hand, since mounts
differ in keeping it: `bundle.eviction` goes by it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from llamaforge.bundle import digest
from llamaforge.bundle.manifest import Entry, Manifest, check_digest
from llamaforge.bundle.pieces import PieceFile, standing
from llamaforge.errors import IntegrityError

TOUCH_SECONDS = 60.0
"""A blob's last use is noted at most this often."""

_log = logging.getLogger(__name__)


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """A file outside the store that holds a blob, and what tells whether it has changed."""

    path: str
    size: int
    """Bytes."""
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Reference:
        """What the file at `path` is now. Raises OSError when there is none."""
        now = path.stat()
        return cls(path=str(path), size=now.st_size, mtime_ns=now.st_mtime_ns, inode=now.st_ino)

    def unchanged(self) -> bool:
        """Whether the file is still the one that was digested."""
        try:
            return Reference.of(Path(self.path)) == self
        except OSError:
            return False


class Incoming:
    """A blob on its way in: `write` the bytes in order, then `commit` or `abort`.

    As a context manager it commits at the end of the block and aborts on an exception.
    """

    def __init__(self, store: BlobStore, sha256: str, size: int) -> None:
        self._store, self._sha256, self._size = store, sha256, size
        self._digest = hashlib.sha256()
        self._written = 0
        handle, name = tempfile.mkstemp(prefix=f"{sha256[:16]}.", dir=store.folder("incoming"))
        self._file = os.fdopen(handle, "wb")
        self._partial = Path(name)

    def write(self, data: bytes) -> None:
        """Takes the next bytes.

        Raises:
            IntegrityError: more bytes came than were promised.
        """
        self._written += len(data)
        if self._written > self._size:
            raise IntegrityError(f"blob {self._sha256[:12]} is longer than its {self._size} bytes")
        self._digest.update(data)
        self._file.write(data)

    def commit(self) -> Path:
        """Checks length and digest, makes the bytes durable, and gives the blob its name.

        Returns:
            The blob's path.

        Raises:
            IntegrityError: the bytes are not what the digest promises; nothing is left behind.
            OSError: the disk is full or refuses; nothing is left behind.
        """
        try:
            self._check()
            self._file.flush()
            os.fchmod(self._file.fileno(), 0o444)
            os.fsync(self._file.fileno())
            self._file.close()
            target = self._store.blob(self._sha256)
            self._store.trust(self._partial, target, self._sha256)
            self._partial.rename(target)
        except BaseException:
            self.abort()
            raise
        return target

    def abort(self) -> None:
        """Forgets the bytes."""
        with suppress(OSError):  # a full disk refuses the last bytes once more
            self._file.close()
        self._partial.unlink(missing_ok=True)

    def _check(self) -> None:
        found = self._digest.hexdigest()
        if self._written != self._size or found != self._sha256:
            raise IntegrityError(
                f"blob {self._sha256[:12]} arrived damaged: {self._written} of {self._size} bytes, "
                f"SHA-256 {found[:12]}",
                hint="run the same command again",
            )


class BlobStore:
    """Content-addressed files under one folder, shared safely by several processes.

    Args:
        root: the store's folder; made when it doesn't exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str) -> Path:
        """The folder `name` of the store, made when missing."""
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def blob(self, sha256: str) -> Path:
        """Where the store's own copy of a blob stands or would stand.

        Raises:
            IntegrityError: it is not a SHA-256; a peer's text must not become a path.
        """
        check_digest(sha256)
        return self.folder(f"blobs/{sha256[:2]}") / sha256

    def has(self, sha256: str, size: int | None = None) -> bool:
        """Whether the blob can be read here, and has `size` bytes where that is given."""
        try:
            found = self.path(sha256).stat().st_size
        except (IntegrityError, OSError):
            return False
        return size is None or found == size

    def path(self, sha256: str) -> Path:
        """The file that holds the blob: the store's own, or the referenced one.

        Raises:
            IntegrityError: the blob is not here, or the file it refers to has changed.
        """
        own = self.blob(sha256)
        if own.is_file() and self._is_whole(own, sha256):
            _touch(own)
            return own
        reference = self._reference(sha256)
        if reference is None:
            raise IntegrityError(f"blob {sha256[:12]} is not in {self.root}")
        if not reference.unchanged():
            raise IntegrityError(
                f"{reference.path} has changed since it was added (blob {sha256[:12]})",
                hint="submit the job again, so that the file is read again",
            )
        _touch(self.reference(sha256))
        return Path(reference.path)

    def forget(self, sha256: str) -> None:
        """Deletes the store's own copy of a blob, if it has one."""
        self.blob(sha256).unlink(missing_ok=True)

    def trust(self, partial: Path, target: Path, sha256: str) -> None:
        """Remembers the digest of a file that is about to be renamed to `target`."""
        reference = msgspec.structs.replace(Reference.of(partial), path=str(target))
        self._write_small(self.digest_note(reference), sha256.encode())

    def add_file(self, path: Path) -> tuple[str, int]:
        """Adds a file by reference: it is digested (once, while it stays unchanged), not copied.

        Returns:
            The file's SHA-256 and its size in bytes.

        Raises:
            IntegrityError: the file changed while it was read.
            OSError: the file can't be read.
        """
        reference = Reference.of(path.resolve())
        sha256 = self._known_digest(reference) or self._learn_digest(reference)
        if not self.has(sha256, reference.size):
            self._write_small(
                self.folder(f"refs/{sha256[:2]}") / f"{sha256}.json",
                msgspec.json.encode(reference),
            )
        return sha256, reference.size

    def add_bytes(self, data: bytes) -> tuple[str, int]:
        """Adds bytes. Returns their SHA-256 and their number."""
        sha256 = hashlib.sha256(data).hexdigest()
        if not self.has(sha256, len(data)):
            with self.incoming(sha256, len(data)) as blob:
                blob.write(data)
        return sha256, len(data)

    @contextmanager
    def incoming(self, sha256: str, size: int) -> Iterator[Incoming]:
        """Receives a blob: `with store.incoming(sha256, size) as blob: blob.write(…)`.

        Raises:
            IntegrityError: at the end of the block, when the bytes are not what was promised.
        """
        blob = self.receive(sha256, size)
        try:
            yield blob
        except BaseException:
            blob.abort()
            raise
        blob.commit()

    def receive(self, sha256: str, size: int) -> Incoming:
        """Like `incoming`, for callers that commit or abort themselves (from other threads)."""
        Manifest(entries=(Entry(path="blob", sha256=sha256, size=size),)).check()
        return Incoming(self, sha256, size)

    def pieces(self, sha256: str, size: int, *, piece: int = 0) -> PieceFile | None:
        """Receives a blob in pieces; None while somebody else does.

        Raises:
            IntegrityError: `sha256` is no digest.
            OSError: the disk has no room for it, or refuses.
        """
        check_digest(sha256)
        try:
            return PieceFile(self, sha256, size, piece=piece)
        except BlockingIOError:
            return None

    def stands(self, sha256: str) -> int:
        """Bytes of a blob that are here from its beginning on, whole or after a broken upload.

        Raises:
            IntegrityError: `sha256` is no digest.
        """
        check_digest(sha256)
        try:
            return self.path(sha256).stat().st_size
        except (IntegrityError, OSError):
            return standing(self, sha256)

    def reference(self, sha256: str) -> Path:
        """Where the note stands, or would stand, that refers to a file outside."""
        return self.root / "refs" / sha256[:2] / f"{sha256}.json"

    def missing(self, manifest: Manifest) -> tuple[Entry, ...]:
        """The manifest's entries whose blobs are not here, each digest once."""
        absent = {e.sha256: e for e in manifest.entries if not self.has(e.sha256, e.size)}
        return tuple(absent.values())

    def lay_out(self, manifest: Manifest, folder: Path) -> None:
        """Makes `folder` hold the bundle: a symbolic link to the blob at every logical path.

        Raises:
            IntegrityError: the manifest is not usable, or a blob is missing or has changed.
        """
        manifest.check()
        for entry in manifest.entries:
            blob = self.path(entry.sha256)
            if blob.stat().st_size != entry.size:
                raise IntegrityError(f"{entry.path}: {blob} does not have {entry.size} bytes")
            link = folder / entry.path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(blob.absolute())

    def _is_whole(self, own: Path, sha256: str) -> bool:
        """Whether the store's own copy is what it was; one that was changed is read again."""
        reference = Reference.of(own)
        found = self._known_digest(reference) or self._learn_digest(reference)
        if found != sha256:
            _log.warning("%s is damaged: its SHA-256 is %s…", own, found[:12])
        return found == sha256

    def _reference(self, sha256: str) -> Reference | None:
        path = self.reference(sha256)
        try:
            return msgspec.json.decode(path.read_bytes(), type=Reference)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as damaged:
            raise IntegrityError(f"{path} can't be read: {damaged}") from damaged

    def digest_note(self, reference: Reference) -> Path:
        """Where the digest of an unchanged file is remembered."""
        key = hashlib.sha256(msgspec.json.encode(reference)).hexdigest()
        return self.folder("digests") / key

    def _known_digest(self, reference: Reference) -> str | None:
        try:
            sha256 = self.digest_note(reference).read_text()
        except FileNotFoundError:
            return None
        return sha256 if len(sha256) == 64 else None

    def _learn_digest(self, reference: Reference) -> str:
        sha256 = digest.of_file(Path(reference.path))
        if not reference.unchanged():
            raise IntegrityError(
                f"{reference.path} changed while it was read", hint="run the command again"
            )
        with suppress(OSError):  # a cache that can't remember is only slower
            self._write_small(self.digest_note(reference), sha256.encode())
        return sha256

    def _write_small(self, target: Path, data: bytes) -> None:
        """Writes a small file so that readers see the old one or the whole new one."""
        handle, name = tempfile.mkstemp(dir=self.folder("incoming"))
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).rename(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _touch(path: Path) -> None:
    """Notes that a file is used now; its modification time, which is checked, stays."""
    with suppress(OSError):  # another user's: then its age is unknown, and no harm done
        seen, now = path.stat(), time.time_ns()
        if now - seen.st_atime_ns > TOUCH_SECONDS * 1e9:
            os.utime(path, ns=(now, seen.st_mtime_ns))
