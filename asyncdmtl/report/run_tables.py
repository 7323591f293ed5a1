"""The report of a run as text: tables of loads and bytes, and sentences that explain them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from rich.console import Console
from rich.table import Table

from asyncdmtl.learning.outcome import zero_words
from asyncdmtl.learning.settings import POOLED, SINGLE_TASK, Settings
from asyncdmtl.learning.updates import ROUND_COST, minimises
from asyncdmtl.report.console import FittedTable, make_console
from asyncdmtl.report.downlink_report import downlink_words
from asyncdmtl.report.link_report import late_words, link_words, speed_words
from asyncdmtl.report.metric_tables import advice, show_metrics
from asyncdmtl.report.peers_report import peers_words
from asyncdmtl.report.relay_report import copy_words, link_table, member_words
from asyncdmtl.report.run_report import Report
from asyncdmtl.report.units import counted, decimal, human_bytes, load_text, strength_text

# Rows of the tables: heading, and key in the report.
_DIRECTIONS = (
    ("uplink", "uplink"),
    ("downlink, each row once (broadcast)", "downlink_broadcast"),
    ("downlink, all copies (wire)", "downlink_wire"),
)

# The best choices that are told of, beside the best of single-task and of pooled training.
BEST_CHOICES = 3

# If framing exceeds this share of the uplink's payload, a sentence says so.
_MUCH_FRAMING = 0.1


def show_run(report: Report, console: Console | None = None) -> None:
    """Print a report as text, on stdout unless a console is given."""
    console = console or make_console()
    vector, plan = report["vector"], report["strategy"]
    for warning in filter(None, (_unfinished_words(report), _zero_words(report))):
        console.print(warning)
    console.print(
        f"{plan}: {member_words(report)}, {counted(report['tasks'], 'task')} in "
        f"{counted(report['partitions'], 'partition')}, {copy_words(report)}; "
        f"vectors of {vector['numbers']} {vector['dtype']}"
        + (f" in {vector['subpackets']} packets" if vector["subpackets"] > 1 else "")
    )
    settings = report["settings"]
    coupling = f"coupling {settings['coupling']}, {strength_text(settings['strength'])}"
    console.print(f"Loss {settings['loss']}, {coupling}, intercept {settings['intercept']}.")
    if names := report.get("helpers"):
        helped = (
            "helps: it sends rows, wants no models and receives"
            if len(names) == 1
            else ("help: they send rows, want no models and receive")
        )
        console.print(f"{', '.join(names)} only {helped} no vectors.")
    if "metrics" in report:
        show_metrics(report["metrics"], console)
        if words := advice(report["metrics"], settings):
            console.print(words)
    console.print(_load_table(report))
    console.print(_byte_table(report))
    if "tree" in report:
        console.print(link_table(report["tree"]))
    console.print(_traffic_words(report))
    console.print(_training_words(report))


def selection_words(selection: Mapping[str, Any]) -> str:
    """A sentence about the choice of cross-validation across the sites, and its alternatives."""
    words = []
    ranked = sorted(
        selection["couplings"].items(), key=lambda item: min(x for x in item[1]["mean_loss"] if x is not None)
    )
    for name, found in _worth_telling(ranked):
        at = found["strengths"].index(found["best"])
        told = f"{found['mean_loss'][at]:.4g} ± {found['standard_error'][at]:.2g}"
        if len(found["strengths"]) == 1:
            words.append(f"{name}: {told}")
            continue
        further = f"(as good up to λ = {found['one_standard_error']:.4g})"
        words.append(f"{name} at λ = {found['best']:.4g}: {told} {further}")
    folds = len(ranked[0][1]["losses"][0])
    told = f"Held-out loss by cross-validation ({folds} folds, no row left its site): {'; '.join(words)}."
    if more := len(ranked) - len(words):
        told += f" {more} other choices are in the report in JSON."
    if cost := selection.get("bytes"):
        told += f" The choice took {human_bytes(cost['up'])} up and {human_bytes(cost['down'])} down."
    return "\n".join(filter(None, (told, _choice_words(selection))))


def _worth_telling(ranked: Sequence[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, Mapping[str, Any]]]:
    """The best choices, the best that ties no tasks, and the best with one model for all."""
    told = dict(ranked[:BEST_CHOICES])
    for kinds in (SINGLE_TASK, POOLED):
        told |= dict([item for item in ranked if Settings.coupling_in(item[0]) in kinds][:1])
    return list(told.items())


def _choice_words(selection: Mapping[str, Any]) -> str:
    """A sentence about what cross-validation says of coupling the tasks at all; "" if that was not open."""
    if len(selection["couplings"]) < 2:
        return ""
    if selection["coupling"] in SINGLE_TASK:
        return f"Single-task training wins: each task is trained alone (coupling {selection['coupling']})."
    words = ""
    if selection["coupling"] in POOLED:
        words = f"One model for all tasks wins (coupling {selection['coupling']}). "
    if gain := selection.get("gain"):
        words += (
            f"The held-out loss is less than that of single-task training ({gain['over']}) by "
            f"{gain['mean']:.4g} ± {gain['standard_error']:.2g}"
            + (", which is no clear gain." if gain["mean"] <= 2.0 * gain["standard_error"] else ".")
        )
    return words.strip()


def update_words(updates: Mapping[str, Any], chosen: str) -> str:
    """A sentence about the kind of update that was used, and the predicted traffic of the others."""
    others = [
        f"{name} {each['rounds']} × {human_bytes(each['bytes'])}"
        for name, each in updates.items()
        if name != chosen and not each["reason"]
    ]
    if chosen not in updates:
        return f"Update: {chosen}."
    own = updates[chosen]
    words = f"Update: {chosen}, predicted {own['rounds']} × {human_bytes(own['bytes'])} from each partition"
    if not others:
        return f"{words}."
    return f"{words}; {', '.join(others)}. A round counts as {human_bytes(ROUND_COST)} more."


def _unfinished_words(report: Report) -> str:
    """A first line for a training that ended before its tolerance was reached; "" for any other."""
    training, settings = report["training"], report["settings"]
    if not settings["tolerance"] or training.get("update") == "statistics":
        return ""
    if _separated(report):
        return (
            "The classes are separated, so that no models are best: coefficients grow without limit while "
            "the objective falls to 0. Training ended early; a coupling with a --strength has a solution."
        )
    if training["converged"]:
        return ""
    if not _minimises(report):
        return (
            f"The models still move by more than --tolerance {settings['tolerance']:g} after "
            f"{training['rounds']} rounds. More --rounds may bring them to a fixed point."
        )
    residual, last = training["residual"], training["objective"]
    apart = f" By estimate, {_above(residual, last)}." if residual and last else ""
    return (
        f"The models are not within --tolerance {settings['tolerance']:g} of the least objective after "
        f"{training['rounds']} rounds.{apart} More --rounds may bring them further."
    )


def _zero_words(report: Report) -> str:
    """A warning line if all coefficients of the models are 0, else ""."""
    if "critical_strength" not in report:
        return ""
    return zero_words(report["settings"]["strength"] or 0.0, report["critical_strength"])


def _separated(report: Report) -> bool:
    """Whether training ended because classes are separated, rather than by its tolerance."""
    training, settings = report["training"], report["settings"]
    if not training["converged"] or settings["loss"] != "logistic" or training["residual"] is None:
        return False
    return bool(training["residual"] > settings["tolerance"] * abs(training["objective"]))


def _training_words(report: Report) -> str:
    """A sentence about the end of training."""
    training, settings = report["training"], report["settings"]
    value = report.get("metrics", {}).get("objective", training["objective"])
    count = training["rounds"]
    words = selection_words(report["selection"]) + "\n" if report.get("selection") else ""
    # With tolerance 0, the number of rounds was given, so that predictions for an accuracy of 1e-6 do not
    # apply.
    if report.get("updates") and settings["tolerance"]:
        words += f"{update_words(report['updates'], training['update'])}\n"
    words += f"{count} round{'s' * (count != 1)} in {report['seconds']:.2f} s"
    if value is None:
        return words
    words += f"; objective {value:.6g}"
    if not settings["tolerance"] and training.get("update") != "statistics":
        return f"{words}."
    if not training["converged"]:
        return f"{words}; --tolerance was not reached."
    residual, last = training["residual"], training["objective"]
    if residual is None:
        # The server was blind.
        return f"{words}; converged, as the workers found."
    if _separated(report):
        return f"{words}; ended: the classes are separated."
    if training.get("update") == "statistics" and last:
        if residual > settings["tolerance"] * abs(last):
            return (
                f"{words}; solved as far as float64 allows: only within {residual / abs(last):.1g} of itself "
                "of the least. Columns of one size (--standardise) allow more."
            )
        return f"{words}; solved: {_above(residual, last)}."
    if not residual or not last:
        further = "" if settings["dtype"] == "float64" else "; --dtype float64 may bring them further"
        return f"{words}; ended: the models no longer change in {settings['dtype']}{further}."
    if not _minimises(report):
        return (
            f"{words}; converged: the next step would change it by less than {residual / abs(last):.1g} of "
            f"its value. That is a fixed point of rounds with {settings['aggregate']}, not the least "
            "objective."
        )
    return f"{words}; converged: by estimate, {_above(residual, last)}."


def _above(gap: float, objective: float) -> str:
    """Words for the distance of an objective from the least."""
    if gap <= 0.0:
        return "the objective is the least"
    return f"the objective is at most {gap / abs(objective):.1g} of its value above the least"


def _minimises(report: Report) -> bool:
    """Whether the models that rounds leave in place are the minimum (`updates.minimises`)."""
    return minimises(report["settings"]["aggregate"])


def _load_table(report: Report) -> Table:
    table = FittedTable(title="Load: vectors per round")
    table.add_column("", overflow="fold")
    for heading in ("measured", "planned", "lower bound", "uncoded"):
        table.add_column(heading, justify="right", overflow="fold")
    for name, key in _DIRECTIONS:
        part = report[key]
        loads = (part["measured_load"], part["load"], part.get("bound", "-"), part["uncoded_load"])
        table.add_row(name, *map(load_text, loads))
    return table


def _byte_table(report: Report) -> Table:
    table = FittedTable(title="Bytes in the whole run")
    table.add_column("", overflow="fold")
    for heading in ("payload", "framing", "uncoded payload"):
        table.add_column(heading, justify="right", overflow="fold")
    for name, key in _DIRECTIONS:
        part = report[key]
        uncoded = _uncoded_bytes(report, part)
        framing = human_bytes(part["framing_bytes"]) if "framing_bytes" in part else "-"
        table.add_row(name, human_bytes(part["payload_bytes"]), framing, human_bytes(uncoded))
    table.add_row("joining, plan, heartbeats", "-", human_bytes(report["other"]["framing_bytes"]), "-")
    return table


def _traffic_words(report: Report) -> str:
    """Sentences about the traffic: costs as well as savings."""
    lines = []
    up, broadcast, wire = (report[key] for _, key in _DIRECTIONS)
    travels = any(Fraction(part["load"]) for part in (up, wire))
    lines.append(
        f"Uplink {_saving(report, up)} uncoded; a broadcast downlink {_saving(report, broadcast)} uncoded."
        if travels
        else "No vector travels: every worker has all partitions."
    )
    if report["rounds"] and up["measured_load"] != up["load"]:
        lines.append(
            "Measured loads are means over the rounds of all plans, with rows that were sent again; "
            "planned loads and bounds are those of the last plan."
        )
    if 0 < _MUCH_FRAMING * up["payload_bytes"] < up["framing_bytes"]:
        lines.append(_framing_words(report))
    heard = bool(report["multicast"] and report["multicast"]["listeners"])
    if travels:
        held = "every partition is held several times"
        if "tree" not in report:
            held = f"every partition is held {decimal(report['copies'])} times"
        lines.append(
            f"{'' if heard else 'TCP has no broadcast: '}{'O' if heard else 'o'}n the wire the downlink "
            f"{_saving(report, wire)} uncoded{' over TCP' if heard else ''}. "
            f"The price is storage and computation: {held}."
        )
    choice = report.get("downlink_choice")
    chosen = None if choice is None else choice["chosen"]
    if choice is not None:
        lines.append(downlink_words(choice))
    if report["multicast"] is not None and chosen in (None, "multicast"):
        lines.append(_multicast_words(report["multicast"]))
    if report.get("peers") and chosen in (None, "peers"):
        lines.append(peers_words(report["peers"]))
    if report.get("links"):
        lines.append(link_words(report["links"]))
    if report.get("speeds"):
        lines.append(speed_words(report["speeds"]))
    if report.get("late"):
        lines.append(late_words(report["late"], len(report["rounds"])))
    lines.append(_by_strategy(report))
    for incident in report["incidents"]:
        lines.append(f"Round {incident['round']}: worker {incident['worker']}: {incident['reason']}")
    difference = report["kernel_ledger_difference"]
    if difference is not None:
        off = f"differ by {difference['up']} B up and {difference['down']} B down from"
        verdict = off if any(difference.values()) else "agree with"
        lines.append(f"The kernel's TCP counters {verdict} all bytes counted here.")
    return "\n".join(lines)


def _framing_words(report: Report) -> str:
    """A sentence about the share of all uplink bytes that coding saves; framing is the same without it."""
    up = report["uplink"]
    share = up["framing_bytes"] / up["payload_bytes"]
    told = f"Vectors are small: framing is {share:.0%} of the uplink's payload"
    whole = up["payload_bytes"] + up["framing_bytes"]
    uncoded = _uncoded_bytes(report, up) + up["framing_bytes"]
    if report["strategy"] == "linear" or whole == uncoded:
        return f"{told}."
    change = "less" if whole < uncoded else "more"
    return f"{told}; with it, the uplink costs {abs(1 - whole / uncoded):.0%} {change} than uncoded."


def _multicast_words(told: Mapping[str, Any]) -> str:
    """Sentences about the listeners of the group, lost datagrams, and repairs."""
    count = len(told["listeners"])
    words = [f"Multicast {told['group']}: {count} workers hear it; {told['reason']}."]
    counts = [sum(row[key] for row in told["workers"].values()) for key in ("sent", "lost", "repaired")]
    sent, lost, repaired = counts
    if sent:
        words.append(
            "No datagram was lost."
            if not lost
            else f"{lost} of {sent} datagrams to workers were lost ({lost / sent:.2%}), {repaired} needed "
            f"repair, which took {human_bytes(told['repair_bytes'])} of "
            f"{human_bytes(told['datagram_bytes'])}; "
            f"rate {told['rate'] / 1e6:.3g} Mbit/s."
        )
    words += [f"{name} was served over TCP: {why}." for name, why in told["served_over_tcp"].items()]
    return " ".join(words)


def _by_strategy(report: Report) -> str:
    """The cost of each strategy on links without multicast."""
    costs = {name: Fraction(row["unicast_cost"]) for name, row in report["strategies"].items()}
    listed = ", ".join(f"{name} {cost}" for name, cost in costs.items())
    if (report.get("links") or {}).get("kind") == "cost":
        return f"Cost of a round by the prices of the links, both ways, by strategy: {listed}."
    return f"Vectors a round on the wire, both ways, by strategy: {listed}."


def _uncoded_bytes(report: Report, part: Mapping[str, Any]) -> int:
    """Bytes of the whole run if vectors travelled without coding, and therefore without padding."""
    kind = "uncoded_bytes" if part is report["uplink"] else "uncoded_down_bytes"
    whole = len(report["rounds"]) * report["vector"][kind]
    return int(Fraction(part["uncoded_load"]) * whole)


def _saving(report: Report, part: Mapping[str, Any]) -> str:
    payload, uncoded = part["payload_bytes"], _uncoded_bytes(report, part)
    if payload == uncoded:
        return "costs as much as"
    if not uncoded:
        return "costs more than"
    share = abs(1 - payload / uncoded)
    return f"costs {share:.0%} {'less' if payload < uncoded else 'more'} than"
