"""What the README says can be run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
def test_python_examples_run(block: str) -> None:
    exec(compile(block, "README.md", "exec"), {})


def test_ci_calls_the_readmes_test_command() -> None:
    command = re.search(r"## Test it\n\n```sh\n(.*?)\n```", README, flags=re.DOTALL)
    assert command is not None
    assert command[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_files_that_it_names_exist() -> None:
    for name in set(re.findall(r"(?:datasets|tools|tests)/[\w/.-]+\.\w+", README)):
        assert (ROOT / name).is_file(), name
