"""Sampling as a differentiable map, with calls that are made again in the backward pass."""

import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewstep.guidance import CFG, ICG, ClassifierGuidance, Interval, Project
from fewstep.models.exact import MixtureDenoiser
from fewstep.samplers import build_plan, sample
from fewstep.samplers.core.execute import Executor
from fewstep.samplers.core.run import levels
from fewstep.samplers.sampling.recompute import recomputed
from fewstep.schedules import NoiseProcess, discrete_vp
from fewstep.types import Level

WIDTH = 48  # of the hidden layer, which is wider than anything else in a run
SPECS = ("unipc", "ipndm", "heun", "dpmpp:tau=1.0")  # the last adds noise from the seeds
NFE = 6


class Network(nn.Module):
    """A small conditional data prediction in float64."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.inner, self.outer = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3)
        self.double().eval()

    @property
    def process(self) -> NoiseProcess:
        return discrete_vp("scaled_linear")

    def forward(self, x: Tensor, level: Level, cond: Tensor) -> Tensor:
        scaled = torch.cat([x, cond + level.sigma], dim=1)
        return self.outer(torch.tanh(self.inner(scaled)))

    def null_cond(self, cond: Tensor) -> Tensor:
        return torch.zeros_like(cond)


def inputs(n: int = 2) -> tuple[Tensor, Tensor]:
    noise = torch.linspace(-1.2, 1.5, 3 * n, dtype=torch.float64).reshape(n, 3)
    cond = torch.linspace(0.2, 0.8, 2 * n, dtype=torch.float64).reshape(n, 2)
    return noise.requires_grad_(), cond.requires_grad_()


def loss_of(x: Tensor) -> Tensor:
    return (x.square() * torch.linspace(0.5, 1.5, x.numel(), dtype=x.dtype).view_as(x)).sum()


def slope(function: Any, variables: list[Tensor], along: list[Tensor]) -> float:
    """Central differences of fourth order; with steps of 1e-3 good to about 1e-10."""

    def at(t: float) -> float:
        with torch.no_grad():
            for variable, direction in zip(variables, along, strict=True):
                variable += t * direction
            value = float(function())
            for variable, direction in zip(variables, along, strict=True):
                variable -= t * direction
        return value

    h = 1e-3
    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)


@pytest.mark.parametrize("guidance", [None, CFG(2.5), CFG(2.5) | Interval(0.3, 5.0)])
@pytest.mark.parametrize("spec", SPECS)
def test_gradients_are_those_of_plain_autograd_and_of_differences(spec: str, guidance: Any) -> None:
    network, (noise, cond) = Network(), inputs()
    variables = [noise, cond, *network.parameters()]

    def loss(differentiable: bool = True) -> Tensor:
        return loss_of(
            sample(network, spec, NFE, noise=noise, cond=cond, guidance=guidance, seeds=(3, 8),
                   differentiable=differentiable)
        )  # fmt: skip

    again, kept = (torch.autograd.grad(loss(d), variables) for d in (True, False))
    for one, other in zip(again, kept, strict=True):
        # The same operations on the same numbers; only sums over calls may be in another order.
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    generator = torch.Generator().manual_seed(1)
    for group in ([0], [1], list(range(2, len(variables)))):
        along = [
            torch.randn(variables[k].shape, generator=generator, dtype=torch.float64)
            for k in group
        ]  # fmt: skip
        found = slope(loss, [variables[k] for k in group], along)
        expected = sum(float((again[k] * d).sum()) for k, d in zip(group, along, strict=True))
        assert abs(expected) > 1e-5  # added noise makes a run forget most of its start
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)  # differences are good to 1e-10


@pytest.mark.parametrize("spec", SPECS)
def test_samples_are_the_same(spec: str) -> None:
    network, (noise, cond) = Network(), inputs()
    runs = [
        sample(network, spec, NFE, noise=noise, cond=cond, differentiable=d).detach()
        for d in (False, True)
    ]
    with torch.no_grad():
        runs.append(sample(network, spec, NFE, noise=noise, cond=cond, differentiable=True))
    assert torch.equal(runs[0], runs[1])
    # Without gradients the executor recycles memory and may round otherwise.
    torch.testing.assert_close(runs[0], runs[2], rtol=1e-12, atol=1e-12)
    assert not runs[2].requires_grad


@pytest.mark.parametrize("guidance", [None, CFG(3.0)])
@pytest.mark.parametrize("spec", SPECS)
def test_gradients_of_an_exact_model(spec: str, guidance: Any) -> None:
    means = torch.tensor([[-1.3, 0.4], [0.2, -0.9], [0.9, 1.0]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1])
    denoiser = MixtureDenoiser(discrete_vp("scaled_linear"), means, 0.4, labels=labels)
    noise = torch.linspace(-1, 1.3, 6, dtype=torch.float64).reshape(3, 2).requires_grad_()
    cond = torch.tensor([0, 1, 0])

    def loss() -> Tensor:
        return loss_of(
            sample(denoiser, spec, NFE, noise=noise, cond=cond, guidance=guidance,
                   differentiable=True)
        )  # fmt: skip

    (gradient,) = torch.autograd.grad(loss(), noise)
    along = torch.randn(3, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    # Where modes meet the model bends within 0.05, which leaves differences 5 to 6 digits.
    assert slope(loss, [noise], [along]) == pytest.approx(float((gradient * along).sum()), rel=1e-4)


class Watched(Network):
    """Counts calls, and the outputs of its hidden layer that still live."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.most = 0, 0
        self.hidden: list[weakref.ref[Tensor]] = []

    def forward(self, x: Tensor, level: Level, cond: Tensor) -> Tensor:
        self.calls += 1
        hidden = torch.tanh(self.inner(torch.cat([x, cond + level.sigma], dim=1)))
        self.hidden.append(weakref.ref(hidden))
        self.most = max(self.most, self.alive)
        return self.outer(hidden)

    @property
    def alive(self) -> int:
        return sum(ref() is not None for ref in self.hidden)


