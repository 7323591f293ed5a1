"""What fitted estimators give beyond predictions: models for other programs, tables, and pictures."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from asyncdmtl.arrays import Floats
from asyncdmtl.data.coefficients import coefficient_table
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.data.onnx_models import onnx_of_array
from asyncdmtl.data.scikit_models import linear_model
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import TaskModels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The most rounds of `history_` in a pickle, so that the models are most of it: each takes 48 bytes.
_KEPT_ROUNDS = 100


class Results:
    """The methods of fitted estimators that turn results into other things."""

    loss: str
    unknown: str
    n_features_in_: int
    feature_names_in_: Any
    classes_: Any
    tasks_: list[Hashable]
    coef_: Floats
    intercept_: Floats
    traffic_: dict[str, Any]
    history_: dict[str, Any]
    n_iter_: int

    def __getstate__(self) -> dict[str, Any]:
        """The state for pickles and copies, with no more than `_KEPT_ROUNDS` rounds of `history_`."""
        # A copy, because the base may return the attributes themselves.
        state: dict[str, Any] = {**super().__getstate__()}  # type: ignore[dict-item]
        if len(rounds := state.get("history_", {}).get("round", ())) > _KEPT_ROUNDS:
            kept = np.linspace(0, len(rounds) - 1, _KEPT_ROUNDS).round().astype(int)
            state["history_"] = {name: values[kept] for name, values in state["history_"].items()}
        return state

    def set_output(self, *, transform: str | None = None) -> Self:
        """Choose what `predict` returns: "default" for arrays, "pandas" for a Series or DataFrame.

        A Series or DataFrame has the index of `X`, if `X` has one. (scikit-learn offers this choice for
        transformers only.)

        Raises
        ------
        UsageError
            `transform` is another word.
        """
        if transform not in (None, "default", "pandas"):
            raise UsageError("transform", "must be default or pandas", transform)
        if transform is not None:
            self._sklearn_output_config = {"transform": transform}
        return self

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
        model = linear_model(self.loss, self.coef_[t], self.intercept_[t], getattr(self, "classes_", None))
        if hasattr(self, "feature_names_in_"):
            model.feature_names_in_ = self.feature_names_in_
        return model

    def to_onnx(self) -> Any:
        """The models of all tasks as one model of ONNX, in float64.

        Inputs are `X` (rows, features), float64, and `tasks` (rows, 1), texts or int64. Outputs are
        `prediction` (rows,) and, for classifiers, `score` (rows,) or (rows, classes), and under logistic loss
        `probabilities` (rows, classes). For a task that was not in `fit`, ONNX Runtime fails, unless the
        parameter `unknown` is "mean".

        Returns
        -------
        onnx.ModelProto

        Raises
        ------
        UsageError
            The package onnx is not installed; or labels of tasks, or classes, are of types that ONNX lacks.
        """
        check_is_fitted(self)
        classes = getattr(self, "classes_", None)
        return onnx_of_array(self.tasks_, self.coef_, self.intercept_, self.loss, classes, self.unknown)

    def coefficients(self) -> Any:
        """The coefficients of all tasks as a pandas DataFrame.

        Returns
        -------
        (1 + features, T) DataFrame
            A row for the intercept and for each feature, a column for each task; with K > 2 classes, a column
            for each task and class.

        Raises
        ------
        UsageError
            pandas is not installed.
        """
        check_is_fitted(self)
        features = getattr(self, "feature_names_in_", [f"x{f}" for f in range(self.n_features_in_)])
        models: list[Any] = self.tasks_
        if self.coef_.ndim == 3:
            models = [(task, label) for task in self.tasks_ for label in self.classes_.tolist()]
        coef = self.coef_.reshape(-1, self.coef_.shape[-1])
        return coefficient_table(models, list(features), coef, self.intercept_.reshape(-1))

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

        history = _complete(self.history_, self.n_iter_)
        rounds = [dict(zip(history, values, strict=True)) for values in zip(*history.values(), strict=True)]
        model = None
        if self.coef_.ndim == 2:
            models = TaskModels(tuple(map(str, self.tasks_)), self.coef_, self.intercept_, self.loss)
            model = SavedModel(models, Encoding.empty(), Settings.from_dict(self.traffic_["settings"]))
        figure = draw_run({**self.traffic_, "rounds": rounds}, model)
        if path is not None:
            save_figure(figure, Path(path))
        return figure


def _complete(history: dict[str, Any], rounds: int) -> dict[str, Any]:
    """The history of all rounds; values between those that a pickle kept are interpolated."""
    kept = history["round"]
    if len(kept) == rounds:
        return history
    # The picture adds up the bytes of all rounds. It shows no residuals, some of which may be infinite.
    every = np.arange(rounds)
    return {name: every if name == "round" else np.interp(every, kept, history[name]) for name in history}
