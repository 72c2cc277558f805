"""What DC-Solver's ratios gain on noises that they were not fitted to.

    python notebooks/studies/compensation.py --out runs/compensation

For each guidance and number of calls: the error of UniPC at its defaults, of some multistep solvers
with the ratios of a few noises, and of the best diffusers scheduler. The schedulers are screened on
other noises, and the best three of them run on all.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from fewstep.eval.bench.peers import peers_for
from fewstep.eval.problems import Problem, load_problem, rmse
from fewstep.eval.problems.fine_solution import fine_reference
from fewstep.guidance import CFG
from fewstep.samplers import build_plan, sample
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.tuning.compensation_search import fit_compensation

FIT_SEED, SCREEN_SEED, SEED = 77, 78, 2024
SCREENED, KEPT = 16, 3


class Cell:
    """One problem and guidance, with noises to fit, to screen and to report on."""

    def __init__(self, name: str, scale: float, n: int) -> None:
        self.problem: Problem = load_problem(name)
        self.guidance = None if scale == 1 else CFG(scale)
        self.n = n

    def noise(self, seed: int, n: int) -> Tensor:
        dtype = torch.float64 if self.problem.exact else torch.float32
        return self.problem.initial_noise(n, seed, dtype)

    @torch.no_grad()
    def error(self, plan: Plan) -> float:
        """RMSE on the noises to report on."""
        noise, labels = self.noise(SEED, self.n), self.problem.labels(self.n)
        unit = noise / self.problem.start_scale
        result = sample(
            self.problem.denoiser, plan, plan.nfe, noise=unit, cond=labels, guidance=self.guidance
        )
        return rmse(result, fine_reference(self.problem, noise, labels, self.guidance))

    def best_peer(self, nfe: int) -> tuple[float, str]:
        """The best diffusers scheduler and its error."""
        problem = self.problem
        if self.guidance is not None:
            problem = replace(problem, denoiser=self.guidance.wrap(problem.denoiser))

        def errors(peers: Sequence[object], seed: int, n: int) -> list[tuple[float, str]]:
            noise, labels = self.noise(seed, n), self.problem.labels(n)
            reference = fine_reference(self.problem, noise, labels, self.guidance)
            found = []
            for peer in peers_for(problem.process):
                if peers and str(peer) not in peers:
                    continue
                try:
                    x = peer.sample(problem, nfe, noise / problem.start_scale, labels)
                except ValueError:  # it cannot run within so few calls
                    continue
                found.append((rmse(x, reference), str(peer)))
            return sorted(found)

        screened = [name for _, name in errors([], SCREEN_SEED, SCREENED)[:KEPT]]
        return errors(screened, SEED, self.n)[0]

    def compensated(self, spec: str, nfe: int, noises: int) -> float:
        """Error of ``dc`` around ``spec`` with ratios fitted to so many noises."""
        unit = self.noise(FIT_SEED, noises) / self.problem.start_scale
        found = fit_compensation(
            self.problem.denoiser, unit, nfe, guidance=self.guidance,
            cond=self.problem.labels(noises), sampler=spec, progress=False,
        )  # fmt: skip
        ratios = ",".join(map(str, found.ratios))
        plan = f"dc:multistep=({spec}),compensation=[{ratios}]"
        return self.error(build_plan(plan, self.problem.process, nfe))


def main(
    problem: Annotated[str, typer.Option(help="name of a problem")] = "fashion",
    guidance: Annotated[str, typer.Option(help="comma list of scales, 1 for none")] = "1,3",
    nfe: Annotated[str, typer.Option(help="comma list of calls")] = "5,8",
    solvers: Annotated[str, typer.Option(help="specs, blank between them")] = "unipc ipndm dpmpp",
    noises: Annotated[int, typer.Option(help="to fit to")] = 10,
    n: Annotated[int, typer.Option(help="noises to report on")] = 256,
    out: Annotated[Path, typer.Option(help="folder of the table")] = Path("runs/compensation"),
) -> None:
    """Prints and writes the table."""
    out.mkdir(parents=True, exist_ok=True)
    specs = solvers.split()
    lines = [
        "| guidance | NFE | unipc | best of diffusers | "
        + " | ".join(f"dc of {s}" for s in specs)
        + " |"
    ]
    lines.append("|---" * (4 + len(specs)) + "|")
    for scale in map(float, guidance.split(",")):
        cell = Cell(problem, scale, n)
        for calls in map(int, nfe.split(",")):
            unipc = cell.error(build_plan("unipc", cell.problem.process, calls))
            peer, name = cell.best_peer(calls)
            row = [f"{scale:g}", str(calls), f"{unipc:.4f}"]
            row.append(f"{peer:.4f} ({name.removeprefix('diffusers:')})")
            for spec in specs:
                error = cell.compensated(spec, calls, noises)
                row.append(f"{error:.4f} ({error / unipc:.2f}, {error / peer:.2f})")
            lines.append("| " + " | ".join(row) + " |")
            print(lines[-1], flush=True)
    (out / "compensation.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    typer.run(main)
