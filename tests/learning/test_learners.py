from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.problems import make_settings

from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.learners import check_learner, make_learner
from asyncdmtl.learning.local_learner import GradientDescent
from asyncdmtl.learning.scikit_learner import ScikitLearner
from asyncdmtl.learning.tasks import Partition


def test_no_text_is_gradient_descent_and_a_name_is_a_model_of_scikit_learn() -> None:
    assert isinstance(make_learner("", "squared", intercept=True), GradientDescent)
    assert isinstance(make_learner("SGDRegressor(alpha=0.0)", "squared", intercept=True), ScikitLearner)
    with pytest.raises(UsageError, match="learner must be one of SGDRegressor"):
        make_learner("Ridge", "squared", intercept=True)


def test_what_a_learner_cannot_train_on_is_found_before_the_run() -> None:
    both, ones = np.array([0.0, 1.0]), np.ones(2)
    partitions = [
        Partition("p0", "mixed", np.eye(2), both),
        Partition("p1", "mixed", np.eye(2), ones),
        Partition("p2", "ones", np.eye(2), ones),
    ]
    settings = make_settings(loss="logistic", update="model", learner="LogisticRegression")
    with pytest.raises(DataError, match=r"task 'mixed', partition 'p1': labels must be both .*, got 1.0"):
        check_learner(partitions, settings)
    # A task of one class is not checked if its intercept is free.
    check_learner([partitions[0], partitions[2]], settings)
    with pytest.raises(DataError, match="task 'ones'"):
        check_learner([partitions[0], partitions[2]], replace(settings, intercept="penalised"))
    for learner in ("", "SGDClassifier"):
        check_learner(partitions, replace(settings, learner=learner))
