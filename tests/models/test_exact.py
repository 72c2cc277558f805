"""Exact denoisers against numerical posteriors, autograd and the ODE itself."""

import math

import pytest
import torch
from torch import Tensor

from fewstep.models.exact import GaussianDenoiser, MixtureDenoiser
from fewstep.models.ode import level_at, reference_solution
from fewstep.schedules import VE, Flow, NoiseProcess, discrete_vp
from fewstep.types import Level

PROCESSES = [discrete_vp("linear"), VE(), Flow()]
LEVELS = [
    Level(0.0, 0.9, 0.3),
    Level(0.0, 0.2, 0.98),
    Level(0.0, 1.0, 5.0),
    Level(0.0, 0.0, 1.0),
    Level(0.0, 1.0, 1e-4),
]


def mixture(
    process: NoiseProcess = PROCESSES[0], dim: int = 3, **options: object
) -> MixtureDenoiser:
    generator = torch.Generator().manual_seed(1)
    means = torch.randn(6, dim, generator=generator, dtype=torch.float64)
    stds = torch.tensor([0.1, 0.3, 0.5, 0.2, 0.7, 0.4])
    weights = torch.tensor([1.0, 2.0, 3.0, 1.0, 0.5, 2.5])
    labels = torch.tensor([0, 1, 0, 2, 1, 2])
    return MixtureDenoiser(process, means, stds, weights, labels=labels, **options)  # type: ignore[arg-type]


