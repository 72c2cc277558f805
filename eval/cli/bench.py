"""The command ``fewstep bench``, whose options are those of a sweep."""

from pathlib import Path
from typing import Annotated

import typer

from fewstep.eval.cli.options import (
    Device,
    Dtype,
    Guidances,
    Metrics,
    Model,
    Prompts,
    Seed,
    Specs,
    Weights,
    is_given,
    refuse_given,
)
from fewstep.eval.common.paths import check_folder_name
from fewstep.progress import Progress


def bench(
    context: typer.Context,
    sweep: Annotated[
        Path | None,
        typer.Argument(help="YAML file of these options by name; those given here count more."),
    ] = None,
    samplers: Specs = None,
    nfe: Annotated[
        str | None,
        typer.Option(help="Network calls, a comma list. Default: 5,8,10,20; a saved plan's own."),
    ] = None,
    # torchrun takes --n for the beginning of an option of its own.
    n: Annotated[int, typer.Option("--n", "--count", help="Samples, at least 2.")] = 128,
    seed: Seed = 0,
    repeats: Annotated[int, typer.Option(help="Runs, each with the next seed.")] = 1,
    guidance: Guidances = None,
    problem: Model = "fashion",
    metrics: Metrics = "fd",
    extractor: Annotated[
        str | None, typer.Option(help="`inception`, `inception:clean`, ...; needs `--ref`.")
    ] = None,
    ref: Annotated[str | None, typer.Option(help="Statistics of `fewstep ref`.")] = None,
    weights: Weights = None,
    prompts: Prompts = None,
    dtype: Dtype = "float32",
    peers: Annotated[
        str, typer.Option(help="`none`, or `diffusers`: every class there, on up to six grids.")
    ] = "none",
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("runs/bench"),
    device: Device = "auto",
    compile: Annotated[bool, typer.Option("--compile", help="torch.compile the network.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print calls, disk, memory and time; sample nothing.")
    ] = False,
) -> None:
    """Scores samplers against the fine solution from the same noise, and writes a report.

    A run that was stopped goes on where it ended. Under torchrun or `accelerate launch`, each
    process takes its share.

    Example: `fewstep bench --problem mix8 --peers diffusers --samplers "unipc;deis:order=2"`

    Example: `fewstep bench --nfe 5,10,20 --guidance "none;cfg:3" --guidance "gfcg:2"`

    Example: `fewstep bench runs/bench/sweep.yaml --n 5000 --metrics fd,kid --dry-run`
    """
    given = {name: value for name, value in context.params.items() if is_given(context, name)}
    given.pop("dry_run", None)
    with Progress.shown("bench") as progress:
        from fewstep.eval.bench.estimate import show_estimate
        from fewstep.eval.bench.jobs import split_specs, takes_no_calls
        from fewstep.eval.bench.sweeps import read_sweep
        from fewstep.eval.cli.bench_scores import run_and_report

        settings = read_sweep(given.pop("sweep", None), given)
        check_folder_name(settings.out, "--out")
        if settings.peers == "none" and all(map(takes_no_calls, split_specs(settings.samplers))):
            refuse_given(context, ["nfe"], "on dopri5, which chooses its calls itself")
        if dry_run:
            show_estimate(settings, progress)
        else:
            run_and_report(settings, progress)
