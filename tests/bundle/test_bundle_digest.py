"""Digests of files: those of hashlib, also across pieces."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from llamaforge.bundle import digest


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (2 << 20) + 7])
def test_a_file_has_the_digest_of_its_bytes(tmp_path: Path, size: int) -> None:
    data = (b"llama" * (size // 5 + 1))[:size]
    (tmp_path / "file").write_bytes(data)
    assert digest.of_file(tmp_path / "file") == hashlib.sha256(data).hexdigest()
