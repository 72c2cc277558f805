"""KID: its formula, that it is unbiased, and that tiles change nothing."""

import pytest
import torch
from gaussians import randn
from torch import Tensor

from fewstep.eval.metrics.kid import cubic, kid, kid_all_pairs, unbiased_mmd2


def naive(x: Tensor, y: Tensor) -> float:
    """The formula, pair by pair."""

    def k(a: Tensor, b: Tensor) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    def among(s: Tensor) -> float:
        n = len(s)
        return sum(k(s[i], s[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

    cross = sum(k(a, b) for a in x for b in y) / (len(x) * len(y))
    return among(x) + among(y) - 2 * cross


def test_all_pairs_are_the_formula() -> None:
    x, y = randn(13, 5, seed=0), randn(9, 5, seed=1) + 0.4
    assert kid_all_pairs(x, y) == pytest.approx(naive(x, y), rel=1e-12)  # float64 sums
    assert kid_all_pairs(y, x) == pytest.approx(kid_all_pairs(x, y), rel=1e-12)


@pytest.mark.parametrize("tile", [1, 4, 7, 50])
def test_tiles_change_nothing(tile: int) -> None:
    x, y = randn(30, 6, seed=0), randn(21, 6, seed=1)
    whole = unbiased_mmd2(x, y, cubic)
    assert unbiased_mmd2(x, y, cubic, tile) == pytest.approx(whole, abs=1e-12)  # other order


def test_expectation_is_zero_for_equal_distributions() -> None:
    """60 independent values; a biased estimate (with i = j) would be 30 standard errors off."""
    values = torch.tensor(
        [kid_all_pairs(randn(40, 16, seed=2 * i), randn(60, 16, seed=2 * i + 1)) for i in range(60)]
    )
    error = float(values.std()) / len(values) ** 0.5
    assert abs(float(values.mean())) < 3 * error  # passed by 99.7 % of seeds, and by these
    bias = (8 - 1) / 40  # mean of k(x, x) about 2^3, of others about 1
    assert bias > 6 * error
    assert bool((values < 0).any())


def test_subsets_estimate_the_same_number() -> None:
    x, y = randn(300, 8, seed=0), randn(300, 8, seed=1) + 0.5
    mean, sd = kid(x, y, subsets=60, size=100)
    # Subsets of a third of the samples vary by sd, and 60 of them share samples.
    assert mean == pytest.approx(kid_all_pairs(x, y), abs=3 * sd / 60**0.5)
    assert 0 < sd < mean


def test_seeds_repeat() -> None:
    x, y = randn(50, 4, seed=0), randn(50, 4, seed=1)
    assert kid(x, y, subsets=3, size=20) == kid(x, y, subsets=3, size=20)
    assert kid(x, y, subsets=3, size=20) != kid(x, y, subsets=3, size=20, seed=1)


def test_subsets_of_all_samples_are_all_pairs() -> None:
    x, y = randn(20, 4, seed=0), randn(20, 4, seed=1)
    mean, sd = kid(x, y, subsets=3, size=20)
    assert mean == pytest.approx(kid_all_pairs(x, y), rel=1e-12)
    assert sd < 1e-12


def test_it_grows_with_the_shift() -> None:
    x, y = randn(400, 8, seed=0), randn(400, 8, seed=1)
    values = [kid_all_pairs(x, y + shift) for shift in (0.0, 0.3, 0.6, 1.2)]
    assert values == sorted(values)


def test_what_does_not_fit_is_refused() -> None:
    x, y = randn(10, 4, seed=0), randn(12, 4, seed=1)
    with pytest.raises(ValueError, match=r"size of 2 to 10, got 100 of 1000; raise n"):
        kid(x, y)
    with pytest.raises(ValueError, match=r"got 1 of 5"):
        kid(x, y, subsets=1, size=5)
    with pytest.raises(ValueError, match="sizes 4 and 3"):
        kid_all_pairs(x, y[:, :3])
