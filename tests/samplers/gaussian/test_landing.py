"""Where a Gaussian explains a model: the share that it leaves, and the rule for where to land."""

import pytest
import torch
from teleports import MEAN, PROCESSES, STDS, diagonal_fit

from fewstep.models.exact import GaussianDenoiser, MixtureDenoiser
from fewstep.samplers.gaussian.landing import explained_level, unexplained
from fewstep.schedules import VE


@pytest.mark.parametrize("name", PROCESSES)
def test_gaussian_data_are_explained_everywhere(name: str) -> None:
    """So the rule lands at the lowest level that it looks at, half a deviation of the data."""
    denoiser = GaussianDenoiser(PROCESSES[name], MEAN, STDS)
    data = denoiser.sample_data((64, 6), torch.Generator().manual_seed(0))
    assert unexplained(diagonal_fit(), denoiser, data, [0.1, 1.0, 10.0]).max() < 1e-20
    lowest = 0.5 * float(STDS.square().mean().sqrt())
    assert explained_level(diagonal_fit(), denoiser, data) == pytest.approx(lowest)


def test_the_share_is_that_of_the_definition() -> None:
    """A mean that is off by b leaves (sigma^2 / (v + sigma^2) b)^2 of the signal's variance."""
    process, std, off = VE(), 0.8, 0.3
    denoiser = GaussianDenoiser(process, 0.0, std)
    data = denoiser.sample_data((4000, 6), torch.Generator().manual_seed(0))
    fit = diagonal_fit(torch.full((6,), std).double(), torch.full((6,), off).double())
    for rho in (0.5, 2.0):
        gap = (rho**2 / (std**2 + rho**2) * off) ** 2
        spread = std**4 / (std**2 + rho**2) + off**2
        # 24,000 numbers: a relative error of sqrt(2 / 24000) = 1 %, and three times that.
        assert unexplained(fit, denoiser, data, rho)[0] == pytest.approx(gap / spread, rel=0.03)


def test_the_rule_finds_where_a_mixture_stops_to_be_gaussian() -> None:
    """Two points at +-1: below the landing more than 1 % is left, above it less."""
    process = VE(0.002, 80.0)
    denoiser = MixtureDenoiser(process, torch.tensor([[-1.0], [1.0]]), 0.05)
    data = denoiser.sample_data(512, torch.Generator().manual_seed(0))
    # The exact moments: an error of the mean counts for much where little is left to explain.
    fit = diagonal_fit(torch.tensor([1.0025**0.5]).double(), torch.zeros(1).double())
    rho = explained_level(fit, denoiser, data)
    assert rho is not None
    above, below = unexplained(fit, denoiser, data, [rho * 1.3, rho / 1.3])
    assert above < 0.01 < below
    # The level itself is on the threshold, up to the curve within a sixth of a decade.
    assert unexplained(fit, denoiser, data, rho)[0] == pytest.approx(0.01, rel=0.2)
    stricter = explained_level(fit, denoiser, data, threshold=0.001)
    assert stricter is not None
    assert stricter > 1.5 * rho


def test_levels_that_fail_above_the_first_that_passes_do_not_count() -> None:
    """A model that is noise far up is Gaussian in the middle all the same; never is None."""
    process = VE(0.002, 80.0)
    inner = GaussianDenoiser(process, 0.0, 1.0)
    data = inner.sample_data((64, 3), torch.Generator().manual_seed(0))

    class Poor(GaussianDenoiser):
        limit = 20.0

        def __call__(self, x, level, cond=None):
            return super().__call__(x, level) + 3 * (level.rho > self.limit)

    poor, fit = (
        Poor(process, 0.0, 1.0),
        diagonal_fit(torch.ones(3).double(), torch.zeros(3).double()),
    )
    assert explained_level(fit, poor, data) == pytest.approx(0.5)
    poor.limit = 0.0
    assert explained_level(fit, poor, data) is None
