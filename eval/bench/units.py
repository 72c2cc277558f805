"""One batch of a benchmark: the same starts through every sampler, and what each is scored by.

A unit is one batch through one sampler, or its fine solution. The numbers of units go into files,
from which the results are added up in the order of the units: so a benchmark goes on where it
ended, and several processes give what one gives. A key is ``case/job/name``, by position; the job
``reference`` is the fine solution.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fewstep.eval.bench.jobs import Batch, Job
from fewstep.eval.bench.setup import Bench
from fewstep.eval.common.cache import digest
from fewstep.eval.common.clock import Clock, peak_memory
from fewstep.eval.common.image_sets import quantised
from fewstep.eval.common.phases import PHASES
from fewstep.eval.common.source_code import function_text
from fewstep.eval.generate.units import sampling_code
from fewstep.eval.metrics.choices import EXACT
from fewstep.eval.metrics.judge import features_of
from fewstep.eval.metrics.references import Reference
from fewstep.eval.metrics.scores import SetScores
from fewstep.eval.networks.extractors import Extractor, FashionExtractor
from fewstep.eval.problems import Problem
from fewstep.eval.problems.fine_solution import fine_reference, reference_calls
from fewstep.eval.problems.guides import Meter, WrittenGuidance
from fewstep.guidance import Expression

BATCH_ELEMENTS = 128 * 784
# Rows of the longest unit of a network: less than a minute at 100 rows a second, as a slow CPU has
# them, and on a device a hundred times as fast. A fixed number, for the last bits of an output
# depend on the size of its batch, and what comes out may not depend on how busy a machine is.
UNIT_ROWS = {"cpu": 5_000}
DEVICE_UNIT_ROWS = 500_000
SHOWN = 12  # samples kept for the picture
REFERENCE = "reference"
ADAPTIVE_CALLS = 50  # about, of a solver that chooses its own
COSTS = ("calls", "rows", "backward_rows", "classifier_rows")
Numbers = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """One guidance and its jobs."""

    guidance: WrittenGuidance
    jobs: list[Job]


@dataclass(frozen=True)
class Work:
    """A benchmark with everything that it needs.

    Attributes:
        bench: the settings.
        problem: gives references.
        sampled: the same, maybe compiled.
        cases: one for each guidance.
        extractor: of features; None if nothing is scored by them.
        reference: statistics of real images in them.
    """

    bench: Bench
    problem: Problem
    sampled: Problem
    cases: list[Case]
    extractor: Extractor | None
    reference: Reference | None

    @cached_property
    def batch_size(self) -> int:
        """Samples of a batch, but for the last of each repeat.

        A power of two below what memory takes at once, so that runs of other samplers, calls and
        numbers of samples mostly share their batches, and with them the cached fine solutions.
        """
        most = max(1, min(4096, BATCH_ELEMENTS // int(torch.Size(self.problem.shape).numel())))
        if self.problem.exact:
            return most
        rows = UNIT_ROWS.get(torch.device(self.problem.device).type, DEVICE_UNIT_ROWS)
        longest = max(self._rows_of(case) for case in self.cases)
        while most > 1 and most * longest > rows:
            most = 1 << ((most - 1).bit_length() - 1)
        return most

    def _rows_of(self, case: Case) -> int:
        """Network rows that a sample takes in the longest unit of a case, at most."""
        expression = case.guidance.expression
        each = 1 + (0 if expression is None else len(list(expression.sources())))
        calls = [job.nfe or ADAPTIVE_CALLS for job in case.jobs]
        return each * max(self.reference_calls_of(case), *calls, 1)

    @cached_property
    def batches(self) -> int:
        """Of one repeat."""
        return -(-self.bench.n // self.batch_size)

    @cached_property
    def steps(self) -> list[tuple[int, str]]:
        """Case and job of each unit of a batch, in order."""
        return [
            (c, name)
            for c, case in enumerate(self.cases)
            for name in ([REFERENCE] if case.guidance.has_reference else [])
            + [str(j) for j in range(len(case.jobs))]
        ]

    @property
    def units(self) -> int:
        return self.batches * self.bench.repeats * len(self.steps)

    def unit(self, batch: int, case: int, job: str) -> int:
        """The number of a unit."""
        return batch * len(self.steps) + self.steps.index((case, job))

    @property
    def calls(self) -> int:
        """Calls for each sample, about."""
        return sum(map(self.calls_of, self.cases))

    def calls_of(self, case: Case) -> int:
        """The same of one case."""
        own = sum(job.nfe or ADAPTIVE_CALLS for job in case.jobs)
        return own + self.reference_calls_of(case)

    def reference_calls_of(self, case: Case) -> int:
        """Those of its reference alone; 0 without one."""
        guidance = case.guidance
        return reference_calls(self.problem, guidance.expression) if guidance.has_reference else 0

    def rows(self, batch: int) -> int:
        """Samples of a batch."""
        return min(self.batch_size, self.bench.n - batch % self.batches * self.batch_size)

    def calls_of_unit(self, unit: int) -> int:
        """Calls for each sample of a unit, about."""
        c, name = self.steps[unit % len(self.steps)]
        if name == REFERENCE:
            return self.reference_calls_of(self.cases[c])
        return self.cases[c].jobs[int(name)].nfe or ADAPTIVE_CALLS

    def told(self, unit: int) -> str:
        """What a unit is, in words."""
        c, name = self.steps[unit % len(self.steps)]
        case = self.cases[c]
        guided = "" if case.guidance.expression is None else f", {case.guidance.text}"
        if name == REFERENCE:
            return f"reference{guided}"
        job = case.jobs[int(name)]
        return f"{job.sampler}, {job.nfe or 'its own'} calls{guided}"

    def scores(self) -> SetScores | None:
        """What takes in the features of one set of samples."""
        if self.extractor is None or self.reference is None:
            return None
        asked = [name for name in self.bench.metrics if name != EXACT]
        return SetScores(self.extractor, self.reference, asked, self.bench.n)

    @property
    def keeps_samples(self) -> bool:
        """Whether unguided samples are compared with the data itself."""
        return self.problem.exact and EXACT in self.bench.metrics

    @property
    def shows_images(self) -> bool:
        return len(self.problem.image_shape) == 3

    def batches_of(self, repeat: int) -> range:
        """The batches of a repeat, in the order of their samples."""
        return range(repeat * self.batches, (repeat + 1) * self.batches)

    def batch(self, number: int) -> Batch:
        """The starts of a batch; of exact problems in float64."""
        repeat, piece = divmod(number, self.batches)
        seed, problem = self.bench.seed + repeat, self.problem
        first = piece * self.batch_size
        last = first + self.rows(number)
        noise = problem.initial_noise(last - first, seed, problem.dtype, first=first)
        labels = problem.labels(self.bench.n)
        # Far from the small integers that seed the starts.
        seeds = [seed * 2**32 + 2**24 + i for i in range(first, last)]
        return Batch(noise, None if labels is None else labels[first:last], seeds)


@dataclass(frozen=True)
class Made:
    """A unit that was run.

    Attributes:
        unit: its number.
        numbers: what it is scored by.
    """

    unit: int
    numbers: Numbers

    @property
    def rows_and_seconds(self) -> tuple[float, float]:
        """Network rows and the seconds that they took; of a fine solution nothing is known."""
        for key, costs in self.numbers.items():
            if key.endswith("/costs"):
                spent = self.numbers[key.removesuffix("costs") + "seconds"]
                network, solver = PHASES.index("network"), PHASES.index("solver")
                return float(costs[COSTS.index("rows")]), float(spent[network] + spent[solver])
        return 0.0, 0.0


class BatchRun:
    """Runs jobs on the starts of one batch.

    Args:
        work: the benchmark.
        number: of the batch.
        wanted: its units that are not there yet; all if None.
    """

    def __init__(self, work: Work, number: int, wanted: Collection[int] | None = None) -> None:
        self.work, self.number, self.batch = work, number, work.batch(number)
        first = number * len(work.steps)
        self._wanted = range(first, first + len(work.steps)) if wanted is None else wanted
        self._shown = SHOWN if number == 0 and work.shows_images else 0

    def units(self) -> Iterator[Made]:
        """The wanted units, one after the other.

        The fine solution is found again for the jobs that need it: on disk, if it can be kept.
        """
        for c, case in enumerate(self.work.cases):
            numbers_of = {
                name: self.work.unit(self.number, c, name)
                for at, name in self.work.steps
                if at == c
            }
            if not any(unit in self._wanted for unit in numbers_of.values()):
                continue
            reference, features = None, None
            if case.guidance.has_reference:
                expression = case.guidance.expression
                reference = fine_reference(
                    self.work.problem, self.batch.noise, self.batch.labels, expression
                )
                numbers, features = self._judged(reference, None, Clock())
                if numbers_of[REFERENCE] in self._wanted:
                    yield self._made(c, REFERENCE, numbers)
            for j, job in enumerate(case.jobs):
                if numbers_of[str(j)] in self._wanted:
                    numbers = self._run(case, job, reference, features)
                    yield self._made(c, str(j), numbers)

    def _made(self, case: int, name: str, numbers: Numbers) -> Made:
        prefixed = {f"{case}/{name}/{key}": value.contiguous() for key, value in numbers.items()}
        return Made(self.work.unit(self.number, case, name), prefixed)

    def _run(
        self, case: Case, job: Job, reference: Tensor | None, reference_features: Tensor | None
    ) -> Numbers:
        problem, clock = self.work.sampled, Clock(self.work.problem.device)
        meter = Meter(case.guidance.expression)
        with clock.phase("solver"):
            timed = replace(problem, denoiser=clock.timed(problem.denoiser))
            x = job.run(timed, self.batch, meter)
        numbers, _ = self._judged(x, reference_features, clock)
        if self.work.keeps_samples and case.guidance.expression is None:
            numbers["samples"] = x.cpu()
        if reference is not None:
            numbers["rmse"] = _squares(x, reference)
            numbers["rmse_each"] = _squares_each(x, reference)
        costs = [float(getattr(meter.counters, name)) for name in COSTS]
        seconds = clock.seconds()
        numbers["costs"] = torch.tensor(costs, dtype=torch.float64)
        numbers["seconds"] = torch.tensor(
            [seconds.get(phase, 0.0) for phase in PHASES], dtype=torch.float64
        )
        numbers["peak_memory"] = torch.tensor(peak_memory(problem.device))
        return numbers

    def _judged(
        self, x: Tensor, reference_features: Tensor | None, clock: Clock
    ) -> tuple[Numbers, Tensor | None]:
        """What is kept of samples, and their features."""
        numbers: Numbers = {}
        extractor = self.work.extractor
        if extractor is None and not self._shown:
            return numbers, None
        with clock.phase("decode"), torch.no_grad():
            images = self.work.problem.images(x if extractor else x[: self._shown])
        if self._shown:
            numbers["shown"] = quantised(images[: self._shown].nan_to_num(0.0)).cpu()
            if self.batch.labels is not None:
                numbers["labels"] = self.batch.labels[: self._shown].cpu().clone()
        if extractor is None:
            return numbers, None
        with clock.phase("features"):
            features = features_of(extractor, images)
        numbers["features"] = features.cpu()
        if reference_features is not None:
            numbers["feature_rmse"] = _squares(features, reference_features)
            numbers["feature_rmse_each"] = _squares_each(features, reference_features)
        if isinstance(extractor, FashionExtractor) and self.batch.labels is not None:
            right = extractor.logits(features).argmax(1) == self.batch.labels
            numbers["accuracy"] = torch.tensor([float(right.sum()), len(right)]).double()
            numbers["accuracy_each"] = right.double().cpu()
        return numbers, features


def warm_up(work: Work, number: int) -> None:
    """Calls the network once under each guidance, as the batch will."""
    problem, batch = work.sampled, work.batch(number)
    for case in work.cases:
        guided = Meter(case.guidance.expression).wrap(problem.denoiser, batch.seeds)
        with torch.no_grad():
            guided(batch.noise, problem.start_level, batch.labels)


def scoring_code(problem: Problem, guidance: Iterable[Expression | None]) -> str:
    """SHA-256 of the code of this package that a unit's numbers depend on, but for extractors."""
    parts: tuple[Callable[..., Any], ...] = (BatchRun, Work.batch, features_of, _squares)
    own = [function_text(part) for part in parts]
    return digest([sampling_code(problem, guidance), *own])


def _squares(x: Tensor, other: Tensor) -> Tensor:
    """Sum of squared differences, and of how many."""
    total = (x.double() - other.double()).square().sum()
    return torch.stack([total, torch.full_like(total, x.numel())]).cpu()


def _squares_each(x: Tensor, other: Tensor) -> Tensor:
    """(n,) mean squared difference of each sample, for how much the mean of all varies."""
    return (x.double() - other.double()).square().flatten(1).mean(1).cpu()
