from __future__ import annotations

import pickle

import pytest
from sklearn.base import clone

from asyncdmtl import CodedMultiTaskRegressor
from asyncdmtl.errors import UsageError


class Client:
    """A client as that of Dask: it cannot be copied."""

    def __reduce__(self) -> str:
        raise TypeError("a client cannot be copied")


def test_clones_keep_a_client_and_pickles_have_threads_in_its_place() -> None:
    client = Client()
    model = CodedMultiTaskRegressor(strength=0.5, cluster=client)
    assert clone(model).cluster is client
    assert clone(model).strength == 0.5
    copied = pickle.loads(pickle.dumps(model))
    assert (copied.cluster, copied.strength) == ("threads", 0.5)
    assert model.cluster is client


def test_other_clusters_are_pickled_as_they_are() -> None:
    model = CodedMultiTaskRegressor(cluster="127.0.0.1:7700")
    assert pickle.loads(pickle.dumps(model)).cluster == clone(model).cluster == "127.0.0.1:7700"


def test_clones_keep_a_callback_and_pickles_have_none() -> None:
    seen: list[object] = []
    model = CodedMultiTaskRegressor(on_event=seen.append)
    assert clone(model).on_event == seen.append
    assert pickle.loads(pickle.dumps(model)).on_event is None
    with pytest.raises(UsageError, match="on_event must be a function of an event, or None, got 'loud'"):
        CodedMultiTaskRegressor(on_event="loud").fit([[0.0], [1.0]], [0.0, 1.0])
