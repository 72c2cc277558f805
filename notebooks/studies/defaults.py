"""How far the samplers without any option are from the best of diffusers.

    python notebooks/studies/defaults.py --out runs/defaults

For each problem, guidance and number of calls: the error of the default sampler, and of the best
diffusers scheduler over all its classes and six grids, from other noises than those the grids were
scanned on (seed 101). One table of ratios, their geometric mean and their worst.
"""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer

from fewstep.eval.bench.runner import run_bench
from fewstep.eval.bench.setup import Bench
from fewstep.eval.reports.results import Row

# (problem, guidance, samples): those the automatic grids were chosen on, with other noises.
CASES = (
    ("mix8", "none", 2048),
    ("ring2", "none", 2048),
    ("mix8-linear", "none", 2048),
    ("ring2-linear", "none", 2048),
    ("mix8-flow", "none", 2048),
    ("fashion-exact", "none", 256),
    ("fashion-exact", "cfg:3", 256),
    ("fashion-exact-scaled", "none", 256),
    ("fashion-exact-scaled", "cfg:3", 256),
    ("fashion", "none", 16),
    ("fashion", "cfg:3", 16),
)
Case = tuple[str, str, int]


def compare(sampler: str, nfe: tuple[int, ...], seed: int) -> dict[Case, tuple[Row, Row]]:
    """For each case and number of calls, our row and the best of diffusers'."""
    pairs = {}
    for problem, guidance, n in CASES:
        bench = Bench(
            problem=problem, guidance=guidance, n=n, seed=seed, nfe=nfe,
            samplers=(sampler,), peers="diffusers",
        )  # fmt: skip
        ours: dict[int, Row] = {}
        theirs: dict[int, list[Row]] = defaultdict(list)
        for row in run_bench(bench).rows:
            if row.sampler.startswith("diffusers:"):
                theirs[row.nfe].append(row)
            else:
                ours[row.nfe] = row
        for calls, row in ours.items():
            best = min(theirs[calls], key=lambda peer: _rmse(peer))
            pairs[problem, guidance, calls] = (row, best)
            print(f"{problem:22} {guidance:6} {calls:3} {_rmse(row):8.4f} {_rmse(best):8.4f} "
                  f"{_rmse(row) / _rmse(best):6.2f}  {best.sampler}", flush=True)  # fmt: skip
    return pairs


def _rmse(row: Row) -> float:
    value = row.metrics["rmse"]
    return value if math.isfinite(value) else math.inf


def table(pairs: dict[Case, tuple[Row, Row]]) -> str:
    """The comparison as Markdown."""
    lines = ["| problem | guidance | NFE | ours | best of diffusers | which | ratio |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    ratios = []
    for (problem, guidance, calls), (ours, best) in pairs.items():
        ratios.append(_rmse(ours) / _rmse(best))
        lines.append(
            f"| {problem} | {guidance} | {calls} | {_rmse(ours):.4f} | {_rmse(best):.4f} | "
            f"{best.sampler.removeprefix('diffusers:')} | {ratios[-1]:.2f} |"
        )
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return "\n".join([*lines, "", f"Geometric mean {mean:.2f}, worst {max(ratios):.2f}."]) + "\n"


def main(
    sampler: Annotated[str, typer.Option(help="spec of ours to compare")] = "ipndm",
    nfe: Annotated[str, typer.Option(help="comma list of calls")] = "5,8,10,15,20",
    seed: Annotated[int, typer.Option(help="of the noises")] = 7,
    out: Annotated[Path, typer.Option(help="folder of the table")] = Path("runs/defaults"),
) -> None:
    """Prints and writes the table of the default sampler against the best of diffusers."""
    out.mkdir(parents=True, exist_ok=True)
    pairs = compare(sampler, tuple(int(n) for n in nfe.split(",")), seed)
    (out / "defaults.md").write_text(table(pairs))
    rows = [{"case": case, "ours": _rmse(a), "best": _rmse(b), "which": b.sampler}
            for case, (a, b) in pairs.items()]  # fmt: skip
    (out / "defaults.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(table(pairs))


if __name__ == "__main__":
    typer.run(main)
