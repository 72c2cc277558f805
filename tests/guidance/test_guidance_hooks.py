"""Hooks on a run: a boosted late start, and particles that a reward selects."""

import math
from typing import Any

import pytest
import torch
from guidance_problems import F64, Judge, Watched, draw, noise, rare_mode, ring
from torch import Tensor

from fewstep.guidance import CFG, BoostAndSkip, FKSteering, Project
from fewstep.models.exact import GaussianDenoiser
from fewstep.models.ode import level_at
from fewstep.samplers import build_plan, sample
from fewstep.samplers.core.run import facts
from fewstep.schedules import VE, ContinuousVP
from fewstep.types import Level

RARE = rare_mode(0.5, 1.2, 2.5)
GAUSS = GaussianDenoiser(VE(0.02, 20.0), 0.0, 1.2)


def test_boosting_finds_the_rare_mode_if_the_start_is_skipped() -> None:
    judge = Judge(RARE)
    plain, boosted, unskipped = (
        judge(draw(RARE, "euler_a", 50, 4000, hooks=hooks))
        for hooks in ([], [BoostAndSkip(4.0, start_rho=4.0)], [BoostAndSkip(4.0, start_rho=100.0)])
    )
    assert plain["rare"] == pytest.approx(0.05, abs=0.01)
    assert boosted["rare"] >= 0.10
    assert boosted["low"] > 1.5 * plain["low"]
    assert boosted["off"] <= 0.01
    # The noise of the sampler washes a boost of pure noise out.
    assert unskipped["rare"] == pytest.approx(plain["rare"], abs=0.015)


@pytest.mark.parametrize("spec", ["euler", "heun", "dpmpp:order=2", "ddim:eta=0"])
def test_an_ode_sampler_is_refused(spec: str) -> None:
    for hook in (BoostAndSkip(), FKSteering(lambda x: x.sum(1))):
        with pytest.raises(ValueError, match="euler_a, dpmpp:tau=1"):
            draw(RARE, spec, 8, 8, hooks=[hook])


@pytest.mark.parametrize("process", [ContinuousVP(), VE()])
def test_the_boosted_start_is_where_it_says_and_saves_the_calls_above(process: Any) -> None:
    watched = Watched(ring(process=process))
    seen = []

    class Spy(BoostAndSkip):
        def start(self, noise: Tensor, x: Tensor, level: Level) -> Tensor:
            seen.append((noise, x, level))
            return super().start(noise, x, level)

    start = noise(8, 2)
    draw(watched, "euler_a", 20, 8, noise=start, shape=None, hooks=[Spy(3.0, start_rho=2.0)])
    level = watched.levels[0]
    assert level.rho == pytest.approx(2.0)
    assert len(watched.rows) < 20
    got, x, at = seen[0]
    assert torch.equal(got, start)
    usual = math.hypot(at.alpha, at.sigma)
    torch.testing.assert_close(x, usual * start, rtol=1e-12, atol=1e-12)
    boosted = BoostAndSkip(3.0, start_rho=2.0).start(start, x, at)
    torch.testing.assert_close(boosted, 3 * usual * start, rtol=1e-12, atol=1e-12)


def steered(hook: FKSteering, rewards: list[Tensor]) -> None:
    """A run of ten steps in which predictions have these rewards; threshold 0 keeps all."""
    hook.check(facts(build_plan("ddim:eta=1", GAUSS.process, 10)))
    x = torch.zeros(8, 1, dtype=F64)
    hook.start(x, x, level_at(GAUSS.process, 20.0))
    for step, reward in enumerate(rewards):
        level = Level(1.0, 1.0, 1.0, step, step=step)
        hook.after_step(x, reward[:, None], level, range(8))


@pytest.mark.parametrize("potential", ["max", "diff", "add"])
def test_potentials_multiply_up_to_what_they_are_called(potential: Any) -> None:
    rewards = list(noise(10, 8))
    hook = FKSteering(
        lambda x0: x0[:, 0], 4, 2.0, potential=potential, window=(0.0, 1.0), threshold=0.0
    )
    steered(hook, rewards)
    stacked = torch.stack(rewards)
    total = {"max": stacked.amax(0), "diff": stacked[-1], "add": stacked.sum(0)}[potential]
    expected = (2 * total).float().view(2, 4)
    torch.testing.assert_close(hook.log_weights, expected, rtol=1e-5, atol=1e-5)
    w = expected.softmax(1)
    size = w.sum(1) ** 2 / w.square().sum(1)
    torch.testing.assert_close(hook.effective_sizes[-1], size, rtol=1e-5, atol=1e-5)


def test_weighing_happens_every_so_often_within_the_window() -> None:
    seen = []
    hook = FKSteering(lambda x0: x0[:, 0], every=2, window=(0.3, 0.8))
    hook._weigh = lambda rewards: seen.append(len(hook.effective_sizes))  # type: ignore[method-assign]
    steered(hook, list(noise(10, 8)))
    assert len(seen) == 3  # after steps 4, 6 and 8 of 10


