"""What a set of generated images is made from, and how one unit of it is made.

A unit is a fixed number of consecutive samples, always sampled as one batch of that size: networks
sum in an order that depends on the batch, so only then are pixels the same for every number of
processes and every order of work. The last unit is filled up, and cut after sampling.

All that sample i draws - start noise, class, the noise of later steps, the draws of guidance -
comes from its own seed. Seeds of later draws are shifted by multiples of a constant; within 300
draws, two samples never share a stream if their seeds are less than 5 million apart.
"""

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

import fewstep
from fewstep.checks import Checked, named
from fewstep.eval.common.cache import digest
from fewstep.eval.common.clock import Clock
from fewstep.eval.common.image_sets import quantised
from fewstep.eval.common.keys import stable
from fewstep.eval.common.limits import MAX_BATCH
from fewstep.eval.common.source_code import code_digest, function_text, our_code
from fewstep.eval.generate.seeds import check_seeds, seeds_text
from fewstep.eval.networks.extractors import Extractor
from fewstep.eval.networks.micro_batches import strict_float32
from fewstep.eval.problems import Problem
from fewstep.eval.problems.guided_plans import guided_plan, plan_digest, process_digest
from fewstep.eval.problems.guides import Meter, WrittenGuidance, read_guidance
from fewstep.eval.problems.tuned_plans import warn_other_model
from fewstep.guidance import Expression
from fewstep.guidance.context import Draws
from fewstep.models.ode import reference_solution
from fewstep.samplers import Plan, sample
from fewstep.samplers.core.execute import Executor
from fewstep.samplers.sampling.diverged import refused
from fewstep.schedules.limits import at_most

FORMAT = 3
Classes = Literal["uniform", "turn"]
Keep = Literal["none", "features", "images"]


