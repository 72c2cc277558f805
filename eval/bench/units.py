"""One unit of a benchmark: the same starts through every sampler, and what each is scored by.

A unit's numbers go into one file, from which the results are added up in the order of the units:
so a benchmark goes on where it ended, and several processes give what one gives. A key is
``case/job/name``, by position; the job ``reference`` is the fine solution.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewstep.eval.bench.guides import Meter, WrittenGuidance
from fewstep.eval.bench.jobs import Batch, Job
from fewstep.eval.bench.reference import fine_reference, reference_calls
from fewstep.eval.bench.setup import EXACT, Bench
from fewstep.eval.clock import PHASES, Clock, peak_memory
from fewstep.eval.generate.units import quantised
from fewstep.eval.networks.extractors import Extractor, FashionExtractor
from fewstep.eval.networks.features import features_of
from fewstep.eval.problems import Problem
from fewstep.eval.references import Reference
from fewstep.eval.scores import SetScores

BATCH_ELEMENTS = 128 * 784
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

    @property
    def batch_size(self) -> int:
        """Samples of a unit, but for the last of each repeat."""
        return max(1, min(4096, BATCH_ELEMENTS // int(torch.Size(self.problem.shape).numel())))

    @property
    def pieces(self) -> int:
        """Units of one repeat."""
        return -(-self.bench.n // self.batch_size)

    @property
    def units(self) -> int:
        return self.pieces * self.bench.repeats

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

    def rows(self, unit: int) -> int:
        """Samples of a unit."""
        return min(self.batch_size, self.bench.n - unit % self.pieces * self.batch_size)

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

    def units_of(self, repeat: int) -> range:
        """The units of a repeat, in the order of their samples."""
        return range(repeat * self.pieces, (repeat + 1) * self.pieces)

    def batch(self, unit: int) -> Batch:
        """The starts of a unit; of exact problems in float64."""
        repeat, piece = divmod(unit, self.pieces)
        seed, problem = self.bench.seed + repeat, self.problem
        first = piece * self.batch_size
        last = first + self.rows(unit)
        noise = problem.initial_noise(last - first, seed, problem.dtype, first=first)
        labels = problem.labels(self.bench.n)
        # Far from the small integers that seed the starts.
        seeds = [seed * 2**32 + 2**24 + i for i in range(first, last)]
        return Batch(noise, None if labels is None else labels[first:last], seeds)


class UnitRun:
    """Runs all jobs on the starts of one unit."""

    def __init__(self, work: Work, unit: int) -> None:
        self.work, self.batch = work, work.batch(unit)
        self._shown = SHOWN if unit == 0 and work.shows_images else 0

    def steps(self) -> Iterator[tuple[str, int, Numbers]]:
        """What ran, about how many calls that was, and its numbers."""
        for c, case in enumerate(self.work.cases):
            reference, features = None, None
            if case.guidance.has_reference:
                expression = case.guidance.expression
                reference = fine_reference(
                    self.work.problem, self.batch.noise, self.batch.labels, expression
                )
                numbers, features = self._judged(reference, None, Clock())
                told = f"reference, guidance {case.guidance.text}"
                calls = self.work.reference_calls_of(case)
                yield told, calls, _prefixed(f"{c}/{REFERENCE}", numbers)
            for j, job in enumerate(case.jobs):
                numbers = self._run(case, job, reference, features)
                told = f"{job.sampler}, {job.nfe or 'own'} calls"
                yield told, job.nfe or ADAPTIVE_CALLS, _prefixed(f"{c}/{j}", numbers)

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


def warm_up(work: Work, unit: int) -> None:
    """Calls the network once under each guidance, as the unit will."""
    problem, batch = work.sampled, work.batch(unit)
    for case in work.cases:
        guided = Meter(case.guidance.expression).wrap(problem.denoiser, batch.seeds)
        with torch.no_grad():
            guided(batch.noise, problem.start_level, batch.labels)


def _squares(x: Tensor, other: Tensor) -> Tensor:
    """Sum of squared differences, and of how many."""
    total = (x.double() - other.double()).square().sum()
    return torch.stack([total, torch.full_like(total, x.numel())]).cpu()


def _squares_each(x: Tensor, other: Tensor) -> Tensor:
    """(n,) mean squared difference of each sample, for how much the mean of all varies."""
    return (x.double() - other.double()).square().flatten(1).mean(1).cpu()


def _prefixed(prefix: str, numbers: Numbers) -> Numbers:
    return {f"{prefix}/{name}": value.contiguous() for name, value in numbers.items()}