def noisy(model: MixtureDenoiser, level: Level, n: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    x0 = model.sample_data(n, generator)
    return level.alpha * x0 + level.sigma * torch.randn(x0.shape, generator=generator).double()


@pytest.mark.parametrize("level", LEVELS[:4])
def test_mixture_equals_posterior_integrated_numerically(level: Level) -> None:
    model = mixture(dim=1)
    grid = torch.linspace(-8, 8, 400_001, dtype=torch.float64)
    spread = model.stds[:, None]
    prior = model.log_weights.exp() @ (
        torch.exp(-((grid - model.means) ** 2) / (2 * spread**2)) / spread
    )
    for x in noisy(model, level, 5)[:, 0]:
        log_likelihood = -((x - level.alpha * grid) ** 2) / (2 * level.sigma**2)
        weight = prior * torch.exp(log_likelihood - log_likelihood.max())
        expected = (weight * grid).sum() / weight.sum()
        got = model(x.view(1, 1), level)
        # The trapezoid rule is exact to rounding here: smooth and zero at both ends.
        assert got.item() == pytest.approx(expected.item(), abs=1e-9)


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("level", LEVELS)
def test_score_is_gradient_of_log_density(level: Level, labelled: bool) -> None:
    model = mixture()
    x = noisy(model, level).requires_grad_()
    cond = torch.arange(len(x)) % 3 if labelled else None
    (gradient,) = torch.autograd.grad(model.log_density(x, level, cond).sum(), x)
    # At sigma = 1e-4 the score divides x0 - x by 1e-8, which magnifies rounding of 1e-16 x 10.
    tolerance = 1e-9 if level.sigma > 0.01 else 1e-6
    torch.testing.assert_close(
        model.score(x.detach(), level, cond), gradient, rtol=tolerance, atol=tolerance
    )


def test_log_density_integrates_to_one() -> None:
    model, level = mixture(dim=1), LEVELS[0]
    grid = torch.linspace(-10, 10, 20_001, dtype=torch.float64)[:, None]
    for cond in (None, torch.full((len(grid),), 1)):
        total = model.log_density(grid, level, cond).exp().sum() * 20 / 20_000
        assert total.item() == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize("level", LEVELS)
def test_condition_is_the_mixture_of_that_class(level: Level) -> None:
    model = mixture()
    x = noisy(model, level)
    for label in range(3):
        kept = model.labels == label
        alone = MixtureDenoiser(
            model.process, model.means[kept], model.stds[kept], model.log_weights.exp()[kept]
        )
        cond = torch.full((len(x),), label)
        # Only the centring of the distances differs.
        torch.testing.assert_close(model(x, level, cond), alone(x, level), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(
            model.log_density(x, level, cond), alone.log_density(x, level), rtol=1e-9, atol=1e-9
        )
    assert torch.equal(model(x, level, model.null_cond(cond)), model(x, level))


def test_limits_without_signal_and_without_noise() -> None:
    model = mixture()
    x = noisy(model, LEVELS[0])
    mean = model.log_weights.exp() @ model.means
    torch.testing.assert_close(model(x, Level(0.0, 0.0, 1.0)), mean.expand_as(x))
    torch.testing.assert_close(model(x, Level(0.0, 1.0, 0.0)), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_point_masses_predict_the_nearest_point_without_noise(dtype: torch.dtype) -> None:
    model = MixtureDenoiser(VE(), torch.tensor([[0.0], [1.0], [3.0]]), 0.0, dtype=dtype)
    x = torch.tensor([[0.1], [1.0], [7.0]])
    assert torch.equal(model(x, Level(0.0, 1.0, 0.0)), torch.tensor([[0.0], [1.0], [3.0]]))


def test_pieces_of_the_batch_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mixture()
    x, cond = noisy(model, LEVELS[0], 17), torch.arange(17) % 3
    whole = model(x, LEVELS[0], cond)
    monkeypatch.setattr("fewstep.models.exact.CHUNK_ELEMENTS", 5 * len(model.means))
    # Matrix products of other sizes may add in another order.
    torch.testing.assert_close(model(x, LEVELS[0], cond), whole, rtol=1e-13, atol=1e-13)


def test_float32_arithmetic_stays_close_for_images() -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(200, 1, 16, 16, generator=generator) * 2 - 1
    exact = MixtureDenoiser(VE(), means, 0.2)
    fast = MixtureDenoiser(VE(), means, 0.2, dtype=torch.float32)
    for sigma in (0.1, 1.0, 10.0):
        level = Level(sigma, 1.0, sigma)
        x = means[:32] + sigma * torch.randn(32, 1, 16, 16, generator=generator)
        # Distances of about 200 have rounding of 1e-5, over variances of at least 0.04.
        assert (fast(x, level) - exact(x, level)).abs().max() < 2e-3


def test_sample_data_has_the_moments_of_its_class() -> None:
    model = mixture()
    n = 40_000
    x = model.sample_data(n, torch.Generator().manual_seed(3), torch.full((n,), 2))
    share = torch.tensor([1.0, 2.5], dtype=torch.float64) / 3.5
    means, stds = model.means[[3, 5]], model.stds[[3, 5]]
    mean = share @ means
    variance = share @ ((means - mean) ** 2 + stds[:, None] ** 2)
    # Five standard errors of the mean; the variance's error is of the same order.
    bound = 5 * (variance / n).sqrt().max().item()
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=bound)
    torch.testing.assert_close(x.var(0), variance, rtol=0.05, atol=0)


def test_labels_are_needed_for_a_condition_and_sizes_must_agree() -> None:
    plain = MixtureDenoiser(VE(), torch.zeros(2, 3), 1.0)
    with pytest.raises(ValueError, match="no classes"):
        plain(torch.zeros(1, 3), LEVELS[0], torch.zeros(1, dtype=torch.long))
    with pytest.raises(ValueError, match="2 means need"):
        MixtureDenoiser(VE(), torch.zeros(2, 3), 1.0, torch.ones(3))


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_gaussian_flow_map_solves_the_ode(process: NoiseProcess) -> None:
    mean, std = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([0.5, 1.0, 0.05])
    model = GaussianDenoiser(process, mean, std)
    noise = (
        process.start_scale * torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).double()
    )
    start = level_at(process, process.rho_max)
    solved, calls = reference_solution(model, noise, tolerance=1e-10)
    exact = model.flow_map(noise, start, Level(0.0, 1.0, 0.0))
    # Ending at a hundredth of rho_min leaves (rho / std)^2 = (1e-4 / 0.05)^2 of the smallest std.
    torch.testing.assert_close(solved, exact, rtol=0, atol=3e-7)
    assert calls < 1500


def test_gaussian_flow_map_composes_and_agrees_with_the_mixture() -> None:
    process = discrete_vp("linear")
    model = GaussianDenoiser(process, 0.5, 0.3)
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).double()
    high, middle, low = (level_at(process, rho) for rho in (100.0, 2.0, 0.05))
    once = model.flow_map(x, high, low)
    twice = model.flow_map(model.flow_map(x, high, middle), middle, low)
    torch.testing.assert_close(once, twice, rtol=1e-13, atol=1e-13)
    single = MixtureDenoiser(process, torch.full((1, 2), 0.5), 0.3)
    torch.testing.assert_close(model(x, middle), single(x, middle), rtol=1e-7, atol=1e-7)


def test_gaussian_limits() -> None:
    model = GaussianDenoiser(VE(), torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0]))
    x = torch.tensor([[5.0, 5.0]])
    assert torch.equal(model(x, Level(0.0, 1.0, 0.0)), torch.tensor([[1.0, 5.0]]))
    assert torch.equal(model(x, Level(0.0, 0.0, 1.0)), torch.tensor([[1.0, 2.0]]))
    with pytest.raises(ValueError, match="std must be >= 0"):
        GaussianDenoiser(VE(), 0.0, -1.0)
    draws = model.sample_data((50_000, 2), torch.Generator().manual_seed(0))
    assert draws[:, 0].eq(1).all()
    assert draws[:, 1].std().item() == pytest.approx(1.0, abs=5 / math.sqrt(2 * 50_000))
