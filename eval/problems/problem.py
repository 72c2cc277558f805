"""A benchmark problem: a denoiser, and the solution that every sampler is scored against.

The score is the root mean square, over samples and elements, of the difference to the solution of
the probability-flow ODE at sigma -> 0 from the same starting state. A variance-preserving run
starts from unit normal noise at the last training time, as pipelines do.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.eval.common.cache import cached
from fewstep.eval.common.keys import checked_field, reference_key
from fewstep.eval.common.sketches import Sketch, sketch, tolerance_of
from fewstep.eval.common.source_code import function_text
from fewstep.eval.problems.answers import answers
from fewstep.eval.problems.classifiers import Models
from fewstep.eval.problems.fingerprints import own_code
from fewstep.guidance import Expression
from fewstep.models.adapters import PredictionType
from fewstep.models.ode import level_at, reference_solution
from fewstep.schedules import NoiseProcess
from fewstep.types import Denoiser, Level

# Samples and elements that are solved for at once: 128 small images, 16 latents of 4x64x64.
SOLVED_SAMPLES, SOLVED_ELEMENTS = 128, 2**18


@dataclass(frozen=True)
class Problem:
    """One benchmark problem.

    Attributes:
        name: what ``load_problem`` was asked for.
        denoiser: without guidance.
        shape: of one sample.
        fingerprint: tells its data or weights from any other.
        num_classes: 0 without classes.
        models: functions that load what guidance may need, by name, see ``parse_guidance``.
        exact: whether the denoiser is in closed form, to be solved in float64 down to sigma -> 0.
        device: where the denoiser is, and noise and labels are handed out.
        decode: makes images (n, c, h, w) in [-1, 1] of any number of samples, in bounded parts;
            None if samples are images already.
        parts: what the fingerprint was made of, by name, so that a message can say what changed.
            Left out, it is the fingerprint and the user's own code behind denoiser and decoder.
    """

    name: str
    denoiser: Denoiser
    shape: tuple[int, ...]
    fingerprint: str
    num_classes: int = 0
    models: Models = field(default_factory=dict)
    exact: bool = True
    device: str = "cpu"
    decode: Callable[[Tensor], Tensor] | None = None
    parts: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What tells the model from any other, as JSON values for ``model_changes``."""
        code = {} if self.parts else own_code(self.denoiser, self.decode, *self.models.values())
        return {
            "model": dict(self.parts) or {"fingerprint": self.fingerprint, **code},
            "answers": self.answers,
            "decoder": self.decode and self._decoded[1],
        }

    @cached_property
    def answers(self) -> Sketch | None:
        """To fixed noise at two levels; None, and a warning, if they vary. Three small calls.

        Raises:
            ValueError: if the model fails, or answers in another shape.
        """
        return answers(
            self.name, self.denoiser, self.shape, self.num_classes, self.device, self.dtype
        )

    def images(self, x: Tensor) -> Tensor:
        """Samples (n, ...) as images (n, c, h, w) in [-1, 1]: decoded if they are latents."""
        return x if self.decode is None else self.decode(x)

    @cached_property
    def image_shape(self) -> tuple[int, ...]:
        """Of one sample's image; the first use decodes one sample."""
        return self.shape if self.decode is None else self._decoded[0]

    @cached_property
    def _decoded(self) -> tuple[tuple[int, ...], Sketch]:
        """The shape of an image, and a sketch of what noise is decoded to."""
        assert self.decode is not None
        noise = torch.randn(1, *self.shape, generator=torch.Generator().manual_seed(0))
        image = self.decode(noise.to(self.device, self.dtype))
        tolerance = tolerance_of(getattr(self.denoiser, "network", None))
        return tuple(image.shape[1:]), sketch(image, tolerance)

    @property
    def process(self) -> NoiseProcess:
        return self.denoiser.process

    @property
    def dtype(self) -> torch.dtype:
        """What samples are computed in."""
        return torch.float64 if self.exact else torch.float32

    @property
    def start_scale(self) -> float:
        """Standard deviation of the starting noise: 1, or sigma_max of a VE process."""
        return self.process.start_scale

    def initial_noise(
        self, n: int, seed: int = 0, dtype: torch.dtype = torch.float32, *, first: int = 0
    ) -> Tensor:
        """The (n, ...) state at the start; sample ``first`` + i depends on ``seed`` and that alone.

        Drawn in float64 on the CPU, so that dtypes and devices agree up to rounding.
        """
        rows = torch.empty(n, *self.shape, dtype=torch.float64)
        for index, row in enumerate(rows, first):
            # Neighbouring seeds of the generator must not give related streams: hash the pair.
            mixed = int(np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0])
            row.normal_(generator=torch.Generator().manual_seed(mixed))
        return (self.start_scale * rows).to(self.device, dtype)

    def labels(self, n: int, generator: torch.Generator | None = None) -> Tensor | None:
        """(n,) classes: 0, 1, 2 ... in turn, or random with a generator; None without classes."""
        if not self.num_classes:
            return None
        if generator is None:
            return torch.arange(n, device=self.device) % self.num_classes
        return torch.randint(self.num_classes, (n,), generator=generator).to(self.device)

    def prediction(
        self, x: Tensor, time: float, cond: Any = None, kind: PredictionType = "epsilon"
    ) -> Tensor:
        """What a network of prediction type ``kind`` would return, for other packages' samplers."""
        alpha, sigma = (float(value) for value in self.process.alpha_sigma(time))
        return self.output(x, Level(float(time), alpha, sigma), cond, kind)

    def output(
        self, x: Tensor, level: Level, cond: Any = None, kind: PredictionType = "epsilon"
    ) -> Tensor:
        """The same at a level, by which guidance tells where in a run it is."""
        x0 = self.denoiser(x, level, cond)
        eps = (x - level.alpha * x0) / level.sigma
        if kind == "epsilon":
            return eps
        if kind == "v_prediction":
            return level.alpha * eps - level.sigma * x0
        return x0 if kind == "sample" else eps - x0

    def reference(
        self, noise: Tensor, cond: Tensor | None = None, guidance: Expression | None = None
    ) -> Tensor:
        """The float64 solution at sigma -> 0 from ``noise``, on its device, cached on disk.

        Exact problems are solved with a root mean square error below 1e-6 (a test measures it).
        The bundled network is solved to its least trained level with an error of 7e-5, and of 2e-4
        under CFG(3), measured against dopri8 at tolerances 1e-7 and 1e-6 (4 to 6 times the calls).

        Args:
            noise: from :meth:`initial_noise`; its values are part of the cache key.
            cond: (n,) classes, or None.
            guidance: None for the plain conditional prediction.

        Raises:
            ValueError: for guidance without a solution (``Expression.is_field``).
        """
        breakpoints = checked_field(guidance)
        key = reference_key(
            self, guidance, function_text(type(self)._solve), noise, cond, by=reference_solution
        )
        solution = cached(
            key and f"{file_name(self.name)}-{key[:24]}",
            lambda: self._solve(noise, cond, guidance, breakpoints),
            self.answers,
        )
        return solution.to(noise.device)

    def _solve(
        self, noise: Tensor, cond: Tensor | None, guidance: Expression | None,
        breakpoints: tuple[float, ...],
    ) -> Tensor:  # fmt: skip
        denoiser = self.denoiser if guidance is None else guidance.wrap(self.denoiser)
        # Below its least trained level a network's answer means nothing, and on a function that is
        # rounded to float32 the higher order does not pay: 8 takes twice the calls of 5. Guidance
        # may have kinks, at which the tightest tolerance takes ten times the calls.
        method, tolerance = ("dopri8", 1e-9 if guidance is None else 1e-8)
        if not self.exact:
            method, tolerance = "dopri5", 1e-6
        rho_end = None if self.exact else self.process.rho_min
        solutions = []
        size = max(1, min(SOLVED_SAMPLES, SOLVED_ELEMENTS // math.prod(self.shape)))
        for start in range(0, len(noise), size):
            rows = slice(start, start + size)
            labels = None if cond is None else cond[rows]
            solution, _ = reference_solution(
                denoiser, noise[rows].double(), labels,
                method=method, tolerance=tolerance, rho_end=rho_end, breakpoints=breakpoints,
            )  # fmt: skip
            solutions.append(solution)
        return torch.cat(solutions).cpu()

    @cached_property
    def start_level(self) -> Level:
        """The level of :meth:`initial_noise`."""
        return level_at(self.process, self.process.rho_max)


def rmse(x: Tensor, reference: Tensor) -> float:
    """Root mean square difference over samples and elements."""
    return float((x.double() - reference).square().mean().sqrt())


def file_name(name: str) -> str:
    """A problem's name, which may be a path, as a part of a file's."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)[-80:]
