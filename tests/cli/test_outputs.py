from __future__ import annotations

from pathlib import Path

import pytest

from asyncdmtl.cli.outputs import check_outputs
from asyncdmtl.errors import UsageError


def test_files_that_can_be_written_pass(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("is replaced")
    check_outputs({"--save": None, "--report": tmp_path / "new", "--plot": tmp_path / "old"})
    assert (tmp_path / "old").read_text() == "is replaced"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("path", "rule"), [("no/new", "be in a directory that exists"), (".", "be a writable")]
)
def test_the_option_is_named_whose_file_cannot_be_written(tmp_path: Path, path: str, rule: str) -> None:
    with pytest.raises(UsageError, match=f"--report must {rule}"):
        check_outputs({"--save": tmp_path / "new", "--report": tmp_path / path})
