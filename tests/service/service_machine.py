"""A machine in a temporary folder whose commands are written down instead of run."""

from __future__ import annotations

import subprocess
from pathlib import Path

from llamaforge.service.machine import Machine
from llamaforge.service.plan import Facts

FACTS = Facts(systemd=252, running=True, device_groups=("video",))


class FakeMachine(Machine):
    """Files are real, below `root`; a command whose words hold one of `fails` ends with 1."""

    def __init__(self, root: Path, **answers: str) -> None:
        super().__init__(root)
        self.ran: list[str] = []
        self.fails: set[str] = set()
        self.answers = answers
        for folder in ("etc/systemd/system", "usr/local/lib", "var/lib", "run"):
            (root / folder).mkdir(parents=True)

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        self.ran.append(" ".join(words))
        code = 1 if self.fails & set(words) else 0
        said = next((text for word, text in self.answers.items() if word in words), "")
        return subprocess.CompletedProcess(words, code, said, "it broke" if code else "")

    def everything(self) -> dict[str, str]:
        """Every file with its text and mode, every folder."""
        return {
            str(path.relative_to(self.root)): f"{path.stat().st_mode:o} "
            + (path.read_text(encoding="utf-8") if path.is_file() else "")
            for path in sorted(self.root.rglob("*"))
        }
