"""`asyncdmtl export`: a saved model as a file of ONNX, for programs that know nothing of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from asyncdmtl.cli.command import command
from asyncdmtl.cli.outputs import check_outputs
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.data.onnx_models import UNKNOWN
from asyncdmtl.errors import UsageError
from asyncdmtl.report.console import FittedTable, make_console
from asyncdmtl.report.json_output import emit

# Per type of tensor in the format, its name in ONNX and in NumPy.
_TYPES = {7: "int64", 8: "text", 9: "bool", 11: "float64"}


@command("export")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), metavar="FILE.onnx", help="Write it here."
)
@click.option(
    "--unknown",
    type=click.Choice(UNKNOWN),
    default="error",
    help="What becomes of a row whose task the model was not trained on: ONNX Runtime fails, the mean of all "
    "tasks' models predicts, or the prediction is NaN or an empty text.",
)
def main(model: Path, output: Path, unknown: str, format: str, **_: Any) -> None:
    """Write the MODEL that --save wrote as one model of ONNX, for other programs.

    It encodes columns, and the name of a task selects its model. Inputs have the shape (rows, 1): the column
    of tasks and columns of categories as text, where an empty one is missing; columns of numbers as float64,
    where NaN is missing. Texts must be spelled as `asyncdmtl show` shows them. Outputs are `prediction` and,
    for classes, `score` and `probabilities`. Needs: pip install 'asyncdmtl[onnx]'. Exit codes: 0 done,
    1 failed, 2 usage.
    """
    if output.suffix.lower() != ".onnx":
        raise UsageError("--output", "must end in .onnx", str(output))
    check_outputs({"--output": output})
    made = SavedModel.load(model).to_onnx(unknown)
    try:
        output.write_bytes(made.SerializeToString())
    except OSError as error:
        raise UsageError("--output", f"must be writable ({error.strerror})", str(output)) from error
    values = {name: [_value(each) for each in getattr(made.graph, name)] for name in ("input", "output")}
    if format == "json":
        emit(
            {
                "event": "finished",
                "output": str(output),
                "inputs": values["input"],
                "outputs": values["output"],
            }
        )
        return
    table = FittedTable(title=str(output))
    for heading in ("", "name", "type", "shape"):
        table.add_column(heading, overflow="fold")
    for kind, each in values.items():
        for value in each:
            shape = ", ".join(map(str, value["shape"])) + "," * (len(value["shape"]) == 1)
            table.add_row(kind, value["name"], value["type"], f"({shape})")
    make_console().print(table)


def _value(info: Any) -> dict[str, Any]:
    """An input or output in plain types."""
    tensor = info.type.tensor_type
    shape = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
    return {"name": info.name, "type": _TYPES[tensor.elem_type], "shape": shape}
