"""The command ``fewstep tune``: a table of a few calls, fitted to a model."""

from pathlib import Path
from typing import Annotated

import typer

from fewstep.eval.cli.options import Device, Dtype, Guidance, Model, Prompts, Seed
from fewstep.progress import Progress


def tune(
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="A .json file, or a folder, which can hold a Gaussian."),
    ],
    nfe: Annotated[int, typer.Option(help="Network calls of the sampler.")],
    problem: Model = "fashion",
    guidance: Guidance = "none",
    family: Annotated[
        str,
        typer.Option(
            help="`tied`, `coefficients`, `least-squares`, `grid`, `grid:klub=1`, `grid:gits=1.0`, "
            "`grid:teacher=2`, `grid:search`, `compensation`, `epsilon`.",
        ),
    ] = "tied",
    objective: Annotated[
        str, typer.Option(help="What is compared with the teacher: `sample`, `features`, `both`.")
    ] = "sample",
    features: Annotated[
        str,
        typer.Option(help="Of the objective: `fashion`, `module:function`, `file.py:function`."),
    ] = "fashion",
    minutes: Annotated[
        float, typer.Option(help="Of teacher and tuning; the report comes behind.")
    ] = 8.0,
    seed: Seed = 0,
    noises: Annotated[
        str | None,
        typer.Option(
            metavar="TUNE,SELECT,REPORT",
            help="How many. Default: `1024,2048,4096` of exact problems, `64,64,96` of networks.",
        ),
    ] = None,
    teleport: Annotated[
        bool | None,
        typer.Option(
            "--teleport/--no-teleport",
            help="Whether starts by the jump of a Gaussian are tried. Default: if --out is a "
            "folder.",
        ),
    ] = None,
    prompts: Prompts = None,
    dtype: Dtype = "float32",
    device: Device = "auto",
) -> None:
    """Fits a sampler of a few calls to a model, and compares it with fixed ones.

    What it finds is a plan for `sample`, `bench -s`, `gen -s` and diffusers pipelines. A teacher
    that was made stays on disk, so that a run that was stopped goes on with it.

    Example: `fewstep tune --problem mix8 --nfe 5 -o m5.json`

    Example: `fewstep tune --model fashion --nfe 5 --guidance cfg:3 -o m5`
    """
    with Progress.shown("tune") as progress:
        from fewstep.eval.cli.tuning import tune_and_report
        from fewstep.eval.tune.settings import TuneSettings

        settings = TuneSettings(
            problem=problem, nfe=nfe, guidance=guidance, family=family,
            objective=objective,  # type: ignore[arg-type]  # checked there
            features=features, minutes=minutes, seed=seed, noises=_counts(noises),
            teleport=teleport, prompts=prompts, dtype=dtype, device=device, out=out,
        )  # fmt: skip
        tune_and_report(settings, progress)


def _counts(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"--noises takes three whole numbers, as in 1024,2048,4096; got {text!r}"
        ) from None
