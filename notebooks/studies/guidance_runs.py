"""Runs of the guidance study: a case, its samples on disk, and what the judges say of them.

Everything is kept: samples and costs in a file for each case, judged rows as lines of
``rows.jsonl``, so that an interrupted study loses one case at most.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

import torch
from guidance_judges import Figures, Judges, Kind, real_images
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from fewstep.eval.common.cache import digest
from fewstep.eval.common.keys import reference_key
from fewstep.eval.common.source_code import function_text, our_code
from fewstep.eval.problems import Problem
from fewstep.eval.problems.guides import Meter
from fewstep.guidance import GFCG, BoostAndSkip, Context, Expression, parse_guidance
from fewstep.models.bundled import COMMANDS, bundled_weak_denoiser, weights_sha256
from fewstep.models.fashion import NULL_CLASS
from fewstep.samplers import sample
from fewstep.samplers.core.execute import Executor
from fewstep.types import RunFacts

BATCH = 100
SHOWN = ("rows", "fd", "accuracy", "knn_accuracy", "below_10", "low_both", "off_either", "seconds")
Precision = Literal["bfloat16", "float32"]


@dataclass(frozen=True)
class Case:
    """One line of a table.

    Attributes:
        guidance: in its written form.
        calls: of the network.
        sampler: its spec.
        boost: gamma and start_rho of BoostAndSkip.
        weak: whether GFCG's reference class is told to the weak model.
        labelled: classes in turn; otherwise "no class", the unconditional model.
    """

    guidance: str = "none"
    calls: int = 10
    sampler: str = "dpmpp"
    boost: tuple[float, float] | None = None
    weak: bool = False
    labelled: bool = True

    @property
    def title(self) -> str:
        """As tables have it."""
        parts = [f"`{self.guidance}`".replace("|", "\\|")] if self.guidance != "none" else []
        if self.boost:
            parts.append(f"BoostAndSkip({self.boost[0]:g}, start_rho={self.boost[1]:g})")
        return ", ".join(parts or ["unguided"]) + (", weak=" if self.weak else "")


@dataclass(frozen=True)
class RecordedGFCG(GFCG):
    """GFCG that keeps the strengths w - 1 it has used."""

    strengths: list[Tensor] = field(default_factory=list, compare=False)

    def _choose(
        self, shown: Tensor, labels: Tensor, count: int, ctx: Context
    ) -> tuple[Tensor, Tensor]:
        reference, strength = super()._choose(shown, labels, count, ctx)
        self.strengths.append(strength)
        return reference, strength


class Measured(Meter):
    """A meter for ``sample``, which makes the plan itself."""

    def breakpoints(self) -> tuple[float, ...]:
        return self.guidance.breakpoints() if self.guidance else ()

    def check(self, run: RunFacts) -> None:
        if self.guidance:
            self.guidance.check(run)


def expression_of(case: Case, problem: Problem) -> Expression | None:
    """The guidance of a case; one that is GFCG alone records its strengths."""
    found = parse_guidance(case.guidance, problem.models)
    if isinstance(found, GFCG):
        found = RecordedGFCG(**{f.name: getattr(found, f.name) for f in fields(GFCG)})
        if case.weak:
            found = replace(found, weak=bundled_weak_denoiser(problem.process))
    return found


@torch.no_grad()
def draw(
    case: Case, problem: Problem, n: int, seed: int, precision: Precision = "bfloat16"
) -> tuple[Tensor, Figures]:
    """Samples (n, 1, 28, 28) as uint8, and costs: per sample, and in seconds.

    Sample i depends on the case, the seed and i alone, up to rounding. With bfloat16 only matrix
    products are rounded, which halves the time.
    """
    found = expression_of(case, problem)
    labels = torch.arange(n) % 10 if case.labelled else torch.full((n,), NULL_CLASS)
    hooks = [BoostAndSkip(case.boost[0], start_rho=case.boost[1])] if case.boost else []
    made, rows, calls, begun = [], 0, 0, time.perf_counter()
    for first in range(0, n, BATCH):
        meter, stop = Measured(found), min(first + BATCH, n)
        seeds = range(seed * 10**6 + first, seed * 10**6 + stop)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            x = sample(
                problem.denoiser, case.sampler, case.calls, shape=(stop - first, *problem.shape),
                cond=labels[first:stop], guidance=meter, hooks=hooks, seeds=seeds,
            )  # fmt: skip
        made.append((x * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8))
        rows, calls = rows + meter.counters.rows, calls + meter.counters.calls * len(x)
    costs = {"rows": rows / n, "network_calls": calls / n, "seconds": time.perf_counter() - begun}
    if isinstance(found, RecordedGFCG):
        costs["mean_scale"] = 1 + float(torch.cat(found.strengths).mean())
    return torch.cat(made), costs


@cache
def _drawing() -> str:
    """SHA-256 of the code that samples."""
    return digest([our_code(sample), function_text(draw)])


class Store:
    """What has been measured, in a folder.

    Args:
        folder: where samples and rows go.
        problem: with the bundled denoiser.
        n, seed: of the samples.
        precision: of the networks' matrix products.
    """

    def __init__(
        self, folder: Path, problem: Problem, n: int, seed: int, precision: Precision = "bfloat16"
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.problem, self.n, self.seed = folder, problem, n, seed
        self.precision: Precision = precision
        self._keys: dict[tuple[Case, str], str] = {}
        self._lines = folder / "rows.jsonl"
        text = self._lines.read_text() if self._lines.exists() else ""
        self._rows = {row["key"]: row for row in map(json.loads, text.splitlines())}

    @cached_property
    def judges(self) -> Judges:
        return Judges()

    def key(self, case: Case) -> str:
        """Names the case, the samples, and the weights and code that made them."""
        samples = f"{self.problem.name} {self.n} {self.seed} {self.precision}"
        if (case, samples) not in self._keys:
            models = [name for name in COMMANDS if name != "minority" or name in case.guidance]
            found = reference_key(
                self.problem, expression_of(case, self.problem), json.dumps(asdict(case)), samples,
                *map(weights_sha256, models), _drawing(), by=Executor,
            )  # fmt: skip
            if found is None:
                raise ValueError(f"samples of {case.title} cannot be told from others'")
            self._keys[case, samples] = found[:16]
        return self._keys[case, samples]

    def samples(self, case: Case) -> tuple[Tensor, Figures]:
        """Samples as uint8 and their costs, drawn if they are not there."""
        path = self.folder / f"{self.key(case)}.safetensors"
        if not path.exists():
            images, costs = draw(case, self.problem, self.n, self.seed, self.precision)
            save_file({"x": images}, path, {"costs": json.dumps(costs)})
        with safe_open(path, "pt") as file:
            return file.get_tensor("x"), json.loads(file.metadata()["costs"])

    def row(self, case: Case) -> Figures:
        """All figures of a case."""
        labels = torch.arange(self.n) % 10 if case.labelled else None
        key = digest([self.key(case), our_code(Judges)])[:16]
        return self._kept(key, case.title, lambda: (*self.samples(case), labels))

    def real(self, kind: Kind = "in turn") -> Figures:
        """All figures of as many real test images."""
        images, labels = real_images(self.n, self.seed, kind)
        name = f"real {self.n} {self.seed} {kind} {our_code(Judges)[:16]}"
        return self._kept(name, name, lambda: (images, {}, None if kind == "at random" else labels))

    def _kept(
        self, key: str, title: str, made: Callable[[], tuple[Tensor, Figures, Tensor | None]]
    ) -> Figures:
        if key not in self._rows:
            images, costs, labels = made()
            figures = {**costs, **self.judges(images, labels)}
            row = {"key": key, "title": title, "n": self.n, "seed": self.seed, "figures": figures}
            with self._lines.open("a") as file:
                file.write(json.dumps(row) + "\n")
            self._rows[key] = row
            shown = ", ".join(f"{name} {figures[name]:.3g}" for name in SHOWN if name in figures)
            print(f"{title}: {shown}", flush=True)
        figures = self._rows[key]["figures"]
        return dict(figures)
