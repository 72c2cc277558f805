"""What a source sees at an evaluation: the state, the condition, keyed draws, its memory."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fewstep.guidance.rows import Row
from fewstep.types import Denoiser, Level


@dataclass
class Counters:
    """What guided sampling cost, summed over samples.

    Attributes:
        rows: forward rows of the network, weak models included.
        backward_rows: rows that were differentiated through the network.
        classifier_rows: forward rows of classifiers and energies.
        calls: calls of a network, of however many rows.
    """

    rows: int = 0
    backward_rows: int = 0
    classifier_rows: int = 0
    calls: int = 0


class Draws:
    """Random numbers keyed by (sample, solver step, site), drawn on the CPU.

    They depend on nothing else: not on the batch, on what other parts draw, or on how many stages
    a step has; and the sampler's own generators are never touched.

    Args:
        seeds: one integer for each sample.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = seeds
        self._generator = torch.Generator()

    def normal(self, shape: Sequence[int], step: int, site: str) -> Tensor:
        """(n, *shape) unit noise in float32."""
        return self._each(step, site, lambda g: torch.randn(tuple(shape), generator=g))

    def uniform(self, shape: Sequence[int], step: int, site: str) -> Tensor:
        """(n, *shape) uniform in [0, 1), in float32."""
        return self._each(step, site, lambda g: torch.rand(tuple(shape), generator=g))

    def integers(self, high: int, shape: Sequence[int], step: int, site: str) -> Tensor:
        """(n, *shape) integers in 0 .. high - 1."""
        return self._each(step, site, lambda g: torch.randint(high, tuple(shape), generator=g))

    def _each(self, step: int, site: str, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        salt = zlib.crc32(site.encode())
        rows = []
        for seed in self.seeds:
            self._generator.manual_seed(mixed(seed, step, salt))
            rows.append(draw(self._generator))
        return torch.stack(rows)


def mixed(*values: int) -> int:
    """A 63-bit hash of integers, of which neighbours are unrelated (splitmix64's finaliser)."""
    state = 0
    for value in values:
        state = (state ^ value) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


@dataclass
class Context:
    """One evaluation.

    Attributes:
        x: (n, ...) the noisy state.
        level: where it is.
        cond: its condition, as handed to the denoiser.
        denoiser: the unguided one.
        draws: keyed random numbers.
        memory: what sources keep within a run, by site.
        counters: of the run.
        first: whether this is the first evaluation of a run, where inputs are checked.
        known: data predictions at this evaluation by the key of their row.
    """

    x: Tensor
    level: Level
    cond: Any
    denoiser: Denoiser
    draws: Draws
    memory: dict[str, Any]
    counters: Counters
    first: bool = False
    known: dict[Any, Tensor] = field(default_factory=dict)
    leaf: Tensor | None = None

    @property
    def base(self) -> Row:
        """The prediction that is guided."""
        return Row("cond", self.cond)

    @property
    def base_graph(self) -> Row:
        """The same prediction, differentiable by ``leaf``."""
        return Row("cond with graph", self.cond, graph=True)

    @property
    def prediction(self) -> Tensor:
        """The base prediction, once it is known; in float32 at least."""
        return self.known["cond"]

    def labels(self, who: str) -> Tensor:
        """The (n,) class labels of the condition.

        Raises:
            ValueError: if there are none, or they are not n integers.
        """
        found = self.cond
        if isinstance(found, Mapping):
            found = found.get("class_labels")
        if found is None:
            raise ValueError(f"{who} needs class labels: pass cond=, an (n,) integer tensor")
        if not isinstance(found, Tensor) or found.is_floating_point() or found.ndim != 1:
            kind = type(found).__name__
            if isinstance(found, Tensor):
                kind = f"{found.dtype} of shape {tuple(found.shape)}"
            raise ValueError(f"{who} needs class labels as an (n,) integer tensor, got {kind}")
        if len(found) != len(self.x):
            raise ValueError(f"{who} got {len(found)} labels for {len(self.x)} samples")
        return found

    def relabelled(self, labels: Tensor) -> Any:
        """The condition with other class labels."""
        if isinstance(self.cond, Mapping):
            return {**self.cond, "class_labels": labels}
        return labels

    def num_classes(self, who: str) -> int:
        """How many classes the denoiser knows.

        Raises:
            ValueError: if that is not known.
        """
        count = getattr(self.denoiser, "num_classes", None)
        if not count:
            raise ValueError(
                f"{who} needs the number of classes: give the denoiser num_classes=, for example "
                "EDMDenoiser(net, process, num_classes=10)"
            )
        return int(count)

    @property
    def time_fraction(self) -> float:
        """The network time between that of the process's least noise (0) and its most (1)."""
        process = self.denoiser.process
        start, end = (float(process.time(rho)) for rho in (process.rho_max, process.rho_min))
        return min(1.0, max(0.0, (self.level.time - end) / (start - end)))

    def on_device(self, values: Tensor) -> Tensor:
        """Drawn values where the state is; floats in its dtype, float32 at least."""
        dtype = values.dtype
        if values.is_floating_point():
            dtype = torch.promote_types(self.x.dtype, torch.float32)
        return values.to(self.x.device, dtype, non_blocking=True)


def check_range(labels: Tensor, count: int, who: str, *, null: bool = False) -> None:
    """Checks class labels; reading them waits for the device, so it is done once a run.

    Raises:
        ValueError: for one outside 0 .. K - 1, or with ``null`` 0 .. K, where K means none.
    """
    if labels.numel():
        low, high = (int(bound) for bound in torch.aminmax(labels))
        if low < 0 or high >= count + null:
            raise ValueError(
                f"{who} needs class labels in 0 .. {count - 1} ({count} means none of them), got "
                f"{low} .. {high}; pass others, or a model of more classes"
            )


def gradient(fn: Callable[[Tensor], Tensor], x: Tensor, who: str, *, checked: bool) -> Tensor:
    """The gradient of the sum of ``fn(x)``, (n,) values, by x, whatever mode the caller is in.

    Values are summed, never averaged, so that a sample's gradient is that of the sample alone.

    Raises:
        ValueError: if ``fn`` cannot be differentiated, or with ``checked`` if a gradient is not
            finite.
    """
    with torch.inference_mode(False), torch.enable_grad():
        leaf = fresh_leaf(x)
        return differentiated(fn(leaf), leaf, who, checked=checked)


def fresh_leaf(x: Tensor) -> Tensor:
    """A copy to differentiate by; an inference tensor has to be cloned outside inference mode."""
    return x.detach().clone().requires_grad_()


def differentiated(
    values: Tensor, leaf: Tensor, who: str, *, checked: bool, shared: bool = False
) -> Tensor:
    """The gradient of ``values.sum()`` by ``leaf``; see :func:`gradient`.

    With ``shared`` the graph is kept, since another source may differentiate the same prediction.
    """
    remedy = "guidance by gradients needs a differentiable function of x in floating point"
    if not values.requires_grad:
        raise ValueError(f"the output of {who} does not depend on x differentiably: {remedy}")
    (found,) = torch.autograd.grad(values.sum(), leaf, retain_graph=shared, allow_unused=True)
    if found is None:
        raise ValueError(f"the output of {who} does not depend on x differentiably: {remedy}")
    if checked and not bool(found.isfinite().all()):
        raise ValueError(
            f"the gradient of {who} is not finite; clamp its output or its input, or train it at "
            "the noise levels of the sampler"
        )
    return found
