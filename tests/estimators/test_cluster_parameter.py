from __future__ import annotations

import pickle

from sklearn.base import clone

from asyncdmtl import CodedMultiTaskRegressor


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
