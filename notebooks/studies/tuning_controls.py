"""What ratios and Epsilon Scaling gain on exact scores, where there is no bias to mend.

    python notebooks/studies/tuning_controls.py --problem mix8 --out runs/tuning_controls
    python notebooks/studies/tuning_controls.py --problem fashion --nfe 5

DC-Solver's ratios are said to mend the misalignment of a corrector, Epsilon Scaling the exposure
bias of a trained network. On an exact score neither network nor bias is there, so what either gains
is discretisation error. The first table tunes both on the best fixed solver of a scan and reports
on noises that took no part; the last, for exact problems, scales the noise of plain DDIM as
published, with no tuning.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fewstep.eval.metrics.exact import exact_scores
from fewstep.eval.problems import Problem, load_problem
from fewstep.samplers import build_plan
from fewstep.samplers.tuning.compensation_family import compensation_numbers
from fewstep.samplers.tuning.epsilon import epsilon_numbers, scale_epsilon
from fewstep.samplers.tuning.numeric import Numbers, plan_squares, run_plan, tune_numbers
from fewstep.samplers.tuning.pairs import Pairs
from fewstep.samplers.tuning.rollout import Calls
from fewstep.samplers.tuning.scan import SOLVERS, scan
from fewstep.samplers.tuning.teacher import fine_grid, teach
from fewstep.schedules.process import Array

SEEDS = (501, 502, 503)  # of the noises to tune, to select and to report on
NETWORK_SOLVERS = tuple(
    f"{solver}grid={grid}"
    for solver in ("unipc:", "ipndm:", "dpmpp:order=3,")
    for grid in ("softlog", "karras")
)
DIVISORS = (1.0, 1.005, 1.01, 1.02, 1.03)  # about the published ones
PUBLISHED = (("ddim:grid=karras", 20), ("ddim:grid=linspace", 20), ("ipndm:grid=karras", 8))


@dataclass(frozen=True)
class Noises:
    """Starts and ends to tune, to select and to report on."""

    tune: Pairs
    select: Pairs
    report: Pairs

    @classmethod
    def of(cls, problem: Problem, sizes: tuple[int, int, int]) -> "Noises":
        """Of so many noises each, solved by a teacher of 160 calls, or 48 of a network."""
        grid = fine_grid(problem.process, 160, least=1e-3) if problem.exact else 48
        made = []
        for n, seed in zip(sizes, SEEDS, strict=True):
            unit = problem.initial_noise(n, seed, problem.dtype) / problem.start_scale
            made.append(Pairs.of(teach(problem.denoiser, unit, problem.labels(n), grid=grid)))
        return cls(*made)


@dataclass(frozen=True)
class Control:
    """One family at one number of calls; errors are of the noises to report on.

    Attributes:
        nfe: network calls.
        spec: the best fixed solver, which is tuned.
        family: what is tuned.
        size: how many numbers.
        seconds: of the tuning, without the scan.
        before, after: root mean square errors.
        medians: of the samples' errors, before and after.
        numbers: what was found.
    """

    nfe: int
    spec: str
    family: str
    size: int
    seconds: float
    before: float
    after: float
    medians: tuple[float, float]
    numbers: tuple[float, ...]


def controls(
    problem: Problem,
    nfe: int,
    noises: Noises,
    *,
    solvers: Sequence[str] = SOLVERS,
    steps: int = 40,
) -> list[Control]:
    """Both families on the best fixed solver of ``nfe`` calls.

    Args:
        problem: without guidance.
        nfe: network calls.
        noises: as :meth:`Noises.of` makes them.
        solvers: of the scan.
        steps: Jacobians at most.
    """
    calls, process = Calls(problem.denoiser), problem.process
    spec = scan(calls, nfe, noises.tune, solvers)[0].spec
    plan = build_plan(spec, process, nfe)
    made = {
        "compensation": compensation_numbers(spec, process, nfe),
        "epsilon": epsilon_numbers(plan),
    }
    before = _errors(calls, made["epsilon"], made["epsilon"].start, noises.report)
    rows = []
    for family, numbers in made.items():
        began = time.perf_counter()
        vector, _ = tune_numbers(calls, numbers, noises.tune, noises.select, steps=steps)
        seconds = time.perf_counter() - began
        after = _errors(calls, numbers, vector, noises.report)
        found = tuple(float(value) for value in vector)
        rows.append(
            Control(nfe, spec, family, len(found), seconds, before[0], after[0],
                    (before[1], after[1]), found)
        )  # fmt: skip
    return rows


def _errors(calls: Calls, numbers: Numbers, vector: Array, pairs: Pairs) -> tuple[float, float]:
    """Root of the mean and of the median of the samples' mean square errors."""
    squares = plan_squares(calls, numbers.plan(vector), pairs)
    return float(squares.mean().sqrt()), float(squares.median().sqrt())


