"""`asyncdmtl run`: a server and workers on this machine, and a report of the run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from asyncdmtl.cli.blind_options import UNCODED, blind_option, new_group_secret
from asyncdmtl.cli.command import command
from asyncdmtl.cli.dashboard_options import DashboardOptions, dashboard_options, page_options, show
from asyncdmtl.cli.data_options import data_options
from asyncdmtl.cli.job_options import check_alone, job_options
from asyncdmtl.cli.link_options import link_options, make_links
from asyncdmtl.cli.multicast_options import downlink_options, make_multicast, takes_from_peers
from asyncdmtl.cli.outputs import check_outputs
from asyncdmtl.cli.relay_options import make_topology, relays_option
from asyncdmtl.cli.run_jobs import LocalStream, PreparedJob, make_jobs
from asyncdmtl.cli.tracker_options import Tracking, tracker_options
from asyncdmtl.cli.training_options import DEFAULT_STRATEGY, make_settings, training_options
from asyncdmtl.data import loading
from asyncdmtl.data.class_weights import BALANCED
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.data.table import TASK
from asyncdmtl.errors import UsageError
from asyncdmtl.launch.processes import worker_process
from asyncdmtl.launch.relays import LocalTree
from asyncdmtl.launch.results import agreed_models
from asyncdmtl.launch.threads import serve
from asyncdmtl.learning.learners import check_learner
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.metrics import metrics_for
from asyncdmtl.learning.selection import select_strength
from asyncdmtl.learning.settings import AUTO, FEW_COUPLINGS, Choice, Settings
from asyncdmtl.learning.statistics_selection import Selection
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.learning.updates import chooses_across
from asyncdmtl.net.addresses import parse_address
from asyncdmtl.net.authentication import is_loopback
from asyncdmtl.net.event_loop import run
from asyncdmtl.plan.building import wanted_models
from asyncdmtl.plan.hierarchy.topology import Topology
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.placement_file import read_request, write_placement
from asyncdmtl.plan.rates.stragglers import check_copies
from asyncdmtl.report.evaluation import evaluate, learning_curve
from asyncdmtl.report.json_output import emit, write_report
from asyncdmtl.report.pictures import check_picture
from asyncdmtl.report.progress_bar import RunProgress
from asyncdmtl.report.relay_report import report_tree
from asyncdmtl.report.run_pictures import plot_run
from asyncdmtl.report.run_report import report_run
from asyncdmtl.report.run_tables import show_run
from asyncdmtl.server.records import RunOptions, RunRecord
from asyncdmtl.server.wants import check_wants

# Worker processes that are started if neither --workers nor --placement is given.
DEFAULT_WORKERS = 5

# Workers that store each partition if neither --copies nor --placement is given.
DEFAULT_COPIES = 3

# How the rows of files are split by default: the share of rows held out for tests, and the number of
# partitions that each task's training rows are cut into.
TABLE_CUT = {"test_fraction": 0.2, "parts": 2}

# Folds of a cross-validation by gradients, in this process.
FOLDS = 3

# The most rounds of one fit of the cross-validation, which starts from the models of the λ before. Held-out
# losses differ little after that, and rounds with a median never come to rest.
FIT_ROUNDS = 150


# Names of partitions that an error shows.
MOST_NAMES = 5


@command("run")
@data_options
@click.option("--workers", type=int, show_default=str(DEFAULT_WORKERS), help="Worker processes to start.")
@click.option(
    "--copies",
    type=int,
    show_default=str(DEFAULT_COPIES),
    help="Workers that store each partition, cyclically.",
)
@click.option(
    "--placement",
    type=click.Path(path_type=Path),
    help="TOML or JSON file with the partitions that each worker stores; instead of --workers and --copies. "
    "Its table `wants`, if it has one, says which workers only help.",
)
@click.option(
    "--by-file",
    is_flag=True,
    help="Rehearse what workers with files of their own will do: each file's rows of a task are a partition, "
    "FILE/TASK, and workers keep rows for tests themselves. --placement may come from `worker --declare`. "
    "Copies of a file are one file.",
)
@click.option(
    "--class-weight",
    type=click.Choice((BALANCED,)),
    help="balanced: both classes of a task have the same total weight in training. For files that are cut "
    "into partitions here, so not with --by-file.",
)
@training_options
@link_options
@downlink_options
@blind_option
@relays_option
@click.option(
    "--report", "report_file", type=click.Path(path_type=Path), help="Write the report here as JSON."
)
@click.option(
    "--plot", "plot_file", type=click.Path(path_type=Path), help="Draw loads, objective and metric here."
)
@click.option("--save", type=click.Path(path_type=Path), help="Write the models of all tasks here (.npz).")
@job_options
@page_options
@tracker_options
def main(
    workers: int | None,
    copies: int | None,
    placement: Path | None,
    report_file: Path | None,
    plot_file: Path | None,
    save: Path | None,
    dashboard: str | None,
    dashboard_token_file: Path | None,
    format: str,
    **given: Any,
) -> None:
    """Train on this machine: one server and worker processes that talk over TCP.

    Prints test metrics beside single-task training, and measured traffic beside the lower bound and beside
    uncoded exchange. Exit codes: 0 done, 1 failed, 2 usage, 3 connection, 4 authentication, 5 timeout,
    6 decoding or integrity, 130 interrupted, 143 terminated.
    """
    check_outputs({"--report": report_file, "--plot": plot_file, "--save": save})
    check_picture(plot_file)
    given = given | {"links": make_links(given)}
    shown = _dashboard(dashboard, dashboard_token_file)
    if loading.is_table(given["data"]):
        cut = {name: TABLE_CUT[name] for name in TABLE_CUT if given[name] is None}
        given = given | (cut if not given["by_file"] else {**cut, "parts": given["parts"]})
    loaded = loading.load(given)
    _check_class_weight(given, loaded)
    chosen, wants, listed = _placement(loaded, workers, copies, placement)
    if given["strategy"] is None:
        # Without a second copy nothing can be coded, and relay sends more than others do.
        once = all(len(holders) == 1 for holders in chosen.holders)
        unshared = UNCODED if given["blind"] else AUTO
        given = given | {"strategy": unshared if once else DEFAULT_STRATEGY}
    given = given | {"tree": _tree(given, make_topology(given, chosen, listed))}
    if given["jobs_file"] is not None:
        check_alone({"--plot": plot_file, "--dashboard": shown}, given)
        words = _worker_words(given)
        stream = LocalStream(chosen, wants, words, format, report_file, save)
        make_jobs(stream, given, partial(_prepare_job, loaded, chosen, wants), agreed_models)
        return
    given["links"].check(given["strategy"])
    check_copies(chosen, given["silent"])
    settings, prepared = _prepare(loaded, given)
    _check_wants(chosen, wants, {p.id: p.task for p in prepared.partitions}, given["strategy"], settings)
    with Tracking(given) as tracking:
        record, models, settings, spread = _train(chosen, wants, settings, given, shown, tracking)
        report = report_run(record) | {"models_spread": spread} | _links(given["tree"], record)
        if prepared.test:
            metric = loaded.metric or metrics_for(settings.loss)[0]
            rows = prepared.partitions, prepared.test
            report["metrics"] = evaluate(*rows, models, settings, metric)
            if report_file is not None or plot_file is not None:
                # The learning curve takes a replay of the whole training, and only the report file shows it.
                report["learning_curve"] = learning_curve(*rows, settings, metric, len(record.rounds))
        model = SavedModel(models, prepared.encoding, settings, loaded.task or TASK, report)
        # Files are written first, so that an error of the terminal or of a tracker cannot lose them.
        if save is not None:
            model.save(save)
        if report_file is not None:
            write_report(report, report_file)
        if plot_file is not None:
            plot_run(report, plot_file, model, given["data"])
        tracking.finish(report, model)
    if format == "json":
        emit({"event": "finished", "report": report})
    else:
        show_run(report)


def _tree(given: Mapping[str, Any], topology: Topology | None) -> LocalTree | None:
    """The relays of the run, if it has any."""
    words = _words(given, "log_level", "log_format", "log_file")
    return None if topology is None else LocalTree(topology, words)


def _links(tree: LocalTree | None, record: RunRecord) -> dict[str, Any]:
    """The part of the report about the links of a tree."""
    return {} if tree is None else {"tree": report_tree(tree.topology, record, tree.links)}


def _prepare_job(
    loaded: loading.Loaded, chosen: Placement, wants: Sequence[str], given: Mapping[str, Any], target: str
) -> PreparedJob:
    """Prepare a job of a stream: its rows for the column that it predicts, and its settings."""
    here = loading.load({**given, "target": target}) if target else loaded
    own = dict(given)
    _check_class_weight(own, here)
    own["links"].check(own["strategy"])
    settings, prepared = _prepare(here, own)
    _check_wants(chosen, wants, {p.id: p.task for p in prepared.partitions}, own["strategy"], settings)
    return PreparedJob(here, settings, prepared)


def _dashboard(address: str | None, token_file: Path | None) -> DashboardOptions | None:
    """The options of the dashboard, which has no TLS here, and so is for this machine only."""
    if address is not None and not is_loopback(host := parse_address(address, "--dashboard")[0]):
        rule = "must be a loopback address, which `ssh -L` shows elsewhere; the dashboard of server has TLS"
        raise UsageError("--dashboard", rule, host)
    return dashboard_options(address, token_file, None, None, insecure=False)


def _check_class_weight(given: dict[str, Any], loaded: loading.Loaded) -> None:
    """UsageError if classes are to be balanced under a loss that knows none."""
    loss = given["loss"] or loaded.defaults["loss"]
    if given["class_weight"] is not None and not LOSSES[loss].classification:
        rule = f"is for losses of classes, and the loss is {loss}"
        raise UsageError("--class-weight", rule, given["class_weight"])


def _prepare(loaded: loading.Loaded, given: dict[str, Any]) -> tuple[Settings, loading.Prepared]:
    """The settings of the run and its rows as numbers.

    If neither option nor recipe says what λ is, cross-validation chooses it, and for files the coupling too.
    Rows for tests are set aside here, so workers are not asked to keep any, except with --by-file.
    """
    if not given["by_file"]:
        given = given | {"test_fraction": None}
    if given["coupling"] == AUTO:
        given = given | {"coupling": None, "strength": AUTO}
    suggested = given["strength"] is None and "strength" in loaded.defaults
    if suggested or isinstance(given["strength"], float):
        settings = make_settings(loaded.defaults, given)
        return settings, _encoded(loaded, settings)
    given = given | {"strength": None}
    settings = make_settings({**loaded.defaults, "strength": 0.0}, given)
    prepared = _encoded(loaded, settings)
    if len(prepared.tasks) == sum(p.rows for p in prepared.partitions):
        rule = "must be given: with a single row to train on for each task, cross-validation cannot choose it"
        raise UsageError("--strength", rule, None)
    open_ = loading.is_table(given["data"]) and given["coupling"] is None
    rows, features = min(p.rows for p in prepared.partitions), prepared.partitions[0].features
    personal = given["strategy"] == "personal" and settings.loss != "squared"
    both = open_ and given["intercept"] is None and settings.intercept == "free"
    if chooses_across(settings, features, rows, len(prepared.tasks)) and not personal:
        # A run with statistics or Newton's steps chooses λ, and the coupling, itself, in its rounds.
        kind = AUTO if both else settings.intercept
        coupling = AUTO if open_ else settings.coupling
        return replace(settings, coupling=coupling, intercept=kind, strength=None), prepared
    couplings: Sequence[str] = (settings.coupling,)
    if open_ and len(prepared.tasks) > 1:
        couplings = FEW_COUPLINGS
    return _cross_validated(settings, prepared, couplings, both=both), prepared


def _cross_validated(
    settings: Settings, prepared: loading.Prepared, couplings: Sequence[str], *, both: bool
) -> Settings:
    """The settings with the coupling and the λ of least held-out loss, which are also printed on stderr.

    If `both`, the best coupling is tried with a penalised intercept too, as in a run that chooses.
    """
    # No other process makes these fits, so that their last bits matter to none.
    fits = replace(settings, rounds=min(settings.rounds, FIT_ROUNDS), arithmetic="fast")
    with RunProgress(None) as progress:

        def tried(choice: Choice) -> Selection:
            own = replace(fits, coupling=choice.coupling, intercept=choice.intercept)
            return select_strength(prepared.partitions, own, folds=FOLDS, on_strength=progress.note_strength)

        found = {choice: tried(choice) for choice in (Choice(c, settings.intercept) for c in couplings)}
        if both:
            leading = min(found, key=lambda choice: found[choice].loss)
            second = Choice(leading.coupling, "penalised")
            found[second] = tried(second)
    (coupling, intercept), selection = min(found.items(), key=lambda item: item[1].loss)
    if len(selection.strengths) > 1:
        named = f"coupling {coupling}, " if len(couplings) > 1 else ""
        named += f"{intercept} intercept, " if both else ""
        words = f"{named}λ = {selection.strength:.4g}, by cross-validation ({FOLDS} folds)"
        click.echo(words, err=True)
    return replace(settings, coupling=coupling, intercept=intercept, strength=selection.strength)


def _encoded(loaded: loading.Loaded, settings: Settings) -> loading.Prepared:
    # The server pools the same surveys later; it warns of columns that are left out, so this need not.
    with loading.unwarned():
        prepared = loaded.prepared(settings)
    if settings.learner:
        check_learner(prepared.partitions, settings)
    return prepared


def _placement(
    dataset: loading.Loaded, workers: int | None, copies: int | None, file: Path | None
) -> tuple[Placement, tuple[str, ...], Topology | None]:
    """The placement that the options ask for, checked against the partitions of the data, wants and relays.

    The wants are empty words, unless the placement file has a table of them.
    """
    if file is None:
        workers = DEFAULT_WORKERS if workers is None else workers
        copies = min(DEFAULT_COPIES, workers) if copies is None else copies
        cyclic = Placement.cyclic(workers, len(dataset.ids), copies)
        stored = {
            worker: [dataset.ids[n] for n in own]
            for worker, own in zip(cyclic.workers, cyclic.stored, strict=True)
        }
        return Placement(stored, dataset.ids), ("",) * workers, None
    if workers is not None or copies is not None:
        raise UsageError("--placement", "cannot be given with --workers or --copies", str(file))
    request = read_request(file)
    placement = request.placement
    if set(placement.partitions) != set(dataset.ids):
        missing = [name for name in dataset.ids if name not in placement.partitions]
        unknown = [name for name in placement.partitions if name not in dataset.ids]
        rule = f"must store the partitions of {dataset.name}, {dataset.ids[0]} to {dataset.ids[-1]}"
        if any("/" in name for name in unknown) and "/" not in dataset.ids[0]:
            rule += ", or be used with --by-file, where partitions are called FILE/TASK"
        raise UsageError(
            f"--placement {file}", rule, {"missing": _first(missing), "unknown": _first(unknown)}
        )
    wants = request.wants or ("all",) * len(placement.workers)
    # Workers that the table does not name want what the strategy gives.
    return placement, tuple("" if word == "all" else word for word in wants), request.topology


def _check_wants(
    placement: Placement, wants: Sequence[str], task_of: dict[str, str], strategy: str, settings: Settings
) -> None:
    """UsageError if workers want what the run cannot give, or under `personal` no worker wants some model."""
    for worker, word in zip(placement.workers, wants, strict=True):
        check_wants(worker, word, strategy, settings.update)
    if strategy != "personal":
        return
    tasks = [task_of[part] for part in placement.partitions]
    numbers = [list(dict.fromkeys(tasks)).index(task) for task in tasks]
    helpers = [k for k, word in enumerate(wants) if word == "none"]
    found = set().union(*wanted_models(placement, numbers, helpers))
    if lost := sorted({task for task, t in zip(tasks, numbers, strict=True) if t not in found}):
        rule = "must leave for each task a worker that stores some of it and wants models; without one"
        raise UsageError("wants with --strategy personal", rule, lost)


def _first(names: Sequence[str]) -> list[str]:
    """The first names, as many as an error shows, and the number of the others."""
    more = len(names) - MOST_NAMES
    return [*names[:MOST_NAMES], *([f"and {more} more"] if more > 0 else [])]


def _train(
    placement: Placement,
    wants: Sequence[str],
    settings: Settings,
    given: dict[str, Any],
    shown: DashboardOptions | None,
    tracking: Tracking,
) -> tuple[RunRecord, TaskModels, Settings, float]:
    """Run the server here and a process for each worker.

    Returns the record of the run, the models of all tasks, the settings with what was chosen, and how far the
    models of any two workers differ.
    """
    options = RunOptions(
        settings,
        given["strategy"],
        len(placement.workers),
        # No other worker will be started in place of a lost one, so waiting for one is useless.
        rejoin_timeout=0.0,
        multicast=make_multicast(given),
        links=given["links"],
        silent=given["silent"],
        peers=takes_from_peers(given),
        blind=given["blind"],
    )
    with tempfile.TemporaryDirectory(prefix="asyncdmtl-") as name:
        folder = Path(name)
        write_placement(placement, folder / "placement.json")
        words = [*_worker_words(given), "--placement", str(folder / "placement.json")]
        if options.blind:
            words += ["--group-secret-file", str(new_group_secret(folder))]
        files = [folder / f"{k}.npz" for k in range(len(placement.workers))]
        workers = {
            worker: worker_process(worker, words, file, word)
            for worker, file, word in zip(placement.workers, files, wants, strict=True)
        }
        if given["tree"] is not None:
            workers = given["tree"].parts(workers, folder)
        tracking.start(options)
        with RunProgress(settings.rounds) as progress:
            watch = None if shown is None else partial(show, shown, options)
            record, _ = run(serve(options, workers, tracking.beside(progress.note), watch=watch))
        exact, files = given["strategy"] != "linear", [file for file in files if file.exists()]
        models, spread = agreed_models(files, exact=exact)
        # Only the workers of a blind run know what they chose.
        chosen = SavedModel.load(files[0]).settings if options.blind else record.settings
    return record, models, chosen or record.settings, spread


# Options of `run` that are passed on to every worker process.
_WORKER_OPTIONS = (
    "log_level", "log_format", "log_file", "interface",
    "data", "task", "target", "features", "omit", "categorical", "weight", "class_weight", "test_fraction",
    "parts", "seed", "missing", "keep_missing_words", "decimal", "separator", "encoding", "header", "by_file",
)  # fmt: skip


def _worker_words(given: dict[str, Any]) -> list[str]:
    """The options of every worker process."""
    own = given | ({"test_fraction": None} if given["by_file"] else {})
    return _words(own, *_WORKER_OPTIONS)


def _words(given: Mapping[str, Any], *names: str) -> list[str]:
    """Options as words of a command line, with the values that they were given."""
    words = []
    for name in names:
        option, value = f"--{name.replace('_', '-')}", given[name]
        if value is True:
            words.append(option)
        elif value not in (None, False):
            for each in value if isinstance(value, tuple) else (value,):
                words += [option, str(each)]
    return words
