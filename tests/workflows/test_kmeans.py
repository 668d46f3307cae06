"""k-means beside scikit-learn's, and the same with slaves that die."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans

import veloflow
from veloflow.units import digits


def centres_of(result):
    return result.graph["Centres"].centres


def test_it_is_lloyds_algorithm():
    data, _ = digits()
    theirs = KMeans(10, init=data[:10], n_init=1, algorithm="lloyd", tol=0, max_iter=100).fit(data)
    ours = veloflow.run("digits_kmeans", device="numpy")
    assert ours.more["inertia"] == pytest.approx(theirs.inertia_, rel=1e-9)
    assert ours.more["rounds"] == theirs.n_iter_
    np.testing.assert_allclose(centres_of(ours), theirs.cluster_centers_, atol=1e-9)
    labels = np.concatenate([one["labels"] for one in ours.graph["FarmMap"].outputs])
    assert (labels == theirs.labels_).all()


def test_blocks_change_nothing_but_rounding():
    one = veloflow.run("digits_kmeans", device="numpy", block=200)
    two = veloflow.run("digits_kmeans", device="numpy", block=333)
    assert one.more["inertia"] == pytest.approx(two.more["inertia"], rel=1e-9)


@pytest.mark.cluster
@pytest.mark.slow
def test_slaves_give_the_same_bits():
    alone = veloflow.run("digits_kmeans", device="numpy")
    shared = veloflow.run("digits_kmeans", device="numpy", slaves=2)
    assert (centres_of(alone) == centres_of(shared)).all()
    assert shared.more["jobs"]["accepted"] == 9 * 14


def test_it_stops_after_so_many_rounds():
    whole = veloflow.run("digits_kmeans", device="numpy")
    short = veloflow.run("digits_kmeans", device="numpy", rounds=5)
    assert short.more["rounds"] == 5
    assert short.more["inertia"] > whole.more["inertia"]
