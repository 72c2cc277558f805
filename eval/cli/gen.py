"""The command ``fewstep gen``: samples into a folder, on one or several processes."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewstep.eval.cli.options import Device, Dtype, Guidance, Model, Prompts, Weights
from fewstep.eval.cli.stopping import Stopped, leave
from fewstep.eval.common.paths import check_folder_name
from fewstep.progress import Progress

if TYPE_CHECKING:
    from fewstep.eval.common.processes import Processes
    from fewstep.eval.generate.generation import Summary
    from fewstep.eval.generate.recipe import Recipe
    from fewstep.eval.generate.units import Generation


def gen(
    sampler: Annotated[str, typer.Option("--sampler", "-s", help="Spec or saved plan (.json).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder; a part of the run may be in.")],
    nfe: Annotated[
        int | None, typer.Option(help="Network calls; a saved plan has its own.")
    ] = None,
    model: Model = "fashion",
    seeds: Annotated[
        str, typer.Option(help="One for each sample, as in `0-999` or `1,2,5-9`.")
    ] = "0-49999",
    guidance: Guidance = "none",
    classes: Annotated[
        str, typer.Option(help="`uniform`: drawn from each sample's seed; or in `turn`.")
    ] = "uniform",
    unit: Annotated[int, typer.Option(help="Samples of a batch, and of a file.")] = 64,
    keep: Annotated[
        str, typer.Option(help="`images`, `features`, or `none`: the features' sums alone.")
    ] = "images",
    extractor: Annotated[
        str | None,
        typer.Option(help="Of features: `fd-cnn:fashion`, `inception:edm`, ..., `pixels:CxHxW`."),
    ] = None,
    weights: Weights = None,
    prompts: Prompts = None,
    dtype: Dtype = "float32",
    device: Device = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell calls, disk, memory and time.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Generates samples into a folder; the same command goes on after any interruption.

    Works alike under plain python, `torchrun` and `accelerate launch`: each process takes its
    share, and the samples are the same for any number of them.

    Example: `fewstep gen --sampler unipc --nfe 8 --seeds 0-999 -o runs/unipc-8`

    Example: `torchrun --nproc-per-node 2 -m fewstep gen -s sa --nfe 20 -g cfg:2 -o runs/sa-20`
    """
    if dry_run and quiet:
        raise ValueError("--quiet beside --dry-run leaves nothing to print: leave one of them out")
    check_folder_name(out, "--out")
    given: dict[str, Any] = {
        "model": model, "seeds": seeds, "guidance": guidance, "classes": classes, "unit": unit,
        "keep": keep, "extractor": extractor, "weights": weights and str(weights.absolute()),
        "prompts": None if prompts is None else prompts.read_text(), "dtype": dtype,
    }  # fmt: skip
    with Progress.shown("gen", "units", rated="samples", per=unit, quiet=quiet) as progress:
        from fewstep.eval.common.processes import Processes

        given |= _sampler(sampler, nfe)
        processes = Processes.start(device)
        recipe, run = _built(given, processes.device)
        if dry_run:
            _show_estimate(run, out, processes, progress)
            return
        try:
            done = processes.gathered(_generate(run, recipe, out, processes, progress))
        except KeyboardInterrupt as error:
            text = "interrupted; the same command goes on with what is finished"
            leave(text, error.number if isinstance(error, Stopped) else signal.SIGINT)
        if processes.is_main:
            _report(out, done, quiet, progress)


def _sampler(text: str, nfe: int | None) -> dict[str, Any]:
    """The sampler and its calls, of a saved plan whole."""
    from fewstep.samplers.core.plan import load_plan
    from fewstep.samplers.solvers.registry import names_file

    if not names_file(text):
        if nfe is None:
            raise ValueError(f"--nfe is needed with a spec, got {text!r} alone; as in --nfe 8")
        return {"sampler": text, "nfe": nfe}
    plan = load_plan(text, nfe)
    return {"sampler": plan.table(), "nfe": plan.calls if nfe is None else nfe}


def _built(given: dict[str, Any], device: str) -> "tuple[Recipe, Generation]":
    from fewstep.eval.generate.recipe import Recipe

    recipe = Recipe(**given)
    return recipe, recipe.build(device)


def _show_estimate(
    run: "Generation", out: Path, processes: "Processes", progress: Progress
) -> None:
    from fewstep.eval.generate.estimate import estimate

    if processes.is_main:
        lines = estimate(run, out, processes.world).lines(out)
        progress.close()
        for line in lines:
            typer.echo(line)


def _generate(
    run: "Generation", recipe: "Recipe", out: Path, processes: "Processes", progress: Progress
) -> "Summary":
    """This process's share."""
    from fewstep.eval.generate.generation import generate_images

    share = f"of rank 0 of {processes.world}" if processes.world > 1 else ""

    def tell(done: int, total: int) -> None:
        progress.at(done, total, share)

    return generate_images(
        run, out, rank=processes.rank, world=processes.world, progress=tell, recipe=recipe
    )


def _report(out: Path, done: "list[Summary]", quiet: bool, progress: Progress) -> None:
    """Looks at all that is there, by checksum, and draws the first samples.

    Raises:
        ValueError: if a unit is not there.
    """
    from fewstep.eval.cli.next_steps import after_gen
    from fewstep.eval.generate.generation import Summary
    from fewstep.eval.generate.verification import verify
    from fewstep.eval.images.contact_sheet import write_contact_sheet

    found = verify(out)
    sheet = None if found.missing else write_contact_sheet(out)
    progress.close()
    if not quiet:
        typer.echo(Summary.of_all(done))
        times = [f"{name} {seconds:.1f} s" for name, seconds in found.seconds_by.items()]
        typer.echo(f"spent so far, over all processes: {', '.join(times)}")
        if sheet is not None:
            typer.echo(f"first samples: {sheet}")
        typer.echo(f"{out}: {found.rows} samples, sha256 {found.hash}")
    if found.missing:
        raise ValueError(
            f"{len(found.missing)} units are missing in {out}: another process failed, or its "
            "files were changed; start the same command again"
        )
    if not quiet:
        typer.echo(after_gen(out))
