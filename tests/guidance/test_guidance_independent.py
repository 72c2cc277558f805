"""Guidance by random conditions and by wrong times: what they do to exact models."""

import math
from dataclasses import dataclass

import pytest
import torch
from guidance_problems import (
    F64,
    LEVEL,
    Timed,
    accuracy,
    class_logits,
    draw,
    noise,
    ring,
    shift,
)
from torch import nn

from fewstep.guidance import CFG, ICG, TSG, Context, Every, guide
from fewstep.guidance.context import Draws
from fewstep.models.exact import MixtureDenoiser
from fewstep.models.ode import level_at
from fewstep.schedules import VE
from fewstep.types import Level

MODEL = ring()
SPEC = "dpmpp:order=2,grid=karras"


def data(sigma: float, n: int = 2000) -> tuple[torch.Tensor, torch.Tensor, Level]:
    """Noisy samples of all classes."""
    labels = torch.arange(n) % 8
    clean = MODEL.sample_data(n, torch.Generator().manual_seed(1), labels)
    return clean + sigma * noise(n, 2, seed=2), labels, Level(sigma, 1.0, sigma)


def each_class(model: MixtureDenoiser, x: torch.Tensor, level: Level) -> torch.Tensor:
    """(K, n, 2) the denoisers of all classes."""
    return torch.stack([model(x, level, torch.full((len(x),), k)) for k in range(8)])


def test_a_random_class_is_drawn_for_each_sample_and_step() -> None:
    x, labels, level = data(0.8)
    drawn = []
    for step in (0, 1, 1):
        at = Level(level.time, 1.0, 0.8, step, step=step)
        got = guide(MODEL, ICG(2.0))(x, at, labels)
        weak = 2 * MODEL(x, level, labels) - got  # D = 2 c - r
        drawn.append((each_class(MODEL, x, level) - weak).norm(dim=2).argmin(0))
    assert torch.equal(drawn[1], drawn[2])
    counts = torch.bincount(drawn[0], minlength=8)
    assert (counts - 250).abs().max() < 4.5 * math.sqrt(250)  # uniform, to a Poisson deviation
    for others in (drawn[1], labels):  # independent of other steps and of the sample's own class
        assert (drawn[0] == others).double().mean() == pytest.approx(1 / 8, abs=0.03)


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_the_mean_over_all_labels_misses_the_unconditional_by_a_gradient(sigma: float) -> None:
    """It is the mean of the classes' denoisers, and D_u - sigma^2 grad KL(uniform, p(y | x))."""
    x, labels, level = data(sigma, 64)

    @dataclass(frozen=True)
    class Fixed(ICG):
        label: int = 0

        def _class(self, ctx: Context) -> torch.Tensor:
            return torch.full_like(ctx.cond, self.label)

    c = MODEL(x, level, labels)
    weak = torch.stack(
        [2 * c - guide(MODEL, Fixed(2.0, label=k))(x, level, labels) for k in range(8)]
    ).mean(0)
    mean = each_class(MODEL, x, level).mean(0)
    torch.testing.assert_close(weak, mean, rtol=1e-12, atol=1e-12)
    leaf = x.clone().requires_grad_()
    divergence = -class_logits(MODEL, leaf, level).log_softmax(1).mean(1) - math.log(8)
    (slope,) = torch.autograd.grad(divergence.sum(), leaf)
    torch.testing.assert_close(mean, MODEL(x, level) - sigma**2 * slope, rtol=1e-12, atol=1e-12)


def test_only_high_noise_makes_the_random_class_an_unconditional_model() -> None:
    gaps = []
    for sigma in (0.1, 40.0):
        x, labels, level = data(sigma)
        u, c = MODEL(x, level), MODEL(x, level, labels)
        gaps.append(float((each_class(MODEL, x, level).mean(0) - u).norm() / (c - u).norm()))
    assert gaps[0] > 0.5
    # At high noise p(y | x) - 1 / K is x m_y / (K sigma^2), so D_u = |m|^2 x / (2 sigma^2) while
    # D_c = m_y, and |x| is sqrt(2) sigma.
    assert gaps[1] == pytest.approx(2.06 / (math.sqrt(2) * 40), rel=0.05)


@dataclass(frozen=True)
class PosteriorICG(ICG):
    """ICG whose label is drawn from p(y | x), for which the mean direction is that of CFG."""

    def _class(self, ctx: Context) -> torch.Tensor:
        shares = class_logits(MODEL, ctx.x, ctx.level).softmax(1).cumsum(1)
        uniform = ctx.draws.uniform((1,), ctx.level.step, self.name).to(F64)
        return torch.searchsorted(shares, uniform)[:, 0].clamp_max(7)


def test_labels_from_the_posterior_make_it_classifier_free_guidance() -> None:
    labels = torch.arange(4000) % 8
    found = {
        part.name: draw(MODEL, SPEC, 80, 4000, cond=labels, guidance=part)
        for part in (CFG(2.5), PosteriorICG(2.5), ICG(2.5))
    }
    right = {name: accuracy(MODEL, x, labels) for name, x in found.items()}
    moved = {name: shift(MODEL, x, labels) for name, x in found.items()}
    assert right["PosteriorICG"] == pytest.approx(right["CFG"], abs=0.01)
    assert moved["PosteriorICG"] == pytest.approx(moved["CFG"], abs=0.03)
    # Uniform labels push a sharp exact model too far, and are right less often.
    assert moved["ICG"] > 2 * moved["CFG"]
    assert right["ICG"] < right["CFG"] - 0.03


