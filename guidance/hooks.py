"""Run hooks: they act on a run's start, or on which samples go on, and not on predictions."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from fewstep.checks import Checked
from fewstep.guidance.context import Draws
from fewstep.types import Level, RunFacts

Potential = Literal["max", "diff", "add"]


class BoostAndSkip(Checked):
    """Boost-and-Skip: starts late, from noise that is too strong, to end in rarer places.

    The run starts at sigma~ = sigma / alpha = ``start_rho`` (a node is moved there, and the calls
    above it are saved) from gamma sqrt(alpha^2 + sigma^2) times unit noise; after that sampling is
    plain. The noise that a stochastic sampler adds brings the state back to the data; an ODE solver
    would carry the excess to the end, off the data.

    Args:
        gamma: >= 1; the authors have 4 for CelebA and 2.5 for ImageNet-64.
        start_rho: > 0; 53 is the authors' three of 250 steps of a cosine schedule. The lower, the
            more of the boost is left, down to samples off the data: with gamma = 4 it takes 4 on
            a mixture in the plane, where the bundled model of images gives noise only. From above
            the sampler's first level nothing is skipped, and the boost is washed out.

    Raises:
        ValueError: for values outside these, and before sampling with a solver without noise.

    Reference:
        Um et al. 2025, arXiv:2502.06516, algorithm 1.
    """

    def __init__(self, gamma: float = 4.0, *, start_rho: float = 53.0) -> None:
        if not (math.isfinite(gamma) and gamma >= 1):
            raise ValueError(f"gamma of BoostAndSkip must be a finite number >= 1, got {gamma}")
        if not (math.isfinite(start_rho) and start_rho > 0):
            raise ValueError(
                f"start_rho of BoostAndSkip is a ratio sigma / alpha > 0, got {start_rho}"
            )
        self.gamma, self._start_rho = gamma, start_rho

    @property
    def start_rho(self) -> float:
        return self._start_rho

    def check(self, run: RunFacts) -> None:
        if not run.noisy:
            raise ValueError(
                "BoostAndSkip needs a sampler that adds noise, an ODE solver would carry the boost "
                "to the end: use euler_a, dpmpp:tau=1, sa or ddim:eta=1"
            )

    def start(self, noise: Tensor, x: Tensor, level: Level) -> Tensor:
        """The boosted state (n, ...) at ``level``."""
        return self.gamma * math.hypot(level.alpha, level.sigma) * noise.to(x.dtype)

    def after_step(
        self, x: Tensor, x0: Tensor, level: Level, seeds: Sequence[int]
    ) -> Tensor | None:
        return None


class FKSteering(Checked):
    """Feynman-Kac steering: groups of particles, resampled in favour of a reward.

    The batch holds groups of ``particles`` consecutive samples. Every ``every`` solver steps within
    ``window`` each particle's log-weight grows by the potential of its reward r = reward(x0) at the
    data prediction, and a group whose effective sample size (sum w)^2 / sum w^2 has fallen below
    ``threshold`` times its size is resampled; log-weights are kept until then. Potentials, times
    ``scale``: ``"max"`` of all rewards so far, ``"diff"`` to the last one, ``"add"``. Only those
    of ``"diff"`` multiply up to exp(scale reward) at the last weighing; the paper corrects the
    others at the end, we leave them as they are. Nothing is read from an accelerator. Two
    particles of one ancestor part only if the sampler adds noise.

    Args:
        reward: data predictions (n, ...) -> (n,), higher is better.
        particles: in a group, >= 2.
        scale: lambda >= 0.
        potential: ``"max"``, ``"diff"`` or ``"add"``.
        every: solver steps between weighings, >= 1.
        window: fractions of the run between which they happen.
        threshold: share of a group below which it is resampled; 1 resamples at each weighing.

    Attributes:
        log_weights: (groups, particles) since the last resampling, after a run.
        effective_sizes: (groups,) at each weighing, before resampling.

    Raises:
        ValueError: for values outside these, before sampling with a solver without noise, and for a
            batch that is not made of whole groups.

    Reference:
        Singhal et al. 2025, arXiv:2501.06848, algorithm 1 and section 3.1.
    """

    start_rho = None

    def __init__(
        self,
        reward: Callable[[Tensor], Tensor],
        particles: int = 4,
        scale: float = 10.0,
        *,
        potential: Potential = "max",
        every: int = 1,
        window: tuple[float, float] = (0.2, 0.8),
        threshold: float = 0.5,
    ) -> None:
        if particles < 2 or every < 1:
            raise ValueError(f"particles >= 2 and every >= 1 are needed, got {particles}, {every}")
        if not (math.isfinite(scale) and scale >= 0):
            raise ValueError(f"scale of FKSteering must be a finite number >= 0, got {scale}")
        if potential not in ("max", "diff", "add"):
            raise ValueError(f"potential must be max, diff or add, got {potential!r}")
        if not 0 <= window[0] < window[1] <= 1 or not 0 <= threshold <= 1:
            raise ValueError(
                f"window and threshold are fractions between 0 and 1, got {window}, {threshold}"
            )
        self.reward, self.particles, self.scale = reward, particles, scale
        self.potential, self.every = potential, every
        self.window, self.threshold = window, threshold
        self._steps = 0

    def check(self, run: RunFacts) -> None:
        if not run.noisy:
            raise ValueError(
                "FKSteering needs a sampler that adds noise, or copies of a particle stay equal: "
                "use euler_a, dpmpp:tau=1, sa or ddim:eta=1"
            )
        self._steps = run.levels[-1].step + 1
        self._last = run.levels[-1].index

    def start(self, noise: Tensor, x: Tensor, level: Level) -> Tensor:
        """Forgets the run before; the state is left as it is."""
        if len(x) % self.particles:
            raise ValueError(
                f"{len(x)} samples are not whole groups of {self.particles} particles; draw a "
                f"multiple of {self.particles}"
            )
        self.log_weights = x.new_zeros(
            len(x) // self.particles, self.particles, dtype=torch.float32
        )
        self._rewards: Tensor | None = None  # the most or the last so far, by potential
        self.effective_sizes: list[Tensor] = []
        self._done = -1  # the last solver step that was weighed
        return x

    def after_step(
        self, x: Tensor, x0: Tensor, level: Level, seeds: Sequence[int]
    ) -> Tensor | None:
        """(n,) the ancestors after a weighing; None between weighings."""
        share = (level.step + 1) / self._steps
        due = (level.step + 1) % self.every == 0 and level.step != self._done
        if not due or not self.window[0] <= share <= self.window[1]:
            return None
        self._done = level.step
        rewards = self.reward(x0).detach().float()
        # Reading them waits for an accelerator, so there they are not checked.
        if rewards.shape != x.shape[:1] or (
            rewards.device.type == "cpu" and not bool(rewards.isfinite().all())
        ):
            raise ValueError(
                f"the reward of FKSteering must give ({len(x)},) finite numbers, one for each "
                f"sample, got shape {tuple(rewards.shape)}; sum over a sample's elements, and "
                "clamp what may overflow"
            )
        self._weigh(rewards)
        weights = self.log_weights.softmax(dim=1)
        size = 1 / weights.square().sum(dim=1)
        self.effective_sizes.append(size)
        drawn = Draws(seeds[:: self.particles]).uniform((self.particles,), level.step, "FK")
        picked = torch.searchsorted(
            weights.cumsum(dim=1), drawn.to(weights.device, non_blocking=True), right=True
        )
        picked = picked.clamp_max(self.particles - 1)  # sums of weights may round below 1
        wanted = (size < self.threshold * self.particles)[:, None] | (self.threshold == 1)
        own = torch.arange(self.particles, device=x.device)
        local = torch.where(wanted, picked, own)
        self.log_weights = torch.where(wanted, 0.0, self.log_weights)
        if self._rewards is not None:
            self._rewards = self._rewards.gather(1, local)
        first = torch.arange(len(local), device=x.device)[:, None] * self.particles
        return rearrange(first + local, "g k -> (g k)")

    def _weigh(self, rewards: Tensor) -> None:
        found = rearrange(rewards, "(g k) -> g k", k=self.particles)
        before = self._rewards
        if self.potential == "add":
            gained = found
        elif self.potential == "diff":
            gained = found if before is None else found - before
            before = found
        else:
            most = found if before is None else torch.maximum(found, before)
            # What the running maximum has risen by, so that weights multiply up to exp(max).
            gained = most if before is None else most - before
            before = most
        self._rewards = before
        self.log_weights = self.log_weights + self.scale * gained

    def best(self, samples: Tensor) -> Tensor:
        """(groups, ...) the sample of the highest reward in each group."""
        rewards = rearrange(self.reward(samples), "(g k) -> g k", k=self.particles)
        first = torch.arange(len(rewards), device=samples.device) * self.particles
        return samples[first + rewards.argmax(dim=1)]
