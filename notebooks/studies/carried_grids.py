"""What it costs to obey a grid that a config carries: "trailing" times, and a flow's last level.

    python notebooks/studies/carried_grids.py

For exact mixtures (mix8 with zero terminal SNR, too), errors to the sigma -> 0 solution on the
automatic grid, and on the grid of the config. Models that were tuned for the carried one are better
on it than these tables say.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, cast

import torch
import typer

from fewstep.eval.problems import Problem, load_problem, rmse
from fewstep.models.exact import MixtureDenoiser
from fewstep.models.ode import reference_solution
from fewstep.samplers import SAMPLERS, sample
from fewstep.samplers.solvers.auto import auto_grid
from fewstep.schedules import DiscreteVP, Grid, NoiseProcess, discrete_vp
from fewstep.schedules.diffusers.peers import trailing_grid

SAMPLERS_SHOWN = ("ipndm", "unipc", "dpmpp")
TERMINALS = ((2.0, 0.02), (7.0, 0.1))  # (shift, sigma): near those of Qwen-Image and LTX-2


def with_process(problem: Problem, process: NoiseProcess) -> Problem:
    """The same mixture under another noise process."""
    old = cast(MixtureDenoiser, problem.denoiser)
    denoiser = MixtureDenoiser(process, old.means, old.stds, old.log_weights.exp())
    return replace(problem, denoiser=denoiser)


class Errors:
    """One problem, some noises and their solutions."""

    def __init__(self, problem: Problem, n: int, seed: int) -> None:
        self.problem = problem
        self.noise = problem.initial_noise(n, seed, torch.float64)
        self.solution = reference_solution(problem.denoiser, self.noise, tolerance=1e-6)[0]

    @torch.no_grad()
    def of(self, sampler: str, grid: Grid) -> float:
        entry = SAMPLERS[sampler]
        plan = entry.plan(grid, grid.nfe, entry.options())
        unit = self.noise / self.problem.start_scale
        return rmse(sample(self.problem.denoiser, plan, plan.nfe, noise=unit), self.solution)


def row(errors: Errors, name: str, sampler: str, pairs: Sequence[tuple[Grid, Grid]]) -> str:
    cells = []
    for ours, carried in pairs:
        a, b = errors.of(sampler, ours), errors.of(sampler, carried)
        cells.append(f"{a:.4f} / {b:.4f}")
    return f"| {name} | {sampler} | {' | '.join(cells)} |"


def main(
    n: Annotated[int, typer.Option(help="samples")] = 2048,
    nfe: Annotated[str, typer.Option(help="comma list of calls")] = "5,8,10,15,20",
    seed: Annotated[int, typer.Option(help="of the noises")] = 7,
) -> None:
    """Prints both tables as Markdown, each cell "automatic / carried"."""
    counts = [int(text) for text in nfe.split(",")]
    head = f"| problem | sampler | {' | '.join(nfe.split(','))} |\n{'|---' * (len(counts) + 2)}|"
    print(f"timestep_spacing='trailing':\n\n{head}")
    zero = discrete_vp("scaled_linear", beta_start=0.00085, beta_end=0.012, zero_terminal_snr=True)
    for name in ("mix8", "ring2", "mix8, zero SNR"):
        problem = load_problem(name.partition(",")[0])
        problem = with_process(problem, zero) if "zero" in name else problem
        process, errors = cast(DiscreteVP, problem.process), Errors(problem, n, seed)
        for sampler in SAMPLERS_SHOWN:
            pairs = [
                (auto_grid(sampler, process, k), trailing_grid(process, {}, k)) for k in counts
            ]
            print(row(errors, name, sampler, pairs), flush=True)
    print(f"\nshift_terminal:\n\n{head}")
    problem = load_problem("mix8-flow")
    errors = Errors(problem, n, seed)
    for shift, terminal in TERMINALS:
        for sampler in SAMPLERS_SHOWN:
            pairs = [
                (
                    auto_grid(sampler, problem.process, k, shift=shift),
                    auto_grid(sampler, problem.process, k, shift=shift, terminal=terminal),
                )
                for k in counts
            ]
            title = f"mix8-flow, shift {shift:g}, last sigma {terminal:g}"
            print(row(errors, title, sampler, pairs), flush=True)


if __name__ == "__main__":
    typer.run(main)