def test_random_classes_raise_accuracy() -> None:
    labels = torch.arange(2000) % 8
    plain, guided = (
        accuracy(MODEL, draw(MODEL, SPEC, 30, 2000, cond=labels, guidance=part), labels)
        for part in (None, ICG(1.5))
    )
    assert guided >= plain + 0.15


def test_gaussian_mode_has_the_deviation_of_each_samples_own_embedding() -> None:
    embedding = noise(64, 5, 16) * torch.linspace(0.1, 3, 64)[:, None, None]
    seen = []

    def model(x: torch.Tensor, level: Level, cond: torch.Tensor) -> torch.Tensor:
        seen.append(cond)
        return x

    model.process = VE()
    guide(model, ICG(3.0, mode="gaussian"))(noise(64, 2), LEVEL, embedding)
    drawn = seen[0][64:]
    assert drawn.dtype == embedding.dtype
    # 80 numbers have a deviation good to 1 / sqrt(160) = 8 %.
    ratio = drawn.flatten(1).std(1) / embedding.flatten(1).std(1)
    assert (ratio - 1).abs().max() < 0.35
    assert float(ratio.mean()) == pytest.approx(1, abs=0.04)
    with pytest.raises(ValueError, match="mode='class'"):
        guide(model, ICG(3.0, mode="gaussian"))(noise(8, 2), LEVEL, torch.arange(8))


RHO, WEIGHT = 0.9, 2.5


def time_error(s: float, n: int) -> tuple[torch.Tensor, ...]:
    """TSG's change of D, its first-order formula, D' and D'' by ln sigma, and Delta."""
    denoiser, level = Timed(), level_at(Timed.process, RHO)
    x = noise(n, 1)
    got = guide(denoiser, TSG(WEIGHT, s=s, power=0.0))(x, level) - denoiser(x, level)
    net = denoiser.network
    told = torch.full((1, 1), math.log(RHO), dtype=F64)
    spread = net.time_embedding(told).std(dim=1)
    drawn = Draws(range(n)).normal((len(net.reading),), 0, "TSG").to(F64)
    delta = (s * spread * drawn @ net.reading)[:, None]
    v, q = net.variance, RHO**2
    slope = -2 * v * q / (v + q) ** 2 * x
    bend = -4 * v * q * (v - q) / (v + q) ** 3 * x
    return got.detach(), ((1 - WEIGHT) * delta * slope).detach(), slope, bend, delta.detach()


def test_a_wrong_time_has_the_effect_of_its_expansion() -> None:
    errors = []
    for s in (0.02, 0.01):
        got, first, *_ = time_error(s, 4000)
        errors.append(float((got - first).abs().mean()))
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.4)  # what is left is of second order


def test_a_wrong_time_is_zero_mean_noise_with_a_bias_of_second_order() -> None:
    got, first, slope, bend, delta = time_error(0.1, 20_000)
    spread = float(delta.std())
    scaled = got / ((1 - WEIGHT) * spread * slope)
    assert float(scaled.std()) == pytest.approx(1, abs=0.05)
    # The formula's own mean, known from the draws, is taken away: it is noise of 1 / sqrt(n).
    bias = ((got - first) / bend).mean()
    assert float(bias) == pytest.approx((1 - WEIGHT) * 0.5 * spread**2, rel=0.05)


def test_a_wrong_time_cannot_improve_an_exact_model() -> None:
    """It widens the law, by noise that averages out over the steps."""
    excess = []
    for nfe in (10, 40):
        plain, guided = (
            draw(Timed(), "dpmpp:order=2,grid=karras", nfe, 4000, shape=(4000, 1), guidance=part)
            for part in (None, TSG(3.0, s=0.4, power=0.0))
        )
        excess.append(float(guided.var() - plain.var()))
    assert float(plain.var()) > 0.7  # from above, so more width is worse
    assert excess[0] > 2 * excess[1] > 0


def test_the_power_schedule_and_the_module_are_taken() -> None:
    level = level_at(Timed.process, RHO)
    x, fraction = noise(8, 1), (math.log(RHO / 0.002)) / math.log(80 / 0.002)
    power = guide(Timed(), TSG(2.5, s=1.0, power=2.0))(x, level)
    constant = guide(Timed(), TSG(2.5, s=fraction**2, power=0.0))(x, level)
    torch.testing.assert_close(power, constant, rtol=1e-6, atol=1e-6)
    named = guide(Timed(), TSG(2.5, s=1.0, power=2.0, module="time_embedding"))(x, level)
    assert torch.equal(named, power)


def test_two_of_a_kind_reach_two_modules() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(1, 4).double(), nn.Linear(1, 4).double()

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return x * self.first(t).sum(1, True) - self.second(t).square().sum(1, True)

    class Denoiser:
        process, network = VE(), Net().eval()

        def __call__(self, x: torch.Tensor, level: Level, cond: object = None) -> torch.Tensor:
            return self.network(x, torch.full((len(x), 1), level.rho, dtype=F64))

    torch.manual_seed(0)  # of some weights, a part is next to nothing
    model, x = Denoiser(), noise(8, 1)
    parts = [TSG(2.0, module="first"), TSG(2.0, module="second", site="b")]
    plain = model(x, LEVEL)
    apart = [guide(model, part)(x, LEVEL) - plain for part in parts]
    got = guide(model, parts[0] + parts[1])(x, LEVEL)
    assert all(part.abs().max() > 0.01 for part in apart)
    torch.testing.assert_close(got, plain + apart[0] + apart[1], rtol=1e-12, atol=1e-12)


def test_extrapolation_from_many_steps_is_warned_of() -> None:
    labels = torch.arange(8)
    with pytest.warns(UserWarning, match="use order 1 or 2"):
        draw(MODEL, "ipndm:order=4", 8, 8, cond=labels, guidance=ICG(1.5) | Every(2))
