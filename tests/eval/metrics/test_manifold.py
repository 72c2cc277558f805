"""Precision, recall, density and coverage against a dense version, and where they are known."""

import pytest
import torch
from gaussians import randn
from torch import Tensor

from fewstep.eval.metrics import manifold as module
from fewstep.eval.metrics import neighbours
from fewstep.eval.metrics.manifold import Manifold, manifold


def dense(generated: Tensor, real: Tensor, k: int) -> Manifold:
    """The definitions, with whole matrices of distances."""

    def radii(x: Tensor) -> Tensor:
        between = (x[:, None] - x[None]).norm(dim=-1)
        return between.sort(dim=1).values[:, k]  # the first is the sample itself

    distances = (generated[:, None] - real[None]).norm(dim=-1)
    in_real, in_generated = distances < radii(real), distances < radii(generated)[:, None]
    return Manifold(
        float(in_real.any(1).double().mean()),
        float(in_generated.any(0).double().mean()),
        float(in_real.sum() / (k * len(generated))),
        float(in_real.any(0).double().mean()),
    )


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("tile", [2**24, 100])
def test_it_is_the_dense_version(k: int, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With tiles of two rows as with one of all."""
    monkeypatch.setattr(neighbours, "TILE", tile)
    generated, real = randn(70, 3, seed=0) * 1.3 + 0.4, randn(50, 3, seed=1)
    found, expected = manifold(generated, real, k), dense(generated, real, k)
    assert vars(found) == pytest.approx(vars(expected), abs=1e-6)  # float32 divisions there
    assert 0.2 < found.precision < 1  # the case tells something
    assert 0.2 < found.recall < 1


@pytest.mark.parametrize("dim", [2, 8, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_set_scores_one(dim: int, dtype: torch.dtype) -> None:
    """Each sample is in its own ball and in those of k - 1 more, on average."""
    real = randn(200, dim, seed=0).to(dtype)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    assert manifold(real[order], real) == Manifold(1, 1, 1, 1)


def test_samples_that_all_tie_are_settled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a grid of integers every distance is exact, and most are on some surface."""
    monkeypatch.setattr(module, "CLOSE", 50)
    generator = torch.Generator().manual_seed(0)
    generated, real = (torch.randint(6, (90, 3), generator=generator).float() for _ in range(2))
    found, expected = manifold(generated, real), dense(generated, real, 3)
    assert vars(found) == pytest.approx(vars(expected), abs=1e-6)  # float32 divisions there


def test_sets_far_apart_score_zero() -> None:
    real = randn(60, 4, seed=0)
    assert manifold(randn(50, 4, seed=1) + 100, real) == Manifold(0, 0, 0, 0)


def test_lost_modes_lower_recall_and_not_precision() -> None:
    modes = torch.tensor([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0], [20.0, 20.0]]).double()
    real = randn(400, 2, seed=0) + modes[torch.arange(400) % 4]
    whole = randn(400, 2, seed=1) + modes[torch.arange(400) % 4]
    half = randn(400, 2, seed=2) + modes[torch.arange(400) % 2]
    all_modes, two_modes = manifold(whole, real), manifold(half, real)
    assert all_modes.recall > 0.9
    assert two_modes.recall < 0.5
    assert two_modes.coverage < 0.5 < all_modes.coverage
    assert two_modes.precision > all_modes.precision - 0.05  # 400 samples: 2 standard errors


def test_added_junk_lowers_precision_and_not_recall() -> None:
    real, good = randn(300, 2, seed=0), randn(300, 2, seed=1)
    junk = torch.cat((good, randn(300, 2, seed=2) + 50))
    assert manifold(junk, real).precision == pytest.approx(manifold(good, real).precision / 2)
    assert manifold(junk, real).recall >= manifold(good, real).recall


def test_counts_and_k_are_checked() -> None:
    real = randn(10, 2, seed=0)
    with pytest.raises(ValueError, match="k must be 1 to 2 for 3 real samples, got 3"):
        manifold(real[:3], real)
    with pytest.raises(ValueError, match="must be finite"):
        manifold(real.where(real < 0.5, torch.nan), real)
    with pytest.raises(ValueError, match=r"\(10, 2\) and \(10, 1\)"):
        manifold(real, real[:, :1])
