"""A certificate for one name, signed by itself, for servers that a test makes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def make(folder: Path, name: str) -> Path:
    """Certificate and key in one PEM file; skips the test where there is no openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not on this machine: sudo apt-get install openssl")
    file = folder / f"{name}.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    made = subprocess.run(
        [*request, *subject, "-keyout", "-", "-out", "-"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    file.write_bytes(made.stdout)
    return file
