"""Results of fitted estimators beyond predictions: models of scikit-learn, and the picture of the run."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import LabelBinarizer
from sklearn.svm import LinearSVC
from sklearn.utils.validation import check_is_fitted

from asyncdmtl.arrays import Floats
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import TaskModels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Per loss, the class of scikit-learn whose decisions follow from coefficients and intercept as ours do.
_CLASSES = {
    "squared": LinearRegression, "huber": LinearRegression, "logistic": LogisticRegression,
    "squared_hinge": LinearSVC,
}  # fmt: skip


class Results:
    """The methods of fitted estimators that turn results into other things."""

    loss: str
    n_features_in_: int
    feature_names_in_: Any
    classes_: Any
    tasks_: list[Hashable]
    coef_: Floats
    intercept_: Floats
    traffic_: dict[str, Any]
    history_: dict[str, Floats]

    def to_sklearn(self, task: Hashable) -> Any:
        """The model of one task as a fitted estimator of scikit-learn, for programs that know only those.

        Parameters
        ----------
        task : label
            One of `tasks_`.

        Returns
        -------
        LinearRegression for a regressor, or PoissonRegressor under Poisson loss; LogisticRegression or, for
        squared hinge loss, LinearSVC for two classes; OneVsRestClassifier of these for more. It predicts as
        this estimator does for the task.

        Raises
        ------
        UsageError
            There is no model of this task.
        """
        check_is_fitted(self)
        if task not in self.tasks_:
            raise UsageError("task", f"must be among the {len(self.tasks_)} of fit", task)
        t = self.tasks_.index(task)
        coef, intercept = self.coef_[t], self.intercept_[t]
        if not hasattr(self, "classes_"):
            if self.loss == "poisson":
                return self._as_fitted(_poisson(), coef, float(intercept))
            return self._as_fitted(LinearRegression(), coef, float(intercept))
        kind = _CLASSES[self.loss]
        if coef.ndim == 1:
            return self._as_fitted(kind(), coef[None], intercept[None], classes=self.classes_)
        whole = self._as_fitted(OneVsRestClassifier(kind()), classes=self.classes_)
        whole.estimators_ = [
            self._as_fitted(kind(), own[None], np.array([b]), classes=np.array([0, 1]))
            for own, b in zip(coef, intercept, strict=True)
        ]
        whole.label_binarizer_ = LabelBinarizer(sparse_output=True).fit(self.classes_)
        return whole

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draw the run: loads beside bounds, bytes, the objective, and the structure of the tasks.

        Parameters
        ----------
        path : str or Path, optional
            A file for the picture, whose ending selects the format.

        Returns
        -------
        matplotlib.figure.Figure
            Notebooks show it.

        Raises
        ------
        UsageError
            Matplotlib is not installed, or the file cannot be written.
        """
        check_is_fitted(self)
        # Imported here, because Matplotlib takes a second to import, and is an extra.
        from asyncdmtl.report.pictures import save_figure
        from asyncdmtl.report.run_pictures import draw_run

        rounds = [
            {"round": r, **dict(zip(self.history_, values, strict=True))}
            for r, values in enumerate(zip(*self.history_.values(), strict=True))
        ]
        model = None
        if self.coef_.ndim == 2:
            models = TaskModels(tuple(map(str, self.tasks_)), self.coef_, self.intercept_, self.loss)
            model = SavedModel(models, Encoding.empty(), Settings.from_dict(self.traffic_["settings"]))
        figure = draw_run({**self.traffic_, "rounds": rounds}, model)
        if path is not None:
            save_figure(figure, Path(path))
        return figure

    def _as_fitted(self, model: Any, coef: Any = None, intercept: Any = None, classes: Any = None) -> Any:
        """An estimator of scikit-learn with these results."""
        model.n_features_in_ = self.n_features_in_
        if hasattr(self, "feature_names_in_"):
            model.feature_names_in_ = self.feature_names_in_
        if coef is not None:
            model.coef_, model.intercept_ = coef, intercept
        if classes is not None:
            model.classes_ = classes
        return model


def _poisson() -> Any:
    """A PoissonRegressor with the loss that `predict` takes its link from, and `fit` sets."""
    model = PoissonRegressor()
    model._base_loss = model._get_loss()
    return model
