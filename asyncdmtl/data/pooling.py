"""One encoding from the surveys of all partitions.

- Numbers: a missing value becomes the mean over all sites. With `standardise`, the mean is subtracted and the
  difference is divided by the standard deviation, as scikit-learn's `StandardScaler` does. Missing values do
  not count in mean and deviation.
- Text, and true and false: each category becomes a column of 0 and 1; two categories become one column. If
  values are missing, the missing value is a category of its own. A category that occurs at no site in
  training is encoded as zeros.
- A column that is the same in all rows adds nothing to an intercept. It is left out with a warning.
- A target that is a number is centred: its mean over all sites is subtracted, and added back to predictions.
  With a free intercept this changes no prediction; a penalised intercept shrinks towards that mean.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Mapping, Sequence

from asyncdmtl.data.columns import as_text
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.features import CategoryColumn, EncodedColumn, NumberColumn
from asyncdmtl.data.moments import Moments
from asyncdmtl.data.surveys import (
    ONE_KIND,
    Categories,
    ColumnSurvey,
    Survey,
    check_categories,
    common_classes,
)
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.plan.placement import natural_key

log = logging.getLogger(__name__)

# The factor between the sizes of raw columns above which a warning tells of it. The rounds of gradients grow
# with its square, and digits of a solution are lost with it.
MOST_SIZES = 1e3

# The factor between the spread of a column in one partition and in most, above which a warning names the
# partition. It decides the column's scale and mean for all sites: a factor of 1,000 takes three digits from
# the others.
MOST_SPREAD = 1e3

# The least standard deviation of a column of numbers; that of `LEAST_SQUARES` is far below.
_LEAST_SCALE = 2.0**-450


def pool(surveys: Mapping[str, Survey], loss: str, *, standardise: bool, centre: bool = False) -> Encoding:
    """The encoding that follows from the surveys of all partitions; their order does not matter.

    Parameters
    ----------
    surveys : mapping of partition id to Survey
    loss : str
        A name in `LOSSES`.
    standardise : bool
        Whether columns of numbers are shifted and scaled to mean 0 and standard deviation 1 over all
        partitions.
    centre : bool
        Whether a target that is a number is shifted to mean 0.

    Returns
    -------
    Encoding
        Columns are in the order of the first partition. The encoding is empty if all surveys are.

    Raises
    ------
    DataError
        Partitions disagree on the columns, on the kind of a column, or on the target; all features are
        constant; a column has too many categories; rows have weights in some partitions only; or the target
        does not suit the loss. The error names the column and a partition.
    """
    if loss not in LOSSES:
        raise UsageError("loss", f"must be one of {', '.join(LOSSES)}", loss)
    ordered = {id_: surveys[id_] for id_ in sorted(surveys, key=natural_key)}
    from_files = [id_ for id_, survey in ordered.items() if not survey.is_empty]
    if not from_files:
        return Encoding.empty()
    if len(from_files) < len(ordered):
        prepared = [id_ for id_ in ordered if ordered[id_].is_empty]
        rule = f"must come from files, as {from_files[0]!r}, or all be of numbers"
        raise DataError("partitions", rule, prepared)
    targets = {id_: survey.target for id_, survey in ordered.items() if survey.target}
    target, classes = common_classes(targets, loss)
    offset = 0.0
    if centre and classes is None:
        offset = Moments.pooled([labels.moments for labels in targets.values()]).mean
    _check_weights(ordered)
    _warn_of_copies(ordered)
    names = _common_columns(ordered)
    _warn_of_unlike(f"target {target!r}", {id_: labels.moments for id_, labels in targets.items()})
    columns: list[EncodedColumn] = []
    dropped: dict[str, str] = {}
    for name in names:
        made = _column(
            name, {id_: survey.columns[name] for id_, survey in ordered.items()}, ordered, standardise
        )
        if isinstance(made, str):
            dropped[name] = made
        else:
            columns.append(made)
    if not columns:
        raise DataError("features", "must not all be constant", dropped)
    _warn(dropped)
    if not standardise:
        _warn_of_sizes(columns, ordered)
    return Encoding(tuple(columns), dropped, target, classes, offset)


def _warn(dropped: Mapping[str, str]) -> None:
    """Warn of the columns that are left out, in one line for each reason."""
    for reason in dict.fromkeys(dropped.values()):
        names = [name for name, own in dropped.items() if own == reason]
        if len(names) == 1:
            log.warning("column %r is left out: %s", *names, reason)
        else:
            log.warning("columns %s are left out: each %s", names, reason.removeprefix("it "))


def _warn_of_sizes(columns: Sequence[EncodedColumn], surveys: Mapping[str, Survey]) -> None:
    """Warn if columns of numbers differ so much in size that training on them as they are is unsafe."""
    sizes: dict[str, float] = {}
    for column in columns:
        if isinstance(column, NumberColumn):
            parts = [survey.columns[column.name] for survey in surveys.values()]
            moments = Moments.pooled([part for part in parts if isinstance(part, Moments)])
            sizes[column.name] = abs(moments.mean) + math.sqrt(moments.M2 / moments.count)
    if not sizes:
        return
    small, large = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
    if sizes[large] > MOST_SIZES * sizes[small]:
        log.warning(
            "columns %r and %r differ in size by a factor of %.0e: trained on as they are, models may end "
            "far from the least objective, or take very many rounds; --standardise brings all to one scale",
            small, large, sizes[large] / sizes[small],
        )  # fmt: skip


def _warn_of_unlike(what: str, surveys: Mapping[str, ColumnSurvey]) -> None:
    """Warn of partitions whose numbers spread so much more than those of most that they decide the scale.

    A partition's spread is its standard deviation plus the distance of its mean from the median of all means.
    """
    told = {id_: m for id_, m in surveys.items() if isinstance(m, Moments) and m.count}
    if len(told) < 3:
        return
    centre = statistics.median(moments.mean for moments in told.values())
    spreads = {id_: math.sqrt(m.M2 / m.count) + abs(m.mean - centre) for id_, m in told.items()}
    usual = statistics.median(spreads.values())
    unlike = [id_ for id_, spread in spreads.items() if spread > MOST_SPREAD * usual > 0.0]
    if unlike:
        log.warning(
            "%s: in %s the numbers spread %.0e times as far as in most partitions, and decide the mean and "
            "the scale with which all sites encode it; check these partitions, or leave their workers out",
            what, ", ".join(map(repr, unlike)), max(spreads.values()) / usual,
        )  # fmt: skip


def _check_weights(surveys: Mapping[str, Survey]) -> None:
    """Refuse weights of rows in some partitions only."""
    weighted = [id_ for id_, survey in surveys.items() if survey.weighted]
    if weighted and len(weighted) < len(surveys):
        without = next(id_ for id_, survey in surveys.items() if not survey.weighted)
        rule = f"must be in all partitions or in none (--weight, sample_weight): not in {without!r}, but in"
        raise DataError("weights of rows", rule, weighted[0])


def _warn_of_copies(surveys: Mapping[str, Survey]) -> None:
    """Warn of partitions that have the same rows under different names."""
    seen: dict[tuple[int, str], str] = {}
    for id_, survey in surveys.items():
        other = seen.setdefault((survey.rows, survey.fingerprints.rows), id_)
        if other != id_ and survey.rows > 1:
            log.warning("partitions %r and %r have the same rows, which count twice", other, id_)


def _common_columns(surveys: Mapping[str, Survey]) -> tuple[str, ...]:
    """The names of the columns, which every partition must have, in the order of the first partition."""
    all_names = dict.fromkeys(name for survey in surveys.values() for name in survey.columns)
    for id_, survey in surveys.items():
        for name in all_names:
            if name not in survey.columns:
                rule = f"must be in every partition; in {id_!r}"
                raise DataError(f"column {name!r}", rule, list(survey.columns))
    return tuple(all_names)


def _column(
    name: str, surveys: Mapping[str, ColumnSurvey], partitions: Mapping[str, Survey], standardise: bool
) -> EncodedColumn | str:
    """The encoding of a column, or the reason why it is left out."""
    text = {id_: survey for id_, survey in surveys.items() if isinstance(survey, Categories)}
    numbers = {id_: survey for id_, survey in surveys.items() if isinstance(survey, Moments)}
    counted = [id_ for id_, moments in numbers.items() if moments.count]
    if text and counted:
        id_, other = next(iter(text)), counted[0]
        rule = f"{ONE_KIND}: it has numbers in partition {other!r}, and text in {id_!r}"
        # Which text it is stays at its site: the error goes to all sites.
        raise DataError(f"column {name!r}", rule, id_)
    try:
        if not text:
            _warn_of_unlike(f"column {name!r}", numbers)
            return _number_column(name, Moments.pooled(list(numbers.values())), standardise)
        values = {value for survey in text.values() for value in survey.values}
        rows = sum(partitions[id_].rows - survey.missing for id_, survey in text.items())
        check_categories(values, rows)
    except DataError as error:
        raise DataError(f"column {name!r}", error.rule, error.value) from error
    missing = rows < sum(survey.rows for survey in partitions.values())
    if len(values) == 1 and not missing:
        return f"it is constant: {next(iter(values))!r} in every row"
    return CategoryColumn(name, tuple(sorted(values, key=natural_key)), missing)


def _number_column(name: str, moments: Moments, standardise: bool) -> NumberColumn | str:
    if not moments.count:
        return "it never has a value"
    scale = math.sqrt(moments.M2 / moments.count)
    if 0.0 < scale < _LEAST_SCALE:
        rule = "has numbers that differ by too little to be squared (give it in other units, or --omit it)"
        raise DataError(f"column {name!r}", f"{rule}; their standard deviation is at most", scale)
    if not moments.M2:
        return f"it is constant: {as_text(moments.mean)} in every row"
    if not standardise:
        return NumberColumn(name, moments.mean, 0.0, 1.0)
    return NumberColumn(name, moments.mean, moments.mean, scale)
