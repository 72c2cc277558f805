"""The commands ``fewstep sample``, ``list``, ``plan``, ``overhead`` and ``doctor``."""

from pathlib import Path
from typing import Annotated

import typer

from fewstep.eval.cli.options import Device, Guidance, Seed
from fewstep.progress import Progress


def sample(
    classes: Annotated[str, typer.Option(help="Comma list of 0-9, or `all`.")] = "all",
    n: Annotated[int, typer.Option("--n", help="Images.")] = 80,
    seed: Seed = 0,
    sampler: Annotated[str, typer.Option(help="Spec or saved plan.")] = "ipndm",
    nfe: Annotated[
        int | None, typer.Option(help="Network calls; 10 for a spec, those of a saved plan.")
    ] = None,
    guidance: Guidance = "none",
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("samples.png"),
    device: Device = "auto",
) -> None:
    """Draws Fashion-MNIST images with the bundled model into one PNG, a column for each class.

    Example: `fewstep sample --classes 1,7,9 --n 30 --nfe 8 --guidance cfg:2`
    """
    picked = tuple(range(10)) if classes == "all" else _numbers("--classes", classes)
    with Progress.shown("sample", "images") as progress:
        from fewstep.eval.cli.drawing import Drawing, draw

        draw(Drawing(picked, n, seed, sampler, nfe, guidance, device), out, progress)


def list_(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="One entry, shown whole; or a kind: `sampler`, `grid`, `guidance`, `problem`, "
            "`process`, `extractor`, `metric`.",
        ),
    ] = None,
) -> None:
    """Lists samplers, grids, guidance, problems, extractors and metrics with their options.

    Example: `fewstep list dpmpp`
    """
    from fewstep.eval.cli.lists import show_lists

    show_lists(name)


def plan(
    spec: Annotated[
        str, typer.Argument(help="As in `dpmpp:order=3,grid=karras`, or a saved plan.")
    ],
    nfe: Annotated[
        int | None, typer.Option(help="Network calls; 10 for a spec, those of a saved plan.")
    ] = None,
    process: Annotated[
        str | None,
        typer.Option(
            help="`vp-linear` (default of a spec), `vp-scaled`, `vp-cosine`, `edm` or `flow`."
        ),
    ] = None,
    problem: Annotated[str | None, typer.Option(help="Take this problem's process.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the plan as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw levels and weights as a PNG.")] = None,
) -> None:
    """Prints a sampler as the table of numbers that it is; a tuned one beside its start.

    Example: `fewstep plan unipc:order=2 --nfe 8 --process flow --save unipc8.json`
    """
    from fewstep.eval.cli.plans import show_plan

    show_plan(spec, nfe, process, problem, save, plot)


def overhead(
    repeats: Annotated[int, typer.Option(help="Runs of each schedule; medians are shown.")] = 15,
    device: Device = "auto",
) -> None:
    """Times a `step()` of our schedulers beside diffusers', and guidance beside its network."""
    from fewstep.eval.common.limits import check_repeats

    check_repeats(repeats)
    with Progress.shown("overhead", "pairs") as progress:
        from fewstep.eval.cli import overhead_guided, overhead_schedulers
        from fewstep.eval.common.processes import resolve_device

        device = resolve_device(device)
        steps = overhead_schedulers.measure_all(repeats, device, progress.at)
        guided = overhead_guided.measure_all_guidance(repeats, device, progress.at)
        progress.close()
        overhead_schedulers.show_overhead(steps, repeats, device)
        overhead_guided.show_guided_overhead(guided, repeats, device)


def doctor() -> None:
    """Checks versions, device, bundled weights, feature extractors, dataset and cache."""
    from fewstep.eval.cli.doctor import show_health

    raise typer.Exit(0 if show_health() else 1)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"{option} takes whole numbers separated by commas, got {text!r}"
        ) from None