@dataclass(frozen=True)
class Unit:
    """The samples of one unit, without its filling.

    Attributes:
        images: (n, ...) uint8.
        labels: (n,) int64, or None without classes.
        features: (n, dim) float32, or None without an extractor.
        calls: of the network.
        network_rows: rows of those calls, the filling included.
        seconds: by phase: ``network``, ``solver``, ``decode`` (to 8 bits, too), ``features``.
    """

    images: Tensor
    labels: Tensor | None
    features: Tensor | None
    calls: int
    network_rows: int
    seconds: dict[str, float]

    @property
    def pixels(self) -> str:
        """SHA-256 of images and labels: the same whatever of them is kept."""
        return pixel_hash(self.images, self.labels)

    def kept(self, keep: Keep) -> dict[str, Tensor]:
        """What goes into the unit's file."""
        images = self.images if keep == "images" else None
        found = {"images": images, "labels": self.labels, "features": self.features}
        return {name: value.contiguous() for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class Generation(Checked):
    """Samples to be generated.

    Args:
        problem: denoiser, process, shape and device; its fingerprint must tell its weights.
        sampler: a spec, the path of a saved plan, or a plan.
        nfe: calls of the sampler, >= 1.
        seeds: one for each sample, in 0 .. 2^32 - 1, none twice.
        guidance: as ``parse_guidance`` reads it.
        unit_size: samples of a unit, >= 1.
        classes: ``uniform`` draws each sample's from its seed, ``turn`` takes 0, 1, 2 ... in turn.
        keep: ``images`` (with the features, if there is an extractor), ``features``, or ``none``
            for their sums alone.
        extractor: of the features; needed unless images are kept.

    Raises:
        ValueError: for a value outside these, or a sampler or guidance that does not fit.
        FileNotFoundError: if a plan or the weights of a model are missing.
    """

    problem: Problem
    sampler: str | Plan
    nfe: int
    seeds: Sequence[int]
    guidance: str = "none"
    unit_size: int = 64
    classes: Classes = "uniform"
    keep: Keep = "images"
    extractor: Extractor | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.problem, Problem):
            raise TypeError(
                f"problem must be one of load_problem, got {named(self.problem)}; as in "
                "load_problem('fashion')"
            )
        if self.extractor is not None and not hasattr(self.extractor, "fingerprint"):
            raise TypeError(f"extractor must be of load_extractor, got {named(self.extractor)}")
        check_seeds(self.seeds)
        if self.unit_size < 1:
            raise ValueError(f"unit_size must be at least 1, got {self.unit_size}")
        at_most("unit_size, the samples of a batch,", self.unit_size, MAX_BATCH)
        for name, value, known in (
            ("classes", self.classes, get_args(Classes)), ("keep", self.keep, get_args(Keep)),
        ):  # fmt: skip
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        if self.classes == "turn" and not self.problem.num_classes:
            raise ValueError(
                f"classes='turn' has no effect on {self.problem.name!r}, which has no classes: "
                "leave it out"
            )
        if self.keep != "images" and self.extractor is None:
            raise ValueError(f"keep={self.keep!r} needs an extractor; pass one, or keep='images'")
        _ = self.config  # before anything is sampled, whatever does not fit is refused

    @property
    def units(self) -> int:
        """How many units there are."""
        return -(-len(self.seeds) // self.unit_size)

    @cached_property
    def plan(self) -> Plan:
        """The sampler's table under the guidance."""
        expression = self._guidance.expression
        plan = guided_plan(self.sampler, self.problem.process, self.nfe, expression)
        if "landing" in plan.provenance:
            raise ValueError(
                f"the plan {plan.name!r} starts from a Gaussian, which a run's settings cannot "
                "keep: use fewstep bench, or a plan without one"
            )
        warn_other_model(plan, self.problem.fingerprint, self.guidance)
        return plan

    @property
    def config(self) -> dict[str, Any]:
        """All that the images, or what is kept of them, depend on, as JSON values."""
        problem, extractor = self.problem, self.extractor
        try:
            guidance = stable(self._guidance.expression)
        except TypeError as error:
            raise ValueError(
                f"guidance {self.guidance!r} cannot be written down: {error}"
            ) from error
        return {
            "format": FORMAT,
            "problem": problem.name,
            "fingerprint": problem.fingerprint,
            **problem.identity,
            "process": process_digest(problem.process),
            "shape": list(problem.shape),
            "image_shape": list(problem.image_shape),
            "num_classes": problem.num_classes,
            "dtype": str(problem.dtype),
            "sampler": self.plan.name,
            "nfe": self.plan.calls,
            "sigmas": self.plan.sigmas(native=True),
            "plan": plan_digest(self.plan),
            "guidance": self._guidance.text,
            "guidance_models": digest([guidance]),
            "classes": self.classes if problem.num_classes else "none",
            "seeds": seeds_text(self.seeds),
            "unit_size": self.unit_size,
            "quantise": "edm",
            "keep": self.keep,
            "extractor": extractor and extractor.name,
            "extractor_weights": extractor and extractor.fingerprint,
            "extractor_scale": extractor and extractor.scale,
            "extractor_code": extractor and code_digest(extractor),
            "code_of_fewstep": self._code,
            **arithmetic(problem.device),
        }

    @cached_property
    def _code(self) -> str:
        return sampling_code(self.problem, [self._guidance.expression])

    def seeds_of(self, unit: int) -> Sequence[int]:
        """The seeds of a unit's samples."""
        return self.seeds[unit * self.unit_size : (unit + 1) * self.unit_size]

    @torch.no_grad()
    def make(self, unit: int) -> Unit:
        """Samples a unit.

        Raises:
            ValueError: if a sample is not finite, with the call that made it so.
        """
        problem, seeds = self.problem, list(self.seeds_of(unit))
        rows, filled = len(seeds), seeds + seeds[-1:] * (self.unit_size - len(seeds))
        labels, meter = self._labels(unit, filled), Meter(self._guidance.expression)
        clock = Clock(problem.device)
        with strict_float32(torch.device(problem.device)):
            with clock.phase("solver"), refused():
                x = sample(
                    clock.timed(problem.denoiser), self.plan, self.plan.calls,
                    shape=(len(filled), *problem.shape),
                    cond=None if labels is None else labels.to(problem.device), guidance=meter,
                    seeds=filled, device=problem.device, dtype=problem.dtype,
                )  # fmt: skip
            with clock.phase("decode"):
                # Decoders, too, round by the size of their batch: the filling is cut off behind.
                images = quantised(problem.images(x)[:rows].cpu())
        with clock.phase("features"):
            features = None if self.extractor is None else self.extractor(images).float().cpu()
        cost = meter.counters
        return Unit(
            images, None if labels is None else labels[:rows], features, cost.calls, cost.rows,
            {phase: round(seconds, 6) for phase, seconds in clock.seconds().items()},
        )  # fmt: skip

    @property
    def expression(self) -> Expression | None:
        """The guidance, or None."""
        return self._guidance.expression

    @cached_property
    def _guidance(self) -> WrittenGuidance:
        return read_guidance(self.guidance, self.problem)

    def _labels(self, unit: int, seeds: Sequence[int]) -> Tensor | None:
        count = self.problem.num_classes
        if not count:
            return None
        if self.classes == "uniform":
            return Draws(seeds).integers(count, (), 0, "label")
        first = unit * self.unit_size
        return torch.arange(first, first + len(seeds)) % count


def sampling_code(problem: Problem, guidance: Iterable[Expression | None]) -> str:
    """SHA-256 of the code of this package that makes samples from plans, and of other packages.

    The code of samplers and grids is left out: what it made is in the plan. That of the user's own
    is part of the model.
    """
    used = (problem.denoiser, problem.process, problem.decode, *guidance)
    texts = [function_text(one) for one in (sample, Generation.make, quantised)]
    return digest([our_code(*used, Executor, reference_solution), *texts])


def pixel_hash(images: Tensor, labels: Tensor | None) -> str:
    """SHA-256 of a unit's uint8 images and its labels."""
    return digest([images, torch.empty(0, dtype=torch.int64) if labels is None else labels])


def _processor() -> str:
    """The model, by which libraries choose kernels among those of one set of instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def arithmetic(device: str) -> dict[str, Any]:
    """What the last bits depend on, so that a run goes on where it began or not at all."""
    kind = torch.device(device)
    if kind.type == "cuda":
        name = torch.cuda.get_device_name(kind)
    else:
        name = f"{kind.type} {torch.backends.cpu.get_cpu_capability()}, {_processor()}"
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "torch": str(torch.__version__),
        "fewstep": fewstep.__version__,
    }
