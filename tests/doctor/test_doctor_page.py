"""docs/DOCTOR.md is what the checks say, and every check is a file that is registered."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from llamaforge.doctor import checks
from llamaforge.doctor.page import GROUPS, markdown
from llamaforge.doctor.registry import CHECKS, chosen
from llamaforge.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_written_from_the_checks() -> None:
    assert (ROOT / "docs" / "DOCTOR.md").read_text(encoding="utf-8") == markdown()


def test_every_check_stands_on_the_page_once() -> None:
    page = markdown()
    for check in CHECKS:
        assert page.count(f"| {check.code} | {check.title} |") == 1


def test_every_file_of_checks_is_registered() -> None:
    folder = Path(checks.__path__[0])
    files = sorted(file.stem for file in folder.glob("*.py") if file.stem != "__init__")
    found = {import_module(f"llamaforge.doctor.checks.{name}").CHECK.code for name in files}
    assert found == {check.code for check in CHECKS}
    assert len(files) == len(CHECKS)


def test_codes_are_in_order_and_in_a_group() -> None:
    codes = [check.code for check in CHECKS]
    assert codes == sorted(set(codes))
    assert all(re.fullmatch(r"LF[1-4]\d\d", code) for code in codes)
    assert {code[:3] for code in codes} == set(GROUPS)


def test_each_module_opens_with_its_code() -> None:
    for check in CHECKS:
        module = import_module(check.look.__module__)
        assert (module.__doc__ or "").startswith(f"{check.code}: ")


def test_checks_are_chosen_by_code() -> None:
    assert chosen(()) == CHECKS
    assert [check.code for check in chosen(["lf110", "LF101"])] == ["LF101", "LF110"]
    with pytest.raises(UserError, match="no such check 'LF1O1'; did you mean LF1"):
        chosen(["LF1O1"])
