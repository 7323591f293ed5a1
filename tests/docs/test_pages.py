"""The README and the pages: their code runs, their commands use options that exist, and their links work."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest
from support.registries import nothing_registered

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "asyncdmtl" / "docs").rglob("*.md"))]
IDS = [page.name for page in PAGES]

# Programs that take a command of this package as arguments, such as a tool that runs it.
PROGRAMS = re.compile(
    r"(?:sudo )?(?:\S*/)?(?:asyncdmtl (?P<command>[a-z]+)|python -m asyncdmtl\.(?P<module>[a-z]+)|"
    r"python (?P<tool>tools/\w+\.py))(?P<rest>[^&|;\n]*)"
)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def commands(page: Path) -> Iterator[re.Match[str]]:
    """The commands of this package that a page shows, in blocks and between backquotes."""
    text = page.read_text(encoding="utf-8")
    for shown in [
        *blocks(page, "sh"),
        *re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)),
    ]:
        yield from PROGRAMS.finditer(re.sub(r"\s*\\?\n\s+", " ", shown))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Markdown renderers make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name
)
def test_python_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with nothing_registered():
        for block in blocks(page, "python"):
            exec(compile(block, page.name, "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_have_the_options_that_are_shown(page: Path) -> None:
    for shown in commands(page):
        words = shlex.split(shown["rest"], comments=True)
        used = {word.partition("=")[0] for word in words if word.startswith("--") and word != "--"}
        if shown["tool"]:
            source = (ROOT / shown["tool"]).read_text(encoding="utf-8")
            assert all(f'"{option}"' in source for option in used), f"{shown[0]}: {used}"
            continue
        if shown["module"] == "arithmetic":  # prints what it knows, and takes no option
            assert not used
            continue
        command = import_module(f"asyncdmtl.cli.{shown['command'] or shown['module']}").main
        assert isinstance(command, click.Command)
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {
            "--help"
        }
        assert used <= known, f"{shown[0]}: {used - known}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.is_file(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in set(re.findall(r"(?<![\w/])(?:datasets|tools|tests|asyncdmtl)/[\w/.-]+\.\w+", text)):
        assert (ROOT / name).is_file(), name


def test_the_site_lists_every_page() -> None:
    listed = set(re.findall(r"\w+\.md", (ROOT / "tools" / "mkdocs.yml").read_text(encoding="utf-8")))
    assert listed == {page.name for page in PAGES if page != README}


def test_the_index_leads_to_every_page() -> None:
    index = (ROOT / "asyncdmtl" / "docs" / "index.md").read_text(encoding="utf-8")
    linked = {target.partition("#")[0] for target in re.findall(r"\]\(([^)]+\.md[^)]*)\)", index)}
    assert linked == {page.name for page in PAGES if page != README} - {"index.md"}


def test_the_readme_is_short() -> None:
    assert README.stat().st_size <= 8192


def test_ci_calls_the_readmes_test_command() -> None:
    command = re.search(
        r"## Test it\n\n```sh\n(.*?)\n```", README.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    assert command is not None
    assert command[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
