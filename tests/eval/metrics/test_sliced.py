"""The sliced distance: known answers, and what it does not depend on."""

import pytest
import torch
from gaussians import randn
from torch import Tensor

from fewstep.eval.metrics.sliced import sliced_wasserstein


def test_a_shift_is_known() -> None:
    """Along u it is |s.u|, of which the root mean square is |s| / sqrt(d)."""
    x, shift = randn(50, 12, seed=0), torch.linspace(-1, 2, 12).double()
    found = sliced_wasserstein(x, x + shift, projections=4000)
    # (s.u)^2 has about sqrt(2) of its mean for standard deviation, its root half of that.
    assert found == pytest.approx(float(shift.norm()) / 12**0.5, rel=3 * 0.71 / 4000**0.5)


def test_gaussians_are_known() -> None:
    """Of N(0, 1) and N(0, 4) it is 1 along every line."""
    x, y = randn(20_000, 3, seed=0), 2 * randn(20_000, 3, seed=1)
    # Standard deviations of 20,000 samples are off by up to 2 (3 times 1/sqrt(2 n) of 2).
    assert sliced_wasserstein(x, y, projections=64) == pytest.approx(1, abs=0.03)


def quantiles(x: Tensor, y: Tensor) -> float:
    """W2 in one dimension, both sets repeated to a common number."""
    x, y = x[:, 0].repeat_interleave(len(y)), y[:, 0].repeat_interleave(len(x))
    return float((x.sort().values - y.sort().values).square().mean().sqrt())


@pytest.mark.parametrize(("n", "m"), [(5, 5), (6, 4), (7, 3), (1, 9), (8, 1), (12, 18)])
def test_counts_may_differ(n: int, m: int) -> None:
    x, y = randn(n, 1, seed=0), randn(m, 1, seed=1) + 0.3
    assert sliced_wasserstein(x, y, projections=3) == pytest.approx(quantiles(x, y), rel=1e-12)


def test_copies_of_each_sample_change_nothing() -> None:
    x, y = randn(9, 4, seed=0), randn(6, 4, seed=1)
    found = sliced_wasserstein(x, y)
    assert sliced_wasserstein(x.repeat(3, 1), y.repeat(2, 1)) == pytest.approx(found, rel=1e-12)


def test_order_does_not_matter_and_a_set_is_at_zero_from_itself() -> None:
    x, y = randn(40, 5, seed=0), randn(30, 5, seed=1)
    assert sliced_wasserstein(x.flip(0), y) == pytest.approx(sliced_wasserstein(x, y), rel=1e-12)
    assert sliced_wasserstein(y, x) == pytest.approx(sliced_wasserstein(x, y), rel=1e-12)
    assert sliced_wasserstein(x, x.flip(0)) < 1e-14  # products of other rows round differently


def test_the_directions_are_seeded() -> None:
    x, y = randn(40, 5, seed=0), randn(40, 5, seed=1)
    before = torch.get_rng_state()
    assert sliced_wasserstein(x, y) == sliced_wasserstein(x, y)
    assert torch.equal(torch.get_rng_state(), before)
    values = [sliced_wasserstein(x, y, seed=s) for s in range(5)]
    assert 0 < max(values) - min(values) < 0.2 * values[0]  # 1,000 directions


def test_what_does_not_fit_is_refused() -> None:
    x = randn(4, 3, seed=0)
    with pytest.raises(ValueError, match=r"got \(4, 3\) and \(4, 2\)"):
        sliced_wasserstein(x, x[:, :2])
    with pytest.raises(ValueError, match="n, m >= 1"):
        sliced_wasserstein(x, x[:0])
    with pytest.raises(ValueError, match="nan or infinite"):
        sliced_wasserstein(x, x / 0)
    with pytest.raises(ValueError, match="projections must be at least 1, got 0"):
        sliced_wasserstein(x, x, projections=0)
