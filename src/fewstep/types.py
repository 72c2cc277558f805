"""The protocols that the folders share; no logic lives here."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from fewstep.schedules import NoiseProcess


@dataclass(frozen=True, slots=True)
class Level:
    """Where a network is called: x = alpha x0 + sigma noise.

    Attributes:
        time: what the network is told, in the units of its process.
        alpha: signal coefficient, >= 0.
        sigma: noise coefficient, > 0.
        index: number of the evaluation in the run, from 0.
        next_sigma: sigma of the next evaluation, or of the end point.
    """

    time: float
    alpha: float
    sigma: float
    index: int = 0
    next_sigma: float = 0.0


class Denoiser(Protocol):
    """A data prediction E[x0 | x] for one noise process.

    ``cond`` is whatever the model conditions on (class labels of shape (n,), embeddings, a
    dictionary), or None for the unconditional prediction. The result has the shape of ``x``.
    """

    @property
    def process(self) -> "NoiseProcess": ...

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor: ...


class RunHook(Protocol):
    """Acts on the sample before the first evaluation and after every step."""

    def start(self, x: Tensor, level: Level) -> Tensor: ...

    def after_step(self, x: Tensor, level: Level) -> Tensor: ...
