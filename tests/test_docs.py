"""Documents that can't drift: the README's tree, options, dependencies, version against code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from llamaforge.service.request import asked_settings
from llamaforge.spec.fleet import CoordinatorSettings, variables
from llamaforge.spec.options import options

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


PROJECT = tomllib.loads(read("pyproject.toml"))["project"]


# ── the README's tree ─────────────────────────────────────────────────────────────────────────


def read_tree(text: str) -> dict[str, str]:
    """Path to phrase, from the fenced block after `## The tree`.

    An entry is `name  — phrase`; it stands in the entry above that is indented less. Lines that
    draw branches count as indentation.
    """
    fenced = re.search(r"^## The tree$.*?^```\w*$(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    if fenced is None:
        return {}
    entries: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in fenced[1].splitlines():
        match = re.fullmatch(r"([\s│├└─|]*)(\S+)(?:\s+—\s*(.*))?\s*", line)
        if match is None or not line.strip():
            continue
        indent, name, phrase = len(match[1]), match[2], (match[3] or "").strip()
        while above and above[-1][0] >= indent:
            above.pop()
        path = "/".join([*(parent for _, parent in above), name.rstrip("/")])
        entries[path] = phrase
        above.append((indent, name.rstrip("/")))
    return entries


def tree_mistakes(text: str, files: list[str]) -> list[str]:
    """What is wrong with a README's tree.

    Args:
        text: the README.
        files: all files of the repository, relative to its root.

    Returns:
        Sentences: entries that don't exist or lack a phrase, and what is there but not listed.
        A folder of which one child is listed must list all; hidden files and `__init__.py` are
        never asked for.
    """
    tree = read_tree(text)
    if not tree:
        return ["there is no fenced block after a heading `## The tree`"]
    existing = {"/".join(parts[:n]) for f in files for parts in [f.split("/")] for n in range(1, 9)}
    mistakes = [f"{path} is listed and does not exist" for path in tree if path not in existing]
    mistakes += [f"{path} has no phrase" for path, phrase in tree.items() if not phrase]
    opened = {path.rpartition("/")[0] for path in tree}
    mistakes += [
        f"{path} is not listed"
        for path in sorted(existing - tree.keys())
        if path.rpartition("/")[0] in opened and not path.rpartition("/")[2].startswith((".", "__"))
    ]
    return mistakes


def repository_files() -> list[str]:
    """Files of the checkout; of a folder without git, all that a checkout would have."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        return [line for line in listed.stdout.splitlines() if (ROOT / line).exists()]
    ignored = {line.strip("/\n") for line in read(".gitignore").splitlines()}
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return [path.as_posix() for path in paths if not ignored & set(path.parts)]


FILES = ["README.md", "src/app/__init__.py", "src/app/a.py", "src/app/b.py", ".gitignore"]
GOOD = """
# App
## The tree

Words about it.

```
README.md   — what it is
src/        — the code
└── app/    — the application
    ├── a.py  — the first part
    └── b.py  — the second part
```
"""


def test_a_tree_that_says_all_has_no_mistakes():
    assert read_tree(GOOD)["src/app/b.py"] == "the second part"
    assert tree_mistakes(GOOD, FILES) == []


@pytest.mark.parametrize(
    ("old", "new", "mistake"),
    [
        ("## The tree", "## Files", "there is no fenced block after a heading `## The tree`"),
        ("a.py ", "gone.py ", "src/app/gone.py is listed and does not exist"),
        ("— the first part", "", "src/app/a.py has no phrase"),
        ("    └── b.py  — the second part\n", "", "src/app/b.py is not listed"),
        ("README.md   — what it is\n", "", "README.md is not listed"),
    ],
)
def test_every_mistake_of_a_tree_is_found(old, new, mistake):
    assert mistake in tree_mistakes(GOOD.replace(old, new), FILES)


def test_a_folder_without_listed_children_need_not_list_them():
    closed = GOOD.split("└── app/")[0] + "```\n"
    assert tree_mistakes(closed, FILES) == []


def test_the_tree_of_the_readme_is_the_repository():
    assert tree_mistakes(read("README.md"), repository_files()) == []


# ── options ───────────────────────────────────────────────────────────────────────────────────


def flags(text: str) -> set[str]:
    """All `--flags` that a text names; `--[no-]flag` is one."""
    text = text.replace("--[no-]", "--")
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]", text))


def test_every_option_of_a_job_is_in_the_documentation():
    named = flags(read("docs/CLI.md"))
    assert [option.flag for option in options().values() if option.flag not in named] == []


def test_the_documentation_names_no_option_that_does_not_exist():
    sources = (ROOT / "src" / "llamaforge").rglob("*.py")
    known = {option.flag for option in options().values()}
    known |= {f"--no-{flag[2:]}" for flag in known}
    settings = {*asked_settings(), *variables(CoordinatorSettings)}  # of the services
    known |= {f"--{name.replace('_', '-')}" for name in settings}
    for source in sources:
        known |= flags(source.read_text(encoding="utf-8"))
    assert sorted(flags(read("docs/CLI.md")) - known) == []


# ── dependencies ──────────────────────────────────────────────────────────────────────────────


def plain(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required(requirements: list[str]) -> set[str]:
    """Names in a list of requirements."""
    return {plain(re.match(r"[\w.-]+", line)[0]) for line in requirements}  # type: ignore[index]


def explained(text: str) -> dict[str, str]:
    """Library to why it is here, from the tables of docs/DEPENDENCIES.md."""
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in text.splitlines()
        if line.startswith("| `")
    ]
    return {plain(row[0].strip("`")): row[-1] for row in rows}


EXTRAS = [line for extra in PROJECT["optional-dependencies"].values() for line in extra]


def test_every_dependency_is_explained_and_no_other():
    why = explained(read("docs/DEPENDENCIES.md"))
    assert set(why) == required(PROJECT["dependencies"]) | required(EXTRAS)
    assert [name for name, text in why.items() if len(text) < 10] == []


def pinned() -> list[str]:
    """The lines of constraints.txt that pin something."""
    lines = read("constraints.txt").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_every_dependency_has_its_tested_version():
    pins = required(pinned())
    only_on_old_python = {"tomli"}
    every = required(PROJECT["dependencies"]) | required(EXTRAS)
    assert every - pins - only_on_old_python == set()


def test_constraints_name_no_index_and_no_folder():
    assert [line for line in pinned() if not re.match(r"^[\w.-]+==[\w.!]+(; .*)?$", line)] == []


def test_the_makefile_installs_the_torch_that_is_pinned():
    pin = re.search(r"^torch==\S+$", read("constraints.txt"), re.MULTILINE)
    assert pin is not None
    assert f" {pin[0]}\n" in read("Makefile")


def test_the_changelog_names_the_version():
    assert re.search(rf"^## {re.escape(PROJECT['version'])}\b", read("CHANGELOG.md"), re.MULTILINE)


def test_the_package_knows_its_version():
    from llamaforge import __version__

    assert __version__ == PROJECT["version"]


@pytest.mark.parametrize(
    "page",
    [
        *("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"),
        *sorted(page.relative_to(ROOT).as_posix() for page in ROOT.glob("docs/*.md")),
    ],
)
def test_links_between_pages_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", read(page))
    missing = [target for target in targets if not ((ROOT / page).parent / target).exists()]
    assert missing == []
