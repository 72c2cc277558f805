"""Guidance by gradients: exact where theory says so, in every mode of autograd."""

from typing import Any

import pytest
import torch
from guidance_problems import (
    F64,
    LEVEL,
    Watched,
    accuracy,
    class_logits,
    clean_logits,
    draw,
    noise,
    ring,
)
from torch import Tensor, nn

from fewstep.guidance import (
    ClassifierGuidance,
    EnergyGuidance,
    Minority,
    SelfMinority,
    guide,
)
from fewstep.guidance.context import Draws
from fewstep.models.exact import GaussianDenoiser
from fewstep.models.ode import level_at
from fewstep.schedules import VE, ContinuousVP
from fewstep.types import Level

X, LABELS = noise(8, 2), torch.arange(8)
TIGHT = {"rtol": 1e-10, "atol": 1e-10}


class Unconditional:
    """The ring's mixture, whatever the labels."""

    def __init__(self, process: Any) -> None:
        self.inner, self.process = ring(process=process), process

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        return self.inner(x, level)


@pytest.mark.parametrize("process", [VE(), ContinuousVP()])
@pytest.mark.parametrize("rho", [0.2, 1.5, 30.0])
def test_the_exact_classifier_makes_the_unconditional_model_conditional(process, rho) -> None:
    model, level = Unconditional(process), level_at(process, rho)

    def classifier(x: Tensor, level: Level) -> Tensor:
        return class_logits(model.inner, x, level)

    x = level.sigma * X
    got = guide(model, ClassifierGuidance(classifier, 1.0))(x, level, LABELS)
    torch.testing.assert_close(got, model.inner(x, level, LABELS), **TIGHT)
    got = guide(model, ClassifierGuidance(classifier, 1.0, target=3))(x, level)
    torch.testing.assert_close(got, model.inner(x, level, torch.full((8,), 3)), **TIGHT)


def test_a_larger_scale_makes_samples_surer_of_their_class() -> None:
    model, labels = Unconditional(VE()), torch.arange(800) % 8

    def classifier(x: Tensor, level: Level, cond: Any) -> Tensor:
        return class_logits(model.inner, x, level)

    found = [
        accuracy(
            model.inner,
            draw(model, "dpmpp:grid=karras", 20, 800, cond=labels, guidance=part),
            labels,
        )
        for part in (ClassifierGuidance(classifier, 1.0), ClassifierGuidance(classifier, 3.0))
    ]
    assert found[0] == pytest.approx(0.57, abs=0.06)
    assert found[1] > 0.9


@pytest.mark.parametrize("rho", [0.1, 1.0, 20.0])
def test_the_energy_of_noisy_states_tilts_a_gaussian_exactly(rho: float) -> None:
    mean, v, k, process = 0.7, 1.3, 2.0, ContinuousVP()
    data, level = GaussianDenoiser(process, mean, v**0.5), level_at(process, rho)

    def energy(x: Tensor, level: Level) -> Tensor:
        """-ln E[exp(-k x0^2 / 2) | x] but for a constant; x0 given x is Gaussian of variance s."""
        s = v * level.sigma**2 / (level.alpha**2 * v + level.sigma**2)
        gain = level.alpha * v / (level.alpha**2 * v + level.sigma**2)
        d = mean + gain * (x - level.alpha * mean)
        return (k * d.square() / (2 * (1 + k * s))).sum(1)

    tilted = GaussianDenoiser(process, mean / (1 + k * v), (v / (1 + k * v)) ** 0.5)
    got = guide(data, EnergyGuidance(energy, 1.0))(X, level)
    torch.testing.assert_close(got, tilted(X, level), **TIGHT)


