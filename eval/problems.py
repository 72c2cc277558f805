"""Benchmark problems: a denoiser, a process and the solution every sampler is scored against.

The score is the root mean square, over samples and elements, of the difference to the solution of
the probability-flow ODE at sigma -> 0 from the same starting state. A variance-preserving run
starts from unit normal noise at the last training time, as pipelines do.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.eval.cache import cached, digest
from fewstep.eval.classifiers import Models, fashion_models, mixture_models
from fewstep.eval.keys import checked_field, reference_key
from fewstep.guidance import Expression
from fewstep.models.adapters import PredictionType
from fewstep.models.bundled import bundled_denoiser, weights_sha256
from fewstep.models.exact import MixtureDenoiser
from fewstep.models.fashion import NUM_CLASSES
from fewstep.models.ode import level_at, reference_solution
from fewstep.schedules import VE, Flow, NoiseProcess, discrete_vp
from fewstep.types import Denoiser, Level


@dataclass(frozen=True)
class Problem:
    """One benchmark problem.

    Attributes:
        name: key in ``PROBLEMS``.
        denoiser: without guidance.
        shape: of one sample.
        fingerprint: tells its data or weights from any other.
        num_classes: 0 without classes.
        models: functions that load what guidance may need, by name, see ``parse_guidance``.
        exact: whether the denoiser is in closed form, to be solved in float64 down to sigma -> 0.
        device: where the denoiser is, and noise and labels are handed out.
    """

    name: str
    denoiser: Denoiser
    shape: tuple[int, ...]
    fingerprint: str
    num_classes: int = 0
    models: Models = field(default_factory=dict)
    exact: bool = True
    device: str = "cpu"

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
        key = reference_key(self.fingerprint, self.process, guidance, noise, cond)
        solution = cached(
            key and f"{self.name}-{key[:24]}",
            lambda: self._solve(noise, cond, guidance, breakpoints),
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
        for start in range(0, len(noise), 128):
            rows = slice(start, start + 128)
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


def _data(name: str) -> bytes:
    return (files("fewstep.eval") / "data" / name).read_bytes()


def _scaled_vp() -> NoiseProcess:
    """Stable Diffusion's schedule."""
    return discrete_vp("scaled_linear", beta_start=0.00085, beta_end=0.012)


def _linear_vp() -> NoiseProcess:
    """DDPM's schedule, betas 1e-4 to 0.02."""
    return discrete_vp("linear", beta_start=1e-4, beta_end=0.02)


def _mixture(name: str, device: str, file: str, noise_process: NoiseProcess) -> Problem:
    content = _data(file)
    values = json.loads(content)
    means, stds, weights = (
        torch.tensor(values[key], dtype=torch.float64) for key in ("means", "std", "weights")
    )
    denoiser = MixtureDenoiser(noise_process, means, stds, weights).to(device)
    return Problem(name, denoiser, denoiser.shape, digest([content]), device=device)


def _fashion_exact(name: str, device: str, noise_process: NoiseProcess) -> Problem:
    """Bandwidth 0.2 around 4,000 images of 16x16: any smaller, and samples are training images."""
    content = _data("fashion16.npz")
    with np.load(BytesIO(content)) as arrays:
        images = torch.from_numpy(arrays["images"]).double()[:, None] / 127.5 - 1
        labels = torch.from_numpy(arrays["labels"]).long()
    denoiser = MixtureDenoiser(noise_process, images, 0.2, labels=labels).to(device)
    fingerprint = digest([content])
    return Problem(
        name, denoiser, denoiser.shape, fingerprint, denoiser.num_classes,
        mixture_models(denoiser, fingerprint), device=device,
    )  # fmt: skip


def _fashion(name: str, device: str, noise_process: NoiseProcess) -> Problem:
    denoiser = bundled_denoiser(noise_process, device)
    return Problem(
        name, denoiser, (1, 28, 28), weights_sha256(), NUM_CLASSES,
        fashion_models(noise_process, device), exact=False, device=device,
    )  # fmt: skip


PROBLEMS: dict[str, Callable[[str, str], Problem]] = {
    "mix8": lambda name, device: _mixture(name, device, "mix8.json", _scaled_vp()),
    "ring2": lambda name, device: _mixture(name, device, "ring2.json", _scaled_vp()),
    "mix8-linear": lambda name, device: _mixture(name, device, "mix8.json", _linear_vp()),
    "ring2-linear": lambda name, device: _mixture(name, device, "ring2.json", _linear_vp()),
    "mix8-flow": lambda name, device: _mixture(name, device, "mix8.json", Flow()),
    "fashion-exact": lambda name, device: _fashion_exact(name, device, _linear_vp()),
    "fashion-exact-scaled": lambda name, device: _fashion_exact(name, device, _scaled_vp()),
    "fashion": lambda name, device: _fashion(name, device, _linear_vp()),
    "fashion-edm": lambda name, device: _fashion(name, device, VE(0.002, 80.0)),
}  # fmt: skip


def load_problem(name: str, device: str = "cpu") -> Problem:
    """The problem of that name, its denoiser on ``device``.

    Raises:
        ValueError: for an unknown name.
        FileNotFoundError: if the bundled weights are missing.
    """
    if name not in PROBLEMS:
        raise ValueError(f"unknown problem {name!r}; known: {', '.join(PROBLEMS)}")
    return PROBLEMS[name](name, device)
