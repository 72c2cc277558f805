"""Gradients through whole trajectories, for training by the samples (guidance, distillation)."""

import weakref
from collections.abc import Callable

import pytest
import torch
from helpers import CONFIGS, scheduler_classes

from fewstep.samplers.adapter import schedulers

CLASSES = scheduler_classes()
every_class = pytest.mark.parametrize("cls", CLASSES)
N = 6
Weights = torch.Tensor  # (2,) parameters of the network


def make(cls, config: str = "vp-scaled", **options):
    return cls(**CONFIGS[config], **options)


def network(x: torch.Tensor, t: torch.Tensor, weights: Weights) -> torch.Tensor:
    """A smooth noise prediction; the loss bends in x, in the weights and in the time."""
    return weights[0] * x + weights[1] * torch.sin(x + t / 1000)


def trajectory(
    scheduler, x: torch.Tensor, weights: Weights, n: int = N, keep: Callable = lambda x: None
) -> torch.Tensor:
    """From unit noise to the last sample; whoever draws always draws the same."""
    generator = torch.Generator().manual_seed(0)
    scheduler.set_timesteps(n)
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        output = network(scheduler.scale_model_input(x, t), t, weights)
        x = scheduler.step(output, t, x, generator=generator, return_dict=False)[0]
        keep(x)
    return x


def loss_of(sample: torch.Tensor) -> torch.Tensor:
    return (sample.square() * torch.linspace(0.5, 1.5, sample.numel()).view_as(sample)).sum()


def inputs() -> tuple[torch.Tensor, Weights]:
    x = torch.linspace(-1.2, 1.5, 6, dtype=torch.float64).reshape(2, 3)
    weights = torch.tensor([0.8, 0.3], dtype=torch.float64)
    return x.requires_grad_(), weights.requires_grad_()


def central_differences(function: Callable, at: torch.Tensor) -> torch.Tensor:
    """Fourth order: with steps of 1e-3 both its own error and rounding stay below 1e-10."""
    slopes = torch.zeros_like(at)
    for i in range(at.numel()):
        unit = torch.zeros_like(at)
        unit.view(-1)[i] = 1e-3
        near, far = (function(at + k * unit) - function(at - k * unit) for k in (1, 2))
        slopes.view(-1)[i] = (8 * near - far) / 12e-3
    return slopes


# Restart's own noise and second walks come with more calls.
CALLS = [(cls, N) for cls in CLASSES] + [(schedulers.Restart, 20)]


@pytest.mark.parametrize("config", ["vp-scaled", "vp-zero-snr", "flow", "edm"])
@pytest.mark.parametrize(("cls", "n"), CALLS)
def test_gradients_are_those_of_finite_differences(cls, n: int, config: str) -> None:
    scheduler, (x, weights) = make(cls, config), inputs()

    def final(y: torch.Tensor, w: Weights) -> torch.Tensor:
        return loss_of(trajectory(scheduler, y, w, n))

    by_noise, by_weights = torch.autograd.grad(final(x, weights), (x, weights))
    with torch.no_grad():
        slopes = (
            central_differences(lambda y: final(y, weights), x),
            central_differences(lambda w: final(x, w), weights),
        )
    for gradient, slope in zip((by_noise, by_weights), slopes, strict=True):
        assert slope.abs().min() > 0
        torch.testing.assert_close(gradient, slope, rtol=1e-5, atol=1e-7 * float(slope.abs().max()))


@pytest.mark.parametrize("options", [{}, {"thresholding": True, "sample_max_value": 3.0}])
@every_class
def test_nothing_in_a_graph_is_written(cls, options: dict) -> None:
    """A graph outlives later runs of the same scheduler, with and without gradients."""
    scheduler, (x, weights) = make(cls, **options), inputs()
    kept: list[tuple[torch.Tensor, int]] = []  # with torch's count of writes
    first = loss_of(trajectory(scheduler, x, weights, keep=lambda y: kept.append((y, y._version))))
    second = loss_of(trajectory(scheduler, x, weights))
    with torch.no_grad():
        trajectory(scheduler, 2 * x, weights, n=9)
    assert all(y._version == version for y, version in kept)
    gradients = [torch.autograd.grad(loss, (x, weights)) for loss in (first, second)]
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


@every_class
def test_gradients_of_the_last_steps_alone(cls) -> None:
    """Truncated back-propagation: no gradient before step 3, and what went before is constant."""
    scheduler, (x, weights) = make(cls), inputs()

    def truncated(w: Weights) -> torch.Tensor:
        """The steps before use the weights as they are, whatever ``w`` is."""
        generator, y = torch.Generator().manual_seed(0), x.detach()
        scheduler.set_timesteps(N)
        for i, t in enumerate(scheduler.timesteps):
            with torch.set_grad_enabled(i >= 3 and torch.is_grad_enabled()):
                output = network(y, t, w if i >= 3 else weights)
                y = scheduler.step(output, t, y, generator=generator, return_dict=False)[0]
        return loss_of(y)

    (gradient,) = torch.autograd.grad(truncated(weights), weights)
    with torch.no_grad():
        slopes = central_differences(truncated, weights)
    torch.testing.assert_close(gradient, slopes, rtol=1e-5, atol=0)


@every_class
def test_gradients_of_the_first_steps_survive_the_rest(cls) -> None:
    """Steps without gradients recycle memory, but none that a graph still needs."""
    (x, weights), gradients = inputs(), []
    for rest in (False, True):
        scheduler, generator, states = make(cls), torch.Generator().manual_seed(0), [x]
        scheduler.set_timesteps(8)
        for i, t in enumerate(scheduler.timesteps[: 8 if rest else 4]):
            with torch.set_grad_enabled(i < 4):
                y = states[-1]
                output = network(y, t, weights)
                states += scheduler.step(output, t, y, generator=generator, return_dict=False)
        gradients.append(torch.autograd.grad(loss_of(states[4]), (x, weights)))
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


@every_class
def test_a_finished_run_leaves_no_graph_behind(cls) -> None:
    scheduler, (x, weights) = make(cls), inputs()
    alive: list[weakref.ref] = []
    result = trajectory(scheduler, x, weights, keep=lambda y: alive.append(weakref.ref(y)))
    del result  # and without a cycle that has to wait for the garbage collector
    assert [ref() for ref in alive] == [None] * N


def test_variance_noise_and_previews_carry_gradients() -> None:
    scheduler, (x, weights) = make(schedulers.DDIM, eta=1.0), inputs()
    scheduler.set_timesteps(N)
    unit = torch.ones_like(x, requires_grad=True)
    t = scheduler.timesteps[0]
    step = scheduler.step(network(x, t, weights), t, x, variance_noise=unit)
    (by_noise,) = torch.autograd.grad(step.prev_sample.sum(), unit, retain_graph=True)
    nu = sum(op.nu for op in scheduler.plan.evaluations[0].ops)
    torch.testing.assert_close(by_noise, torch.full_like(x, nu))
    row = scheduler.plan.evaluations[0]
    (by_x,) = torch.autograd.grad(step.pred_original_sample.sum(), x)
    slope = weights[0] + weights[1] * torch.cos(x + t / 1000)
    torch.testing.assert_close(by_x, (1 - row.sigma * slope) / row.alpha)
