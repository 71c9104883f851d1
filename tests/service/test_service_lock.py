"""One installation at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamaforge.errors import Occupied
from llamaforge.service.lock import alone


@pytest.mark.parametrize("folder", [True, False])
def test_the_second_one_is_told_and_the_third_one_may(tmp_path: Path, folder: bool) -> None:
    path = tmp_path if folder else tmp_path / "lock"
    with alone(path):
        with pytest.raises(Occupied, match="under way") as error, alone(path):
            pass
        assert str(path) in error.value.hint
    with alone(path):
        pass
    if not folder:
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"), alone(tmp_path / "lock"):
        pass
    assert not (tmp_path / "elsewhere").exists()