def test_resampling_is_unbiased() -> None:
    groups, reward = 20_000, torch.tensor([0.0, 1.0, -1.0, 0.4])
    hook = FKSteering(lambda x0: x0[:, 0], 4, 1.0, window=(0.0, 1.0), threshold=1.0)
    hook.check(facts(build_plan("ddim:eta=1", GAUSS.process, 10)))
    x = torch.zeros(4 * groups, 1)
    hook.start(x, x, level_at(GAUSS.process, 20.0))
    found = hook.after_step(x, reward.repeat(groups)[:, None], Level(1, 1, 1), range(4 * groups))
    assert torch.equal(found // 4, torch.arange(4 * groups) // 4)  # of the own group
    copies = torch.bincount(found % 4, minlength=4) / groups
    # Each is a mean of 20 000 counts of at most four.
    torch.testing.assert_close(copies, 4 * reward.softmax(0), rtol=0, atol=0.03)
    assert not hook.log_weights.any()


@pytest.mark.parametrize("potential", ["max", "diff"])
@pytest.mark.parametrize("spec", ["ddim:eta=1", "dpmpp:order=2,tau=1"])
def test_a_linear_reward_tilts_a_gaussian(spec: str, potential: Any) -> None:
    """Towards exp(lambda r): the mean moves by lambda times the variance."""
    k, groups, scale = 32, 60, 0.8
    n = k * groups
    options = {"shape": (n, 1), "seeds": range(n)}
    plain = draw(GAUSS, spec, 24, n, **options)
    hook = FKSteering(lambda x0: x0[:, 0], k, scale, potential=potential, window=(0.0, 1.0))
    got = draw(GAUSS, spec, 24, n, hooks=[hook], **options).view(groups, k)
    weights = hook.log_weights.double().softmax(1)
    mean = (weights * got).sum(1)
    expected = scale * float(plain.var())
    error = float(mean.std()) / math.sqrt(groups)
    if potential == "diff":  # a mean over k particles has a bias of order 1 / k
        assert float(mean.mean()) == pytest.approx(expected, abs=3 * error + expected * 2 / k)
    else:  # what counts is the best prediction on the way, which says less of the end
        assert 0.4 * expected < float(mean.mean()) < expected


def test_selection_takes_history_and_momentum_along() -> None:
    """Without noise a permuted run ends as the permuted samples of a plain one."""
    order = torch.tensor([3, 1, 7, 7, 0, 2, 6, 5])

    class Permute:
        start_rho = None

        def check(self, run: Any) -> None: ...

        def start(self, noise: Tensor, x: Tensor, level: Level) -> Tensor:
            return x

        def after_step(self, x: Tensor, x0: Tensor, level: Level, seeds: Any) -> Tensor | None:
            return order if level.step == 4 else None

    model, start = ring(), noise(8, 2)
    options = {"noise": start, "shape": None, "cond": torch.full((8,), 2)}
    for spec in ("dpmpp:order=3", "unipc:order=2", "heun:grid=karras", "deis:order=3"):
        for part in (None, CFG(2.0) | Project(0.5, beta=-0.5)):
            plain = draw(model, spec, 12, 8, guidance=part, **options)
            got = draw(model, spec, 12, 8, guidance=part, hooks=[Permute()], **options)
            torch.testing.assert_close(got, plain[order], rtol=1e-12, atol=1e-12)


def test_groups_do_not_depend_on_their_batch() -> None:
    def run(seeds: range) -> Tensor:
        hook = FKSteering(lambda x0: x0.sum(1), 4, 3.0, every=2)
        return draw(GAUSS, "ddim:eta=1", 12, len(seeds), seeds=seeds, hooks=[hook])

    whole = run(range(12))
    assert torch.equal(torch.cat([run(range(4)), run(range(4, 12))]), whole)
    assert len(whole.unique(dim=0)) == 12  # copies part by the sampler's noise


def test_the_best_of_each_group() -> None:
    x = torch.arange(8.0)[:, None] * torch.tensor([1.0, -1.0]).repeat(4)[:, None]
    hook = FKSteering(lambda x0: x0[:, 0])
    assert hook.best(x)[:, 0].tolist() == [2.0, 6.0]


@pytest.mark.parametrize("reward", [lambda x: x, lambda x: x[:, 0] / 0, lambda x: x.sum()])
def test_a_reward_of_another_shape_or_without_an_end_is_refused(reward: Any) -> None:
    with pytest.raises(ValueError, match="finite numbers, one for each sample"):
        sample(GAUSS, "ddim:eta=1", 8, shape=(8, 2), hooks=[FKSteering(reward)])
