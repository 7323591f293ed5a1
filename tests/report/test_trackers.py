from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import pytest

from asyncdmtl.errors import UsageError
from asyncdmtl.report.trackers import MLflowTracker, TensorBoardTracker, final_metrics, round_metrics
from asyncdmtl.server.events import Failed, Finished, Joined, Listening, OnEvent, ServerEvent, Started
from asyncdmtl.server.records import RoundRecord

REPORT = {
    "seconds": 2.5,
    "uplink": {"load": "3/2", "payload_bytes": 40, "note": "as planned"},
    "metrics": {"name": "R²", "mean": {"coupled": 0.5, "pooled": None}, "tasks": {"a": {"coupled": 1.0}}},
    "training": {"converged": True, "residual": math.nan},
}
ROUNDS = [RoundRecord(0, 4.0, math.nan, 10, 20, 0.1), RoundRecord(1, 2.0, 0.5, 10, 20, 0.1)]
BEGIN: list[ServerEvent] = [Started({"loss": "squared", "workers": 2}), Listening("r1", "127.0.0.1", 1)]


def tell(tracker: OnEvent, *events: ServerEvent) -> None:
    for event in (*BEGIN, Joined("w0", 1), *ROUNDS, *events):
        tracker(event)


def test_metrics_are_the_finite_numbers_of_a_run() -> None:
    assert "residual" not in round_metrics(ROUNDS[0])
    assert round_metrics(ROUNDS[1])["objective"] == 2.0
    assert final_metrics(REPORT) == {
        "final/seconds": 2.5,
        "final/uplink/load": 1.5,
        "final/uplink/payload_bytes": 40.0,
        "final/metrics/mean/coupled": 0.5,
    }


@pytest.mark.filterwarnings("default")
def test_mlflow_has_parameters_metrics_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    (tmp_path / "report.json").write_text("{}")
    tell(MLflowTracker("trial"), Finished(REPORT, (tmp_path / "report.json",)))
    tell(MLflowTracker("trial"), Failed("no worker is left"))
    client = mlflow.MlflowClient()
    found = client.search_runs([client.get_experiment_by_name("trial").experiment_id])
    done = next(run for run in found if run.info.status == "FINISHED")
    failed = next(run for run in found if run.info.status == "FAILED")
    assert len(found) == 2
    assert done.data.params == {"loss": "squared", "workers": "2"}
    assert done.data.metrics["final/uplink/load"] == 1.5
    history = client.get_metric_history(done.info.run_id, "objective")
    assert [(each.step, each.value) for each in history] == [(0, 4.0), (1, 2.0)]
    assert [file.path for file in client.list_artifacts(done.info.run_id)] == ["report.json"]
    assert failed.data.tags["reason"] == "no worker is left"
    with pytest.raises(UsageError, match="--mlflow must be the name of an experiment"):
        MLflowTracker(" ")


def test_a_run_that_fails_before_it_starts_is_not_in_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    MLflowTracker("trial")(Failed("an option is wrong"))
    assert not (tmp_path / "runs").exists()


def test_tensorboard_has_a_directory_for_each_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    tell(TensorBoardTracker(tmp_path), Finished(REPORT))
    (file,) = (tmp_path / "r1").iterdir()
    content, found = file.read_bytes(), []
    while content:
        # A record has its length in 8 bytes, a checksum of 4 bytes, and another one after it.
        length = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + length])
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        content = content[16 + length :]
    assert ("objective", 1, 2.0) in found
    assert ("up_bytes", 0, 10.0) in found
    assert ("final/uplink/load", 0, 1.5) in found
    assert any(tag.startswith("parameters") for tag, _, _ in found)


def test_a_run_that_fails_before_it_listens_has_no_directory(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    tracker = TensorBoardTracker(tmp_path / "runs")
    tracker(BEGIN[0])
    tracker(Failed("the address is in use"))
    assert not list((tmp_path / "runs").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--tensorboard must be a directory that can be written to"):
        TensorBoardTracker(tmp_path / "file")


@pytest.mark.parametrize(("option", "package"), [("mlflow", "mlflow"), ("tensorboard", "tensorboardX")])
def test_a_missing_package_is_named(
    option: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec(package) is not None:
        monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(UsageError, match=rf"--{option} needs: pip install 'asyncdmtl\[{option}\]'"):
        MLflowTracker("trial") if option == "mlflow" else TensorBoardTracker(tmp_path)
