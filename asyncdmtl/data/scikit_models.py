"""Models as fitted estimators of scikit-learn, which need nothing of this package to predict."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Floats
from asyncdmtl.data.columns import label_of
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.features import CategoryColumn, NumberColumn
from asyncdmtl.errors import UsageError

MISSING = ""
"""The text of a missing category in models that go elsewhere; no category is empty."""


def linear_model(loss: str, coef: Floats, intercept: Any, classes: NDArray[Any] | None = None) -> Any:
    """A fitted linear model of scikit-learn with these coefficients.

    Parameters
    ----------
    loss : str
        A name in `LOSSES`.
    coef : (F,) float64 array; or (K, F) for K > 2 classes, each against the rest
    intercept : float; or (K,) float64 array
    classes : (K,) array or None
        The classes of a classification.

    Returns
    -------
    LinearRegression, or PoissonRegressor under Poisson loss; LogisticRegression or, for squared hinge loss,
    LinearSVC for two classes; OneVsRestClassifier of these for more.
    """
    # Imported here, because scikit-learn takes half a second to import.
    from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.preprocessing import LabelBinarizer
    from sklearn.svm import LinearSVC

    if classes is None:
        model = PoissonRegressor() if loss == "poisson" else LinearRegression()
        if loss == "poisson":
            # `predict` takes its link from this attribute, which `fit` sets.
            model._base_loss = model._get_loss()
        model.coef_, model.intercept_ = coef, float(intercept)
    elif coef.ndim == 1:
        model = LogisticRegression() if loss == "logistic" else LinearSVC()
        model.coef_, model.intercept_, model.classes_ = coef[None], np.array([float(intercept)]), classes
    else:
        parts = [linear_model(loss, own, b, np.array([0, 1])) for own, b in zip(coef, intercept, strict=True)]
        model = OneVsRestClassifier(type(parts[0])())
        model.estimators_, model.classes_ = parts, classes
        model.label_binarizer_ = LabelBinarizer(sparse_output=True).fit(classes)
    model.n_features_in_ = coef.shape[-1]
    return model


def pipeline(encoding: Encoding, loss: str, coef: Floats, intercept: float) -> Any:
    """A fitted Pipeline of scikit-learn that encodes a DataFrame and predicts by a linear model.

    The columns of the DataFrame are `encoding.sources`. A missing number is NaN; a missing category is None
    or NaN. Columns of categories that are all numbers are numbers there, as pandas reads them. Unknown
    categories cause a warning, and encode as zeros.

    Parameters
    ----------
    encoding : Encoding
        Not empty.
    loss : str
        A name in `LOSSES`.
    coef : (F,) float64 array
    intercept : float
        With the offset of the target in it.

    Raises
    ------
    UsageError
        pandas is not installed.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    try:
        import pandas as pd
    except ImportError as error:
        raise UsageError("to_sklearn", "takes DataFrames, which need: pip install pandas", None) from error
    groups: dict[str, list[int]] = {"numbers": [], "categories": [], "numbered_categories": []}
    for i, column in enumerate(encoding.columns):
        groups[_group(column)].append(i)
    steps, order = [], []
    example: dict[str, list[Any]] = {}
    starts = np.cumsum([0, *(len(column.features) for column in encoding.columns)])
    for group, own in groups.items():
        columns: list[Any] = [encoding.columns[i] for i in own]
        if own:
            made = _number_step(columns) if group == "numbers" else _category_step(columns, group)
            steps.append((group, made, [column.name for column in columns]))
        example |= {column.name: [0.0 if group != "categories" else ""] for column in columns}
        order += [f for i in own for f in range(starts[i], starts[i + 1])]
    encode = ColumnTransformer(steps, sparse_threshold=0.0)
    with warnings.catch_warnings(action="ignore"):  # the example is in no category
        encode.fit(pd.DataFrame({name: example[name] for name in encoding.sources}))
    if numbers := [column for column in encoding.columns if isinstance(column, NumberColumn)]:
        _set_numbers(encode.named_transformers_["numbers"], numbers)
    classes = encoding.labels_of(loss)
    return Pipeline([("encode", encode), ("model", linear_model(loss, coef[order], intercept, classes))])


def _group(column: NumberColumn | CategoryColumn) -> str:
    if isinstance(column, NumberColumn):
        return "numbers"
    numbers = all(isinstance(label_of(value), int | float) for value in column.values)
    return "numbered_categories" if numbers else "categories"


def _number_step(columns: Sequence[NumberColumn]) -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    return Pipeline([("impute", SimpleImputer(keep_empty_features=True)), ("scale", StandardScaler())])


def _set_numbers(step: Any, columns: Sequence[NumberColumn]) -> None:
    """Set what `fit` would learn from the rows of training."""
    impute, shift, scale = np.array([(own.impute, own.shift, own.scale) for own in columns]).T
    step.named_steps["impute"].statistics_ = impute
    scaler = step.named_steps["scale"]
    scaler.mean_, scaler.scale_, scaler.var_ = shift, scale, scale**2


def _category_step(columns: Sequence[CategoryColumn], group: str) -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    numbered = group == "numbered_categories"
    missing = np.nan if numbered else MISSING
    levels = [
        np.array(
            [*(float(value) if numbered else value for value in column.values), *[missing] * column.missing],
            dtype=np.float64 if numbered else np.object_,
        )
        for column in columns
    ]
    encode = OneHotEncoder(categories=levels, drop="if_binary", handle_unknown="warn", sparse_output=False)
    if numbered:
        return encode
    fill = {"strategy": "constant", "fill_value": MISSING, "keep_empty_features": True}
    # In this order, because the imputer of None refuses NaN.
    nan, none = (SimpleImputer(missing_values=value, **fill) for value in (np.nan, None))
    return Pipeline([("nan", nan), ("none", none), ("indicate", encode)])
