"""Gaussians fitted to samples, and their files."""

import pytest
import torch
from gaussians import randn
from teleports import SHAPE, SPECTRUM, rotation

from fewstep.models.exact import GaussianDenoiser
from fewstep.samplers.gaussian.class_gaussians import ClassGaussians, load_gaussian, save_gaussian
from fewstep.samplers.gaussian.fit import (
    EXACT_ELEMENTS,
    fit_channels,
    fit_classes,
    fit_gaussian,
    fit_shared,
)
from fewstep.samplers.gaussian.gaussian import level_of
from fewstep.schedules import VE


def test_a_fit_finds_mean_and_covariance() -> None:
    """Equal to torch's covariance; with every axis kept nothing is lost."""
    x = randn(400, 24, seed=1) * SPECTRUM @ rotation().T + 2
    fit = fit_gaussian(x.view(-1, *SHAPE))
    covariance = fit.basis @ fit.variances.diag() @ fit.basis.T
    torch.testing.assert_close(covariance, x.T.cov(), rtol=0, atol=1e-12)
    torch.testing.assert_close(fit.mean.flatten(), x.mean(0), rtol=0, atol=1e-12)
    assert float(fit.rest) == 0
    low = fit_gaussian(x.view(-1, *SHAPE), rank=5)
    torch.testing.assert_close(low.variances, fit.variances[:5], rtol=1e-12, atol=0)
    assert float(low.rest) == pytest.approx(float(fit.variances[5:].mean()), rel=1e-12)
    assert low.std == pytest.approx(fit.std, rel=1e-12)


def test_batches_do_not_matter() -> None:
    x = randn(40, *SHAPE, seed=1)
    whole, parts = (fit_gaussian(samples) for samples in (x, x.split(7)))
    torch.testing.assert_close(parts.mean, whole.mean, rtol=0, atol=1e-14)
    torch.testing.assert_close(parts.variances, whole.variances, rtol=0, atol=1e-13)


def test_large_samples_are_fitted_at_random_to_the_same_axes() -> None:
    """Above the size of exact covariances; the data have 12 axes and an isotropic rest."""
    d, n, rank = EXACT_ELEMENTS + 52, 300, 12
    axes = torch.linalg.qr(randn(d, rank, seed=2))[0]
    stds = torch.linspace(9, 3, rank, dtype=torch.float64)
    x = randn(n, rank, seed=4) * stds @ axes.T + 0.01 * randn(n, d, seed=6)
    fit = fit_gaussian(x.view(n, 1, d), rank=rank)
    # The exact ones by singular values of the centred samples.
    values = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    torch.testing.assert_close(fit.variances, values.S[:rank] ** 2 / (n - 1), rtol=1e-10, atol=0)
    overlap = (fit.basis.T @ values.Vh[:rank].T).abs()
    torch.testing.assert_close(overlap, torch.eye(rank, dtype=torch.float64), rtol=0, atol=1e-8)
    left = (values.S[rank:] ** 2).sum() / (n - 1) / (d - rank)
    assert float(fit.rest) == pytest.approx(float(left), rel=1e-8)


def test_channels_have_a_mean_and_a_variance_each() -> None:
    x = randn(60, 3, 8, 8, seed=1) * torch.tensor([1.0, 2.0, 0.5]).view(3, 1, 1) + 1
    fit = fit_channels(x)
    for c in range(3):
        assert float(fit.mean[c]) == pytest.approx(float(x[:, c].mean()), rel=1e-12)
        # Divisors: n - 1 for each pixel here, all numbers there.
        assert float(fit.rest[c]) == pytest.approx(float(x[:, c].var()), rel=0.02)
    larger = randn(2, 3, 16, 16, seed=2)
    level = level_of(VE(), 3.0)
    expected = GaussianDenoiser(VE(), fit.mean, fit.rest.sqrt())(larger, level)
    torch.testing.assert_close(fit.denoise(larger, level), expected, rtol=0, atol=1e-12)


def test_channels_count_what_lies_between_pixels() -> None:
    ramp = torch.linspace(-1, 1, 16, dtype=torch.float64).view(1, 1, 16)
    fit = fit_channels(ramp.expand(40, 1, 16) + 5)
    assert fit.mean.flatten().tolist() == pytest.approx([5], abs=1e-12)
    assert float(fit.rest) == pytest.approx(float(ramp.square().mean()), rel=1e-12)


def test_classes_have_gaussians_of_their_own() -> None:
    labels = torch.arange(60) % 3
    x = randn(60, *SHAPE, seed=1) + 10 * randn(3, *SHAPE, seed=2)[labels]
    level, end = level_of(VE(), 2.0), level_of(VE(), 0.3)
    which = torch.tensor([2, 0, 0, 1, 2])
    state = randn(5, *SHAPE, seed=3)
    for fit in (
        fit_classes(x, labels),
        fit_shared(x, labels),
        fit_classes(x, labels, fit_channels),
    ):
        for k in range(3):
            rows = which == k
            own = fit.fits[k]
            torch.testing.assert_close(
                fit.denoise(state, level, which)[rows], own.denoise(state[rows], level)
            )
            torch.testing.assert_close(
                fit.jump(state, level, end, which)[rows], own.jump(state[rows], level, end)
            )
    own = fit_gaussian(x[labels == 1])
    assert torch.equal(fit_classes(x, labels).fits[1].variances, own.variances)
    shared = fit_shared(x, labels)
    torch.testing.assert_close(shared.fits[1].mean, own.mean, rtol=0, atol=1e-14)
    assert torch.equal(shared.fits[0].variances, shared.fits[2].variances)
    assert shared.std < 2  # the offsets are in the means


def test_saved_and_read_back_bit_for_bit(tmp_path) -> None:
    x, labels = randn(40, *SHAPE, seed=1), torch.arange(40) % 2
    made = (
        fit_gaussian(x, rank=3),
        fit_channels(x),
        fit_classes(x, labels, fit_channels),
        fit_shared(x, labels, rank=2),
        fit_classes(x, 0 * labels),
    )
    for gaussian in made:
        save_gaussian(gaussian, tmp_path / "start.safetensors")
        again = load_gaussian(tmp_path / "start.safetensors")
        assert type(again) is type(gaussian)
        pairs = [(gaussian, again)]
        if isinstance(gaussian, ClassGaussians):
            pairs = list(zip(gaussian.fits, again.fits, strict=True))
        for own, other in pairs:
            assert own.shape == other.shape
            for name in ("mean", "rest", "basis", "variances"):
                first, second = getattr(own, name), getattr(other, name)
                assert first.dtype == second.dtype == torch.float64
                assert torch.equal(first, second)


def test_other_files_are_refused(tmp_path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError, match="no Gaussian fit at"):
        load_gaussian(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        load_gaussian(tmp_path / "text")
    save_file({"a": torch.zeros(1)}, str(tmp_path / "other"))
    with pytest.raises(ValueError, match="is not a Gaussian fit of this version"):
        load_gaussian(tmp_path / "other")
