"""What uses a trained model: ``veloflow predict``, ``veloflow export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from veloflow.cli.options import debug_option, workflow_option
from veloflow.cli.places import PlaceType
from veloflow.errors import InputError

if TYPE_CHECKING:
    from veloflow.places import Place

__all__ = ["export", "predict"]


@click.command()
@click.argument("checkpoint", type=PlaceType())
@click.argument("data", type=PlaceType())
@click.option("--output", "-o", required=True, type=PlaceType(dir_okay=False),
              metavar="FILE", help="A .parquet or .csv file.")  # fmt: skip
@click.option("--key", metavar="NAME", help="The array in DATA, where there are several.")
@click.option("--device", "-d", default="auto", show_default=True,
              help="numpy, opencl, opencl:P:D, or auto.")  # fmt: skip
@click.option("--minibatch-size", type=click.IntRange(min=1), default=100, show_default=True,
              metavar="N", help="Samples that are computed together.")  # fmt: skip
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
@workflow_option
@debug_option
def predict(
    checkpoint: Place,
    data: Place,
    output: Place,
    *,
    key: str | None,
    device: str,
    minibatch_size: int,
    quiet: bool,
    workflow: str | None,
) -> None:
    """Predict for the samples in DATA with the model in CHECKPOINT, a file or a folder.

    DATA is a file of arrays (.npy, .npz, .h5, .zarr), a table (.csv, .parquet), an IDX file, or
    what the workflow's own loader reads, such as images in a folder; each may be a URL.

    \b
    Examples:
      veloflow run digits_mlp --checkpoint saved
      veloflow predict saved digits.csv -o predictions.parquet
      veloflow predict s3://bucket/run https://example.org/new.csv -o s3://bucket/out.parquet
    """
    from veloflow.models import open_model
    from veloflow.models.prediction import check_table, predict
    from veloflow.views.counting import counting

    check_table(output)
    with (
        open_model(
            checkpoint, workflow=workflow, device=device, minibatch_size=minibatch_size
        ) as model,
        counting("samples", quiet=quiet) as progress,
    ):
        count = predict(model, data, output, key=key, progress=progress)
    if not quiet:
        click.echo(f"{output}: {count} samples")


@click.command()
@click.argument("checkpoint", type=PlaceType())
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path, dir_okay=False),
              metavar="FILE", help="An .onnx file.")  # fmt: skip
@click.option("--check", type=PlaceType(), metavar="DATA",
              help="Compare with onnxruntime on these samples.")  # fmt: skip
@click.option("--key", metavar="NAME", help="The array in DATA, where there are several.")
@workflow_option
@debug_option
def export(
    checkpoint: Place, output: Path, check: Place | None, key: str | None, workflow: str | None
) -> None:
    """Write the model in CHECKPOINT, a file or a folder, as an ONNX file (opset 20).

    The file takes raw samples: the normalization is a part of it. Needs the extra onnx.

    \b
    Examples:
      veloflow export saved -o model.onnx
      veloflow export saved -o model.onnx --check digits.csv
    """
    import numpy as np

    from veloflow.models import export_onnx, open_model
    from veloflow.models.onnx_export import compare

    if output.suffix != ".onnx":
        raise InputError(f"{output}: the file of a model ends with .onnx")
    with open_model(checkpoint, workflow=workflow, device="numpy") as model:
        if check is None:
            click.echo(str(export_onnx(model, output)))
            return
        samples = np.asarray(model.loader.read_raw(check, key=key)[1][:1000])
        model.prepared(samples)  # says what is wrong with them before anything is written
        export_onnx(model, output)
        difference = compare(model, output, samples)
    click.echo(f"{output}: on {len(samples)} samples onnxruntime differs by {difference:.2g}")
