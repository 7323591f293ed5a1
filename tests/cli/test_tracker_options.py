from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.problems import make_settings

from asyncdmtl.cli import tracker_options
from asyncdmtl.cli.tracker_options import Tracking
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.server.events import Finished, Joined, ServerEvent, Started
from asyncdmtl.server.records import RunOptions

NONE = {"mlflow": None, "tensorboard": None}
MODEL = SavedModel(TaskModels(("a",), np.ones((1, 2)), np.ones(1), "squared"), Encoding.empty(), None)


def test_trackers_get_settings_events_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ServerEvent] = []
    files: list[str] = []

    def tracker(event: ServerEvent) -> None:
        seen.append(event)
        if isinstance(event, Finished):
            files.extend(file.name for file in event.files if file.stat().st_size)

    monkeypatch.setattr(tracker_options, "TensorBoardTracker", lambda folder: tracker)
    others: list[ServerEvent] = []
    with Tracking(NONE | {"tensorboard": tmp_path}) as tracking:
        tracking.start(RunOptions(make_settings(), "relay", 3))
        tracking.beside(others.append)(Joined("w0", 1))
        tracking.finish({"seconds": 1.0}, MODEL)
    started, joined, finished = seen
    assert isinstance(started, Started)
    assert started.parameters["strategy"] == "relay"
    assert started.parameters["workers"] == 3
    assert others == [joined] == [Joined("w0", 1)]
    assert isinstance(finished, Finished)
    assert files == ["report.json", "model.npz"]


def test_without_trackers_nothing_is_written() -> None:
    with Tracking(NONE) as tracking:
        tracking.finish({"seconds": 1.0}, MODEL)
