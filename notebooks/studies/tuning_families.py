"""Which family of tuned tables is worth its cost.

    python notebooks/studies/tuning_families.py --problem mix8 --out runs/tuning_families
    python notebooks/studies/tuning_families.py --problem fashion --guidance cfg:3 --nfe 5,10

For each number of calls and family: how many numbers, seconds, and errors on the selection noises
and on noises that took no part, beside those of the best fixed solver of the scan. Of images also
FD-fashion. The errors are to the teacher, so that of a family is discretisation error alone.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from fewstep.eval.metrics.frechet import FrechetReference
from fewstep.eval.metrics.judge import Judge as Features
from fewstep.eval.metrics.judge import real_features
from fewstep.eval.tune.families import Task, tune_family
from fewstep.eval.tune.judge import Error, Judge
from fewstep.eval.tune.landings import cfg_scale, find_landings, model_samples
from fewstep.eval.tune.settings import TuneSettings
from fewstep.eval.tune.setup import Setup
from fewstep.eval.tune.teachers import cached_teacher
from fewstep.samplers.tuning.result import Tuned

# name -> the family of ``fewstep tune`` and whether starts by a Gaussian are tried.
FAMILIES = {
    "least-squares": ("least-squares", False),
    "grid:klub=1": ("grid:klub=1", False),
    "grid:gits=1": ("grid:gits=1", False),
    "grid:search": ("grid:search", False),
    "grid": ("grid", False),
    "epsilon": ("epsilon", False),
    "compensation": ("compensation", False),
    "coefficients": ("coefficients", False),
    "tied": ("tied", False),
    "tied, Gaussian start": ("tied", True),
}


@dataclass(frozen=True)
class Row:
    """One family at one number of calls; errors of ``start`` and ``after`` on unseen noises."""

    nfe: int
    family: str
    found: Tuned
    start: Error
    after: Error
    distance: float | None


def rows(settings: TuneSettings, calls: Sequence[int], families: Sequence[str]) -> Iterator[Row]:
    """Every family at every number of calls, with the same teachers."""
    setup = Setup.of(replace(settings, out=None))
    problem, guidance = setup.problem, setup.guidance.expression
    teachers = {
        name: cached_teacher(problem, split.noise, split.labels, guidance)
        for name, split in setup.splits.items()
    }
    tune, report = teachers["tune"], setup.splits["report"]
    landings = None
    if any(FAMILIES[name][1] for name in families):
        found = model_samples(problem, guidance, settings.seed, len(tune.start))
        landings = find_landings(problem, *found, tune, cfg_scale(guidance))
    goal = teachers["report"].end
    judge = Judge(problem, guidance, report.noise, report.labels, goal)
    images = problem.name == "fashion"
    yield Row(0, "teacher", None, Error(0, 0), Error(0, 0), _distance(goal) if images else None)  # type: ignore[arg-type]
    for nfe in calls:
        for name in families:
            family, lands = FAMILIES[name]
            own = replace(settings, nfe=nfe, family=family, out=None)
            task = Task(
                setup.denoiser, nfe, family, tune, teachers["select"],
                setup.splits["tune"].noise / problem.start_scale, own.search(problem),
                landings if lands else None, setup.breakpoints,
            )  # fmt: skip
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*gains nothing")
                made = tune_family(task)
            fit = None if made.landing is None or landings is None else landings.fit
            x = judge.run(made.plan, fit, len(report))
            yield Row(
                nfe, name, made, judge.error(made.start), Error.of(x, goal),
                _distance(x) if images else None,
            )  # fmt: skip


def _distance(images: Tensor) -> float:
    """FD-fashion of images in [-1, 1]."""
    features = Features(str(images.device))(images)[0].double().cpu().numpy()
    real = real_features()[0]
    return FrechetReference(real.mu, real.sigma).distance_of_features(features)


def line(row: Row) -> str:
    """A row of the table as Markdown."""
    distance = "" if row.distance is None else f"{row.distance:.3f}"
    if row.nfe == 0:
        return f"| | teacher | | | | | | | | {distance} |"
    found = row.found
    over = found.select / found.tune if found.tune else float("nan")
    return (
        f"| {row.nfe} | {row.family} | {found.size} | {found.seconds:.1f} | {found.calls:.0f} | "
        f"{row.start.rms:.4f} | {row.after.rms:.4f} | {row.after.median:.4f} | {over:.2f} | "
        f"{distance} |"
    )


HEAD = (
    "| NFE | family | numbers | s | calls a noise | best fixed | tuned | median | select / tune | "
    "FD |\n" + "|" + "---|" * 10
)


def main(
    problem: Annotated[str, typer.Option(help="name of a problem")] = "mix8",
    guidance: Annotated[str, typer.Option(help="as of fewstep tune")] = "none",
    nfe: Annotated[str, typer.Option(help="comma list of calls")] = "4,5,6,8,10",
    families: Annotated[str, typer.Option(help="of FAMILIES, separated by ;")] = ";".join(FAMILIES),
    noises: Annotated[str, typer.Option(help="to tune, to select, to report on")] = "",
    device: Annotated[str, typer.Option(help="torch device")] = "cpu",
    out: Annotated[Path, typer.Option(help="folder of the table")] = Path("runs/tuning_families"),
) -> None:
    """Prints and writes the table."""
    counts = tuple(map(int, noises.split(","))) if noises else None
    settings = TuneSettings(problem, guidance=guidance, noises=counts, device=device)
    made = [HEAD]
    print(HEAD)
    with torch.no_grad():
        for row in rows(settings, tuple(map(int, nfe.split(","))), families.split(";")):
            made.append(line(row))
            print(made[-1], flush=True)
    out.mkdir(parents=True, exist_ok=True)
    name = f"{problem}-{guidance.replace(':', '')}-{nfe.replace(',', '-')}.md"
    (out / name).write_text("\n".join(made) + "\n")


if __name__ == "__main__":
    typer.run(main)
