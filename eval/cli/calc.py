"""``fewstep ref``, ``calc``, ``verify``, ``export`` and ``convert``: their options."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from fewstep.eval.cli.options import Device, Weights, refuse_given
from fewstep.progress import Progress

if TYPE_CHECKING:
    from fewstep.eval.images.files import OnError as Policy

Extractor = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="`inception:edm`, `inception:pytorch-fid`, `inception:clean`, `fd-cnn:fashion` or "
        "`pixels:CxHxW`. Default: the reference's, else `inception:edm`.",
    ),
]
Batch = Annotated[int, typer.Option(help="Images at a time; changes no result.")]
OnError = Annotated[
    str,
    typer.Option("--on-error", help="`raise`, or `skip` image files that cannot be used."),
]
OF_SCORES = ("extractor", "weights", "metrics", "repeats", "device", "on_error")
Images = "A folder, .zip, .npy or .npz of images, a folder of `fewstep gen`, or `fashion`."


def ref(
    context: typer.Context,
    data: Annotated[str, typer.Argument(metavar="DATA", help=Images)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .npz to write.")],
    extractor: Annotated[
        str, typer.Option(metavar="NAME", help="See `fewstep calc`.")
    ] = "inception:edm",
    weights: Weights = None,
    features: Annotated[
        int, typer.Option(help="Images whose features are kept, for kid, prdc and sw2.")
    ] = 10_000,
    seed: Annotated[int, typer.Option(help="Of their choice.")] = 0,
    batch: Batch = 64,
    device: Device = "auto",
    on_error: OnError = "raise",
) -> None:
    """Writes the statistics of real images, which samples are compared with.

    Example: `fewstep ref cifar10.zip -o cifar10.npz`

    Example: `fewstep ref fashion -o fashion.npz --extractor fd-cnn:fashion`
    """
    if not features:
        refuse_given(context, ["seed"], "where no features are kept")
    with Progress.shown("ref", "images") as progress:
        from fewstep.eval.cli.calc_console import Use
        from fewstep.eval.cli.references import run_ref

        use = Use(extractor, weights, batch, device, _policy(on_error))
        run_ref(data, out, features, seed, use, progress)


def calc(
    context: typer.Context,
    samples: Annotated[list[str], typer.Argument(metavar="SAMPLES...", help=Images)],
    ref: Annotated[
        str | None, typer.Option(help="Statistics (.npz, .pkl), images, or `fashion`.")
    ] = None,
    extractor: Extractor = None,
    weights: Weights = None,
    metrics: Annotated[
        str, typer.Option(help="Comma list of `fd`, `kid`, `prdc`, `sw2`, `fd_infinity`.")
    ] = "fd",
    repeats: Annotated[
        int, typer.Option(help="Score each set in this many parts: all, min, mean, sd.")
    ] = 1,
    num: Annotated[int | None, typer.Option(help="Take the first of each set only.")] = None,
    paired: Annotated[
        str | None, typer.Option(help="Images of the same seeds: RMSE and PSNR to them.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Add a run to `results.jsonl` in this folder, for `fewstep report`, and write "
            "`result.json` into each folder of `fewstep gen`, for `fewstep verify`.",
        ),
    ] = None,
    batch: Batch = 64,
    device: Device = "auto",
    on_error: OnError = "raise",
) -> None:
    """Scores sets of samples: FID where it may be called so, other distances by other names.

    Example: `fewstep calc samples.zip --ref cifar10.npz --metrics fd,kid,prdc`

    Example: `fewstep calc runs/unipc-8 runs/heun-8 --ref fashion -o runs/report`

    Example: `fewstep calc runs/unipc-8 --paired runs/reference`
    """
    if ref is None:
        refuse_given(context, OF_SCORES, "without --ref, since pairs are compared by their pixels")
    with Progress.shown("calc", "images") as progress:
        from fewstep.eval.cli.calc_console import Use
        from fewstep.eval.cli.scoring import Asked, run_calc

        names = tuple(name.strip() for name in metrics.split(","))
        asked = Asked(tuple(samples), ref, names, repeats, num, paired, out, json)
        run_calc(asked, Use(extractor, weights, batch, device, _policy(on_error)), progress)


def verify(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Of `fewstep gen`.")],
    recompute: Annotated[int, typer.Option(help="Units to make again, at random.")] = 0,
    seed: Annotated[int, typer.Option(help="Of their choice.")] = 0,
    weights: Weights = None,
    device: Device = "auto",
) -> None:
    """Checks every file of generated samples, and the scores of `result.json`, if it is there.

    Exit status 1 if anything is missing or comes out otherwise.

    Example: `fewstep verify runs/unipc-8 --recompute 3`
    """
    if not recompute:
        refuse_given(context, ["seed"], "without --recompute")
    with Progress.shown("verify", "units") as progress:
        from fewstep.eval.cli.references import run_verify

        holds = run_verify(folder, recompute, seed, device, weights, progress)
    raise typer.Exit(0 if holds else 1)


def export(
    folder: Annotated[Path, typer.Argument(help="Of `fewstep gen`, with images.")],
    out: Annotated[Path, typer.Argument(help="A new folder or a .zip of PNG files, or an .npz.")],
) -> None:
    """Writes generated images for other programs.

    Example: `fewstep export runs/unipc-8 unipc-8.zip`
    """
    with Progress.shown("export") as progress:
        from fewstep.eval.cli.references import run_export

        run_export(folder, out, progress)


def convert(
    context: typer.Context,
    statistics: Annotated[Path, typer.Argument(help="An .npz or .pkl.")],
    out: Annotated[Path, typer.Argument(help="An .npz, or a .pkl as edm2 has it.")],
    metric: Annotated[str, typer.Option(help="Which statistics of a .pkl.")] = "fid",
) -> None:
    """Writes statistics of one harness in the format of another.

    Example: `fewstep convert cifar10.npz cifar10.pkl`
    """
    if {statistics.suffix.lower(), out.suffix.lower()} == {".npz"}:
        refuse_given(context, ["metric"], "from one .npz to another")
    with Progress.shown("convert"):
        from fewstep.eval.cli.references import run_convert

        run_convert(statistics, out, metric)


def _policy(text: str) -> "Policy":
    return cast("Policy", text)  # `Use` checks it
