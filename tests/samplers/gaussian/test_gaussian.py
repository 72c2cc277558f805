"""Gaussians fitted to samples, their denoiser and their probability flow."""

import math
from dataclasses import replace

import pytest
import torch
from gaussians import randn
from teleports import PROCESSES, SHAPE, SPECTRUM, rotation

from fewstep.models.exact import GaussianDenoiser
from fewstep.samplers.gaussian.class_gaussians import ClassGaussians
from fewstep.samplers.gaussian.fit import (
    fit_channels,
    fit_classes,
    fit_gaussian,
    fit_shared,
)
from fewstep.samplers.gaussian.gaussian import GaussianFit, level_of
from fewstep.schedules import VE, Flow


def correlated(rank: int = 24, rest: float = 0.0) -> tuple[GaussianFit, torch.Tensor, torch.Tensor]:
    """A fit, its whole basis, and the deviation along every column of it."""
    axes, stds = rotation(), SPECTRUM.clone()
    stds[rank:] = rest**0.5
    fit = GaussianFit(
        SHAPE, randn(*SHAPE, seed=5), torch.tensor(rest, dtype=torch.float64),
        axes[:, :rank].contiguous(), stds[:rank] ** 2,
    )  # fmt: skip
    return fit, axes, stds


def in_axes(fit: GaussianFit, axes: torch.Tensor, stds: torch.Tensor, process):
    """The same data with independent elements: x is turned into the eigen axes and back."""
    denoiser = GaussianDenoiser(process, fit.mean.flatten() @ axes, stds)

    def there(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ axes

    def back(y: torch.Tensor) -> torch.Tensor:
        return (y @ axes.T).view(-1, *SHAPE)

    return denoiser, there, back


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize(("rank", "rest"), [(24, 0.0), (7, 0.3), (7, 0.0), (0, 0.4)])
def test_jump_and_denoiser_are_those_of_gaussian_data(name: str, rank: int, rest: float) -> None:
    """Against models.exact, from the start (without signal for a flow) to a level and to the end.

    With rest 0 the components outside the basis shrink with sigma alone.
    """
    process = PROCESSES[name]
    fit, axes, stds = correlated(rank, rest)
    exact, there, back = in_axes(fit, axes, stds, process)
    start, mid, end = (level_of(process, rho) for rho in (process.rho_max, 1.3, 0.0))
    x = process.start_scale * randn(5, *SHAPE, seed=7)
    # The start of VE is 80 times larger than the result.
    for stop in (mid, end):
        expected = back(exact.flow_map(there(x), start, stop))
        torch.testing.assert_close(fit.jump(x, start, stop), expected, rtol=0, atol=1e-10)
    for level in (start, mid):
        expected = back(exact(there(x), level))
        torch.testing.assert_close(fit.denoise(x, level), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", PROCESSES)
def test_jumps_compose(name: str) -> None:
    process = PROCESSES[name]
    fit, _, _ = correlated(7, 0.3)
    a, b, c = (level_of(process, rho) for rho in (process.rho_max, 4.0, 0.2))
    x = process.start_scale * randn(5, *SHAPE, seed=7)
    direct = fit.jump(x, a, c)
    torch.testing.assert_close(fit.jump(fit.jump(x, a, b), b, c), direct, rtol=0, atol=1e-10)
    # There and back; from no signal the way back ends at no signal too.
    torch.testing.assert_close(fit.jump(direct, c, a), x, rtol=1e-9, atol=1e-9)


def test_outside_the_basis_only_the_rest_counts() -> None:
    """A component outside U scales by the isotropic ratio and stays outside; U by its own."""
    fit, axes, _ = correlated(7, 0.3)
    process = PROCESSES["ve"]
    a, b = level_of(process, 9.0), level_of(process, 2.0)
    shift = fit.jump(fit.mean[None], a, b)
    for column, variance in ((20, 0.3), (2, float(SPECTRUM[2] ** 2))):
        step = axes[:, column].view(1, *SHAPE)
        moved = fit.jump(fit.mean + step, a, b) - shift
        ratio = math.sqrt((4 + variance) / (81 + variance))
        torch.testing.assert_close(moved, ratio * step, rtol=0, atol=1e-12)


def test_guidance_moves_the_means() -> None:
    """u + s (c - u) of two Gaussians with one covariance is the guided fit's prediction."""
    labels = torch.arange(60) % 3
    fit = fit_shared(randn(60, *SHAPE, seed=1) + 3 * randn(3, *SHAPE, seed=2)[labels], labels)
    plain = replace(fit.fits[0], mean=fit.mean)
    x, level, which = randn(6, *SHAPE, seed=3), level_of(Flow(), 2.0), torch.arange(6) % 3
    u, c = plain.denoise(x, level), fit.denoise(x, level, which)
    guided = fit.guided(3.0).denoise(x, level, which)
    torch.testing.assert_close(guided, u + 3 * (c - u), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", PROCESSES)
def test_low_precision_in_finite_out(dtype: torch.dtype, name: str) -> None:
    process = PROCESSES[name]
    fit = fit_gaussian(randn(50, *SHAPE, seed=1).to(dtype))
    x = (process.start_scale * randn(5, *SHAPE, seed=7)).to(dtype)
    levels = level_of(process, process.rho_max), level_of(process, 2.0)
    got = fit.jump(x, *levels)
    assert got.dtype == dtype
    assert got.isfinite().all()
    # One rounding of the result: the arithmetic is that of float64.
    assert torch.equal(got, fit.jump(x.double(), *levels).to(dtype))


def test_point_masses_are_exact() -> None:
    fit = GaussianFit((2,), torch.tensor([3.0, -1.0]).double(), torch.zeros(()).double(),
                      torch.zeros(2, 0).double(), torch.zeros(0).double())  # fmt: skip
    x = randn(4, 2, seed=1)
    for process in PROCESSES.values():
        start, end = level_of(process, process.rho_max), level_of(process, 0.0)
        assert torch.equal(fit.jump(x, start, end), fit.mean.expand(4, 2))
        assert torch.equal(fit.denoise(x, end), fit.mean.expand(4, 2))


def test_refusals_are_one_line() -> None:
    x, labels = randn(10, *SHAPE, seed=1), torch.arange(10) % 2
    fit, channels, classes = fit_gaussian(x), fit_channels(x), fit_classes(x, labels)
    level, clean = level_of(VE(), 2.0), level_of(VE(), 0.0)
    bad = x.clone()
    bad[3, 0, 0, 0] = math.nan
    cases = {
        "fitted to samples of shape": lambda: fit.denoise(x[:, :1], level),
        "got a batch of": lambda: fit.jump(x.flatten(1), level, clean),
        r"pass \(n, 2, 3, 4\)": lambda: channels.denoise(randn(2, 3, 3, 4, seed=1), level),
        r"got a batch of \(10, 24\)": lambda: channels.denoise(x.flatten(1), level),
        "level with noise": lambda: fit.jump(x, clean, level),
        "2 classes need": lambda: classes.denoise(x, level),
        "whole numbers as labels": lambda: classes.denoise(x, level, torch.zeros(10)),
        r"lie in 0 .. 1, got 2 .. 2": lambda: classes.denoise(x, level, torch.full((10,), 2)),
        "lie in 0 .. 1, got -1 .. -1": lambda: classes.denoise(x, level, torch.full((10,), -1)),
        "has no classes": lambda: fit.denoise(x, level, labels),
        "fits of one shape": lambda: ClassGaussians((fit, fit_gaussian(x.flatten(1)))),
        "at least 2 samples": lambda: fit_gaussian(x[:1]),
        "rank must be between 0 and the 24": lambda: fit_gaussian(x, rank=25),
        "floating-point": lambda: fit_gaussian((x * 9).to(torch.uint8)),
        "of one shape, in": lambda: fit_gaussian([x, x[:, :1]]),
        "must be finite": lambda: fit_gaussian(bad),
        "two samples or more of each": lambda: fit_classes(x, torch.arange(10)),
        "whole numbers, got": lambda: fit_shared(x, torch.arange(9)),
        "channel axis": lambda: fit_channels(x.flatten(1)),
        "need a basis of": lambda: replace(fit, basis=fit.basis[:5]),
        "variances of a GaussianFit": lambda: replace(fit, variances=-fit.variances),
        "the mean of samples": lambda: replace(fit, mean=fit.mean[0]),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)