@pytest.mark.parametrize("guidance", [None, CFG(2.0)])
@pytest.mark.parametrize("nfe", [4, 12])
def test_activations_of_one_call_live_at_a_time(nfe: int, guidance: Any) -> None:
    network, (noise, cond) = Watched(), inputs()
    options: dict[str, Any] = {"noise": noise, "cond": cond, "guidance": guidance}
    result = sample(network, "unipc", nfe, **options)
    assert network.alive == nfe  # what it costs otherwise
    del result
    network = Watched()
    result = sample(network, "unipc", nfe, differentiable=True, **options)
    assert (network.calls, network.alive) == (nfe, 0)
    loss_of(result).backward()
    assert network.calls == 2 * nfe  # one forward more for each call
    assert network.most <= 2  # while one call's are made, those of the one before may go
    assert network.alive == 0


def test_what_is_saved_does_not_grow_with_the_network() -> None:
    """Whatever autograd itself keeps outside the calls has the size of a state."""
    network, (noise, cond) = Network(), inputs()
    sizes: dict[bool, list[int]] = {}
    for differentiable in (False, True):
        seen = sizes[differentiable] = []

        def pack(tensor: Tensor, seen: list[int] = seen) -> Tensor:
            seen.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            sample(
                network, "unipc", NFE, noise=noise, cond=cond, guidance=CFG(2.0),
                differentiable=differentiable,
            )  # fmt: skip
    assert max(sizes[False]) >= 2 * WIDTH * len(noise)
    assert max(sizes[True], default=0) <= noise.numel()


def test_gradients_by_the_numbers_of_a_table() -> None:
    """``Executor(rows=)`` takes recomputed calls as any others: for tuning tables by gradient."""
    network, (noise, cond) = Network(), inputs()
    plan = build_plan("ipndm", network.process, NFE)
    numbers = [
        torch.tensor(op.w, dtype=torch.float64, requires_grad=True)
        for row in plan.evaluations for op in row.ops
    ]  # fmt: skip

    def loss(evaluate: Any) -> Tensor:
        weights = iter(numbers)
        rows = [
            replace(row, ops=tuple(replace(op, w=tuple(next(weights))) for op in row.ops))
            for row in plan.evaluations
        ]
        executor, x = Executor(plan, rows=rows), noise.detach()
        for level in levels(plan):
            x = executor.step(level.index, evaluate(x, level, cond), x, torch.zeros_like)
        return loss_of(x)

    again, kept = (
        torch.autograd.grad(loss(evaluate), numbers)
        for evaluate in (recomputed(network, None), network)
    )
    for one, other in zip(again, kept, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    along = [torch.ones_like(number) for number in numbers]
    expected = sum(float(gradient.sum()) for gradient in again)
    assert slope(lambda: loss(network), numbers, along) == pytest.approx(expected, rel=1e-6)


class Foreign:
    """Guidance of a user's own, which says nothing of itself."""

    def wrap(self, denoiser: Any, seeds: Any = None) -> Any:
        return denoiser

    def breakpoints(self) -> tuple[float, ...]:
        return ()

    def check(self, run: Any) -> None:
        pass


@pytest.mark.parametrize("guidance", [CFG(2.0) | Project(beta=-0.5), ICG(1.5), Foreign()])
def test_what_may_not_be_called_twice_is_refused(guidance: Any) -> None:
    network, (noise, cond) = Network(), inputs()
    with pytest.raises(ValueError, match="differentiable=True makes each call twice"):
        sample(network, "ddim", 4, noise=noise, cond=cond, guidance=guidance, differentiable=True)


def test_guidance_by_gradients_of_its_own_is_refused() -> None:
    """Its direction is a constant to autograd: the gradient would be wrong in silence."""
    network, (noise, cond) = Network(), inputs()
    guidance = ClassifierGuidance(lambda x, t: torch.stack([x[:, 0], -x[:, 0]], 1), 1.0, target=0)
    with pytest.raises(ValueError, match="counts as a constant to autograd"):
        sample(network, "ddim", 4, noise=noise, cond=cond, guidance=guidance, differentiable=True)
