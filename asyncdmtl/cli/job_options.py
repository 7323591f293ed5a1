"""The options of a stream of jobs, and the file that lists the jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from asyncdmtl.cli.command import together
from asyncdmtl.cli.configuration import as_given
from asyncdmtl.cli.training_options import training_options
from asyncdmtl.documents import read_document
from asyncdmtl.errors import UsageError
from asyncdmtl.server.jobs import IN_FLIGHT, MOST_WAITING, Job

job_options = together(
    click.option(
        "--jobs",
        "jobs_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Make the jobs in this TOML or JSON file as a stream, with workers that share them all: a list "
        "`jobs` of tables, each with a `name`, options for training that replace those given here, and "
        "maybe a `target`, the column that is predicted.",
    ),
    click.option(
        "--in-flight", type=int, default=IN_FLIGHT, metavar="JOBS", help="Jobs that are made at one time."
    ),
    click.option(
        "--any-order", is_flag=True, help="Report jobs as they end, instead of in the order of the file."
    ),
)


def check_alone(values: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """UsageError if one of these options, or one for trackers or another downlink, is given with --jobs."""
    others = {f"--{name}": given[name] for name in ("mlflow", "tensorboard")}
    downlink = None if given["downlink"] == "tcp" else given["downlink"]
    for option, value in {**values, **others, "--downlink": downlink}.items():
        if value is not None:
            raise UsageError(option, "is for a run of its own, not for a stream of --jobs", str(value))


def _training_options() -> dict[str, click.Option]:
    """The options for training by their name in a file."""

    @click.command()
    @training_options
    def holder(**_: Any) -> None:
        """Hold the options."""

    return {
        max(option.opts, key=len).removeprefix("--"): option
        for option in holder.params
        if isinstance(option, click.Option)
    }


# Makes a job from its name, the values of all options, and the column that is predicted.
MakeJob = Callable[[str, Mapping[str, Any], str], Job]


def read_jobs(path: Path, given: Mapping[str, Any], make: MakeJob) -> list[Job]:
    """The jobs of a file, checked as far as that is possible without data.

    Parameters
    ----------
    path : Path
    given : mapping
        The values of the command's options, which a job's table replaces.
    make : callable
        As `MakeJob`.

    Raises
    ------
    UsageError
        The file cannot be read, or a job breaks a rule; the error names it.
    """
    options, jobs, names = _training_options(), [], set()
    for table in named_tables(path, "--jobs"):
        place = f"{path}: job {table['name']!r}"
        job = _job(place, table, options, given, make)
        if job.name in names:
            raise UsageError(place, "must have a name of its own", job.name)
        names.add(job.name)
        jobs.append(job)
    return jobs


def submitted_job(table: Mapping[str, Any], given: Mapping[str, Any], make: MakeJob) -> Job:
    """The job of a table that another program submitted; arguments and errors are those of `read_jobs`.

    It may not name files, which would be read here.
    """
    options = {
        name: option
        for name, option in _training_options().items()
        if not isinstance(option.type, click.Path)
    }
    return _job(f"job {table['name']!r}", table, options, given, make)


def named_tables(path: Path, argument: str) -> list[dict[str, Any]]:
    """The tables of the jobs in the file of `argument`, each with a name; UsageError if there are none."""
    return [{"name": f"job{number}", **table} for number, table in enumerate(_tables(path, argument), 1)]


def _job(
    place: str,
    table: Mapping[str, Any],
    options: Mapping[str, click.Option],
    given: Mapping[str, Any],
    make: MakeJob,
) -> Job:
    """The job of a table, in which these options may be set; errors name it as `place`."""
    name, target = table["name"], table.get("target", "")
    own = {key: value for key, value in table.items() if key not in ("name", "target")}
    if unknown := sorted(own.keys() - options.keys()):
        rule = f"may set only name, target, {', '.join(sorted(options))}"
        raise UsageError(place, rule, unknown)
    for key, text in (("name", name), ("target", target)):
        if not isinstance(text, str):
            raise UsageError(f"{place}: {key}", "must be text", text)
    values = dict(given)
    for key, value in own.items():
        option = options[key]
        words = as_given(f"{place}: {key}", value, option)
        try:
            values[str(option.name)] = option.type_cast_value(click.Context(click.Command("jobs")), words)
        except click.BadParameter as error:
            rule = f"must be as for {option.opts[0]} ({error.message.rstrip('.')})"
            raise UsageError(f"{place}: {key}", rule, value) from error
    try:
        return make(name, values, target)
    except UsageError as error:
        raise UsageError(f"{place}: {error.argument}", error.rule, error.value) from error


def _tables(path: Path, argument: str) -> list[dict[str, Any]]:
    """The tables of the jobs in a file."""
    try:
        content = read_document(path)
    except OSError as error:
        raise UsageError(argument, f"must be readable ({error.strerror})", str(path)) from error
    except ValueError as error:
        raise UsageError(argument, f"must be TOML or JSON ({error})", str(path)) from error
    jobs = content.get("jobs") if isinstance(content, dict) and set(content) == {"jobs"} else None
    if not isinstance(jobs, list) or not jobs or not all(isinstance(job, dict) for job in jobs):
        raise UsageError(f"{argument} {path}", "must hold just `jobs`, a list of tables", None)
    if len(jobs) > MOST_WAITING:
        raise UsageError(f"{argument} {path}", f"must list at most {MOST_WAITING} jobs", len(jobs))
    return jobs