class Net(nn.Module):
    """Logits of noisy samples from (x, t), as ADM's classifiers; float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 8)).double()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.body(torch.cat([x, t[:, None].to(x)], dim=1))


class Denoising(nn.Module):
    """A denoiser with parameters that require gradients."""

    process = ContinuousVP()

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 2)).double().eval()
        self.eval()

    def forward(self, x: Tensor, level: Level, cond: Tensor | None = None) -> Tensor:
        label = torch.zeros(len(x)) if cond is None else cond
        return self.body(torch.cat([x, label[:, None].to(x)], dim=1))


NET, MODEL = Net(), Denoising()
UNIT = LEVEL.sigma**2 / LEVEL.alpha


def clean_logits_of(x0: Tensor) -> Tensor:
    return NET(x0, torch.zeros(len(x0)))


def climbed(value: Any, labels: Tensor = LABELS) -> Tensor:
    """sigma^2 / alpha times the gradient, sample by sample, by plain autograd."""
    rows = []
    for i in range(len(X)):
        leaf = X[i : i + 1].clone().requires_grad_()
        (slope,) = torch.autograd.grad(value(leaf, labels[i : i + 1]).sum(), leaf)
        rows.append(UNIT * slope)
    return torch.cat(rows)


def log_p(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.log_softmax(1).gather(1, labels[:, None])


def energy_of(x: Tensor) -> Tensor:
    return (x - 1).square().sum(1)


CASES: dict[str, tuple[Any, Any]] = {
    "classifier": (
        ClassifierGuidance(NET, 2.0),
        lambda x, y: 2 * log_p(NET(x, torch.full((len(x),), LEVEL.time)), y),
    ),
    "clean classifier": (
        ClassifierGuidance(clean_logits_of, 2.0, clean=True),
        lambda x, y: 2 * log_p(clean_logits_of(MODEL(x, LEVEL, y)), y),
    ),
    "minority": (
        Minority(NET, 2.0, bin=3),
        lambda x, y: 2 * NET(x, torch.full((len(x),), LEVEL.time)).log_softmax(1)[:, 3],
    ),
    "energy": (
        EnergyGuidance(lambda x, level: energy_of(x), 0.5),
        lambda x, y: -0.5 * energy_of(x),
    ),
    "clean energy": (
        EnergyGuidance(energy_of, 0.5, clean=True),
        lambda x, y: -0.5 * energy_of(MODEL(x, LEVEL, y)),
    ),
}
MODES = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_that_of_autograd_in_every_mode(name: str, mode: str) -> None:
    guidance, value = CASES[name]
    expected = MODEL(X, LEVEL, LABELS).detach() + climbed(value)
    with MODES[mode]():
        x, labels = X.clone(), torch.arange(8)  # inference tensors, where that is the mode
        got = guide(MODEL, guidance)(x, LEVEL, labels)
    torch.testing.assert_close(got.clone().detach(), expected, rtol=1e-12, atol=1e-12)
    assert all(p.grad is None for net in (NET, MODEL) for p in net.parameters())


@pytest.mark.parametrize("name", CASES)
def test_the_batch_does_not_matter(name: str) -> None:
    guided = guide(MODEL, CASES[name][0])
    whole = guided(X, LEVEL, LABELS)
    parts = [guided(X[p], LEVEL, LABELS[p]) for p in (slice(0, 1), slice(1, 8))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_self_guidance_is_its_formula_in_every_mode(mode: str) -> None:
    level = level_at(MODEL.process, 1.7)
    time = MODEL.process.t_min + 0.8 * (1 - MODEL.process.t_min)
    again = level_at(MODEL.process, float(MODEL.process.rho(time)))
    watched = Watched(MODEL)
    with MODES[mode]():
        got = guide(watched, SelfMinority(0.4))(X.clone(), level, LABELS.clone())
    at = watched.levels[1]
    assert (at.time, at.alpha, at.sigma) == pytest.approx((time, again.alpha, again.sigma))
    leaf = X.clone().requires_grad_()
    x0 = MODEL(leaf, level, LABELS)
    drawn = Draws(range(8)).normal((2,), 0, "SelfMinority").to(F64)
    second = MODEL(again.alpha * x0.detach() + again.sigma * drawn, again, LABELS).detach()
    distance = (x0 - second).square().mean(1).sum()
    (slope,) = torch.autograd.grad(distance, leaf)
    slope = slope / slope.abs().amax(1, keepdim=True)
    expected = x0.detach() + 0.4 * level.sigma**2 / level.alpha * slope
    torch.testing.assert_close(got.clone().detach(), expected, rtol=1e-12, atol=1e-12)


def test_nothing_is_guided_where_there_is_no_signal() -> None:
    blank = Level(1.0, 0.0, 1.0)
    for part in (CASES["classifier"][0], SelfMinority(0.4)):
        assert torch.equal(guide(MODEL, part)(X, blank, LABELS), MODEL(X, blank, LABELS))


def test_the_clean_classifier_of_the_ring_helps_too() -> None:
    model, labels = Unconditional(VE()), torch.arange(400) % 8
    part = ClassifierGuidance(clean_logits(model.inner), 1.0, clean=True)
    got = draw(model, "dpmpp:grid=karras", 20, 400, cond=labels, guidance=part)
    assert accuracy(model.inner, got, labels) > 0.4  # by chance 1 / 8


def test_self_guidance_takes_any_distance_under_inference_mode() -> None:
    def distance(a: Tensor, b: Tensor) -> Tensor:
        return -(a * b).sum(1)  # its backward pass needs b itself

    part = SelfMinority(0.4, distance=distance)
    with torch.inference_mode():
        got = guide(MODEL, part)(X.clone(), LEVEL, LABELS.clone())
    torch.testing.assert_close(got.clone(), guide(MODEL, part)(X, LEVEL, LABELS).detach())
