"""scikit-learn estimators: a linear model for each task, all trained together in a coded distributed run.

::

    from asyncdmtl import CodedMultiTaskRegressor

    model = CodedMultiTaskRegressor(coupling="nuclear", strength=0.1)
    model.fit(X, y, tasks=school)                 # or tasks="school", a column of the DataFrame X
    model.predict(X_new, tasks=school_new)
    model.traffic_["uplink"]["measured_load"], model.plan_.uplink_bound
"""

from asyncdmtl.estimators.models import (
    CodedMultiTaskClassifier,
    CodedMultiTaskClassifierCV,
    CodedMultiTaskRegressor,
    CodedMultiTaskRegressorCV,
)

__all__ = [
    "CodedMultiTaskClassifier",
    "CodedMultiTaskClassifierCV",
    "CodedMultiTaskRegressor",
    "CodedMultiTaskRegressorCV",
]
