"""Figures and their files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from asyncdmtl.errors import UsageError
from asyncdmtl.report.pictures import (
    check_picture,
    make_room_for_legends,
    new_figure,
    save_figure,
    two_colours,
)


def test_a_picture_is_written_in_the_format_of_its_ending(tmp_path: Path) -> None:
    figure = new_figure(2, 1)
    figure.subplots().imshow([[0, 1]], cmap=two_colours())
    save_figure(figure, tmp_path / "matrix.png")
    assert (tmp_path / "matrix.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--plot must be a writable file"):
        save_figure(new_figure(1, 1), tmp_path / "nowhere" / "run.png")


def test_endings_are_checked_before_there_is_a_picture() -> None:
    check_picture(None)
    check_picture(Path("run.PDF"))
    with pytest.raises(UsageError, match="--plot must end in one of"):
        check_picture(Path("run.nonsense"))


def test_without_matplotlib_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"pip install 'asyncdmtl\[plot\]'"):
        new_figure(1, 1)


def test_names_are_drawn_as_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    figure = new_figure(2, 1)
    axes = figure.subplots()
    axes.plot([0, 1], label="$\\wrong{$")
    axes.set_xticks([0, 1], ["$x", "a$b$"])
    axes.legend()
    make_room_for_legends(figure)
    save_figure(figure, tmp_path / "names.png")
    assert not caplog.messages
    axes.set_title("\U000130b8")
    save_figure(figure, tmp_path / "names.png")
    assert "lacks some characters" in caplog.messages[0]