def table(name: str, rows: Sequence[Control]) -> str:
    """The controls as Markdown."""
    lines = [
        "| problem | NFE | best fixed | family | numbers | s | RMSE | ratio | median | found |",
        "|" + "---|" * 10,
    ]
    for row in rows:
        found = " ".join(f"{value:.4g}" for value in row.numbers)
        lines.append(
            f"| {name} | {row.nfe} | {row.spec} | {row.family} | {row.size} | {row.seconds:.1f} | "
            f"{row.before:.4f} -> {row.after:.4f} | {row.after / row.before:.2f} | "
            f"{row.medians[0]:.4f} -> {row.medians[1]:.4f} | {found} |"
        )
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Published:
    """A solver whose noise is divided by b at every step; RMSE and distances to the data."""

    spec: str
    nfe: int
    b: float
    error: float
    scores: dict[str, float]


def published(problem: Problem, pairs: Pairs) -> Iterator[Published]:
    """Epsilon Scaling with fixed b on an exact problem, and the fine solution as (b = 1, 0).

    ``w2_gauss`` of exact samples is not 0 for n of them: the fine solution's is what to compare to.
    """
    calls = Calls(problem.denoiser)
    yield Published("fine solution", 160, 1.0, 0.0, exact_scores(problem, pairs.end))
    for spec, nfe in PUBLISHED:
        plan = build_plan(spec, problem.process, nfe)
        for b in DIVISORS:
            end, _ = run_plan(calls, scale_epsilon(plan, b=b), pairs)
            error = float((end - pairs.end).square().mean().sqrt())
            yield Published(spec, nfe, b, error, exact_scores(problem, end))


def published_table(name: str, rows: Iterable[Published]) -> str:
    """The rows as Markdown; the Frechet distance is the square of ``w2_gauss``."""
    lines = ["| problem | solver | NFE | b | RMSE | FD | sw2 |", "|" + "---|" * 7]
    for row in rows:
        distance = row.scores["w2_gauss"] ** 2
        lines.append(
            f"| {name} | {row.spec} | {row.nfe} | {row.b:g} | {row.error:.4f} | {distance:.2g} | "
            f"{row.scores['sw2']:.4f} |"
        )
    return "\n".join(lines) + "\n"


def main(
    problem: Annotated[str, typer.Option(help="name of a problem")] = "mix8",
    nfe: Annotated[str, typer.Option(help="comma list of calls")] = "4,5,6,8,10",
    noises: Annotated[str, typer.Option(help="to tune, to select, to report on")] = "",
    steps: Annotated[int, typer.Option(help="Jacobians at most")] = 40,
    device: Annotated[str, typer.Option(help="torch device")] = "cpu",
    out: Annotated[Path, typer.Option(help="folder of the tables")] = Path("runs/tuning_controls"),
) -> None:
    """Prints and writes the tables."""
    out.mkdir(parents=True, exist_ok=True)
    loaded = load_problem(problem, device)
    sizes = noises or ("1024,4096,8192" if loaded.exact else "24,24,48")
    few, some, many = map(int, sizes.split(","))
    made = Noises.of(loaded, (few, some, many))
    solvers = SOLVERS if loaded.exact else NETWORK_SOLVERS
    rows: list[Control] = []
    for calls in map(int, nfe.split(",")):
        rows += controls(loaded, calls, made, solvers=solvers, steps=steps)
    text = table(problem, rows)
    if loaded.exact:
        text += "\n" + published_table(problem, published(loaded, made.report))
    print(text, flush=True)
    (out / f"{problem}-{nfe.replace(',', '-')}.md").write_text(text)


if __name__ == "__main__":
    typer.run(main)
