"""Published schedules: lists of levels that were tuned to one model each.

Unlike the rules of :mod:`fewstep.schedules.rules` they fit one noise process only; another one is
refused. The lists of Align Your Steps are ratios sigma / alpha, those of OptimalSteps a flow's
sigma.
"""

from dataclasses import dataclass

import numpy as np

from fewstep.schedules.process import Array, Flow, NoiseProcess
from fewstep.schedules.rules import GridRule

AYS = "Align Your Steps, arXiv:2404.14507"
OSS = "OptimalSteps, arXiv:2503.21774"
AGREES = 1e-6  # relative; the lists have 12 digits where the ends are those of a table


@dataclass(frozen=True)
class Published:
    """A list of levels from the noisiest to the end, as a grid rule.

    n calls take n + 1 levels at equally spaced places in the list, with ln(level) linear between
    its entries, as the authors do; the last one is then replaced by the end of the grid, as for
    every rule, and the first by the noisiest level of the process. Only OptimalSteps' list for FLUX
    begins elsewhere, at sigma 0.9968.

    Attributes:
        name: its key in ``PUBLISHED``.
        model: what it was tuned to.
        levels: falling; sigma / alpha, or sigma of a flow.
        source: the paper.
        flow: whether the levels are a flow's.
    """

    name: str
    model: str
    levels: tuple[float, ...]
    source: str
    flow: bool = False

    def __call__(self, process: NoiseProcess, n: int, k: int, power: float) -> Array:
        """The first k of n + 1 ratios sigma / alpha; ``power`` is ignored.

        Raises:
            ValueError: for another process than the model's.
        """
        self.check(process)
        place = np.linspace(0, len(self.levels) - 1, n + 1)
        logs = np.interp(place, np.arange(len(self.levels)), np.log(self.levels))
        levels = np.exp(logs)[:k]
        if isinstance(process, Flow):
            return process.rho(np.minimum(levels, 1.0) * process.num_train_timesteps)
        return np.asarray(levels)

    def check(self, process: NoiseProcess) -> None:
        """Raises ValueError unless the process has the range that the list was made for."""
        is_flow = isinstance(process, Flow)
        ends, own = (self.levels[0], self.levels[-1]), (process.rho_max, process.rho_min)
        if self.flow == is_flow and (is_flow or np.allclose(ends, own, rtol=AGREES, atol=0)):
            return
        wants = "a flow" if self.flow else f"sigma/alpha {ends[0]:.4g} .. {ends[1]:.4g}"
        got = "a flow" if is_flow else f"sigma/alpha {own[0]:.4g} .. {own[1]:.4g}"
        raise ValueError(
            f"the grid {self.name!r} was tuned to {self.model}, whose process is {wants}; got "
            f"{got}: use a grid that fits every process, or pass levels as sigmas="
        )


_LISTS = (
    Published(
        "ays_sd15", "Stable Diffusion 1.5",
        (14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092,
         0.9642583904, 0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582), AYS,
    ),
    Published(
        "ays_sdxl", "Stable Diffusion XL",
        (14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141,
         0.5550693289, 0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582), AYS,
    ),
    Published(
        "ays_svd", "Stable Video Diffusion",
        (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002), AYS,
    ),
    Published(
        "oss_flux", "FLUX.1",
        (0.9968, 0.9886, 0.9819, 0.975, 0.966, 0.9471, 0.9158, 0.8287, 0.5512, 0.2808, 0.001),
        OSS, flow=True,
    ),
    Published(
        "oss_wan", "Wan 2.1",
        (1.0, 0.997, 0.995, 0.993, 0.991, 0.989, 0.987, 0.985, 0.98, 0.975, 0.973, 0.968, 0.96,
         0.946, 0.927, 0.902, 0.864, 0.776, 0.539, 0.208, 0.001),
        OSS, flow=True,
    ),
)  # fmt: skip

PUBLISHED: dict[str, GridRule] = {one.name: one for one in _LISTS}
