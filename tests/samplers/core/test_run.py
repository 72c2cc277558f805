"""What guidance and hooks see of a run, and do to it: stages, facts, ancestors, late starts."""

import itertools
import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from interval_problem import (
    EDGES,
    PROCESSES,
    SPECS,
    MixtureDenoiser,
    planned,
    run,
)

from fewstep.samplers import Plan, build_plan, sample
from fewstep.samplers.core.run import facts, levels
from fewstep.schedules import grid_from_rho
from fewstep.types import Level, RunFacts

# Stages and facts


def test_stages_are_saved_and_may_be_missing() -> None:
    plan = build_plan("heun:grid=karras", PROCESSES["vp"], 9)
    assert [row.stage for row in plan.evaluations] == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert Plan.from_json(plan.to_json()) == plan
    table = plan.table()
    for row in table["evaluations"]:
        del row["stage"]
    old = Plan.from_table(table)
    assert [replace(row, stage=0) for row in plan.evaluations] == list(old.evaluations)
    with pytest.raises(ValueError, match="stage >= 0"):
        replace(plan, evaluations=(replace(plan.evaluations[0], stage=-1),))


@pytest.mark.parametrize(
    ("spec", "steps"),
    [
        ("unipc", [0, 1, 2, 3, 4, 5, 6]),
        ("heun", [0, 0, 1, 1, 2, 2, 3]),
        ("singlestep", [0, 0, 0, 1, 1, 1, 2]),
        ("rho_rk:order=2", [0, 0, 1, 1, 2, 2, 3]),
        # Both calls at a level: the first belongs to the step that it corrects.
        ("sa:evaluate=pece", [0, 1, 1, 2, 2, 3, 4]),
    ],
)
def test_the_calls_of_a_step_share_its_level(spec: str, steps: list[int]) -> None:
    seen = levels(build_plan(spec, PROCESSES["vp"], 7))
    assert [level.step for level in seen] == steps
    for level in seen:
        first = next(x for x in seen if x.step == level.step)
        assert level.gate_rho == first.rho
    for level, after in itertools.pairwise(seen):
        assert (level.next_alpha, level.next_sigma) == (after.alpha, after.sigma)
    assert (seen[-1].next_alpha, seen[-1].next_sigma) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("spec", "reads", "noisy"),
    [("ddim", 1, False), ("euler", 1, False), ("ddim:eta=1", 1, True), ("dpmpp", 2, False),
     ("heun", 2, False), ("unipc:order=2", 3, False), ("deis:order=4", 4, False),
     ("singlestep", 3, False), ("sa", 4, True)],
)  # fmt: skip
def test_facts(spec: str, reads: int, noisy: bool) -> None:
    plan = build_plan(spec, PROCESSES["vp"], 20)
    found = facts(plan)
    assert (found.reads, found.noisy) == (reads, noisy)
    assert list(found.levels) == levels(plan)


# Hooks


@dataclass
class Hook:
    """Starts late with the noise tripled, and picks ancestors after one solver step."""

    start_rho: float | None = None
    scale: float = 1.0
    picks: dict[int, list[int]] = field(default_factory=dict)
    calls: list[tuple[Level, torch.Tensor]] = field(default_factory=list)
    facts: RunFacts | None = None

    def check(self, run: RunFacts) -> None:
        self.facts = run

    def start(self, noise: torch.Tensor, x: torch.Tensor, level: Level) -> torch.Tensor:
        self.noise, self.first, self.usual = noise, level, x
        return self.scale * x

    def after_step(self, x, x0, level: Level, seeds) -> torch.Tensor | None:
        self.calls.append((level, x0))
        pick = self.picks.get(level.step)
        return None if pick is None else torch.tensor(pick)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_ancestors_bring_their_past(spec: str, dtype) -> None:
    """After select([1, 1, 0]) each slot goes on as its ancestor would have, bit for bit."""
    plan = replace_noise(build_plan(spec, MixtureDenoiser.process, 20, EDGES))
    noise = torch.tensor([-1.5, 0.3, 1.1], dtype=dtype)
    ancestors = torch.tensor([1, 1, 0])
    whole = run(plan, Vector(), noise)
    for after in (0, 5, 9, 13, 19):
        assert torch.equal(run(plan, Vector(), noise, (after, ancestors)), whole[ancestors])


class Vector:
    """A denoiser of which one row's result does not depend on the others in the batch."""

    def __call__(self, x: torch.Tensor, level: Level, cond: object = None) -> torch.Tensor:
        return torch.stack([torch.tanh(row) for row in x])


def replace_noise(plan: Plan) -> Plan:
    """Without noise, which belongs to slots and not to samples."""
    rows = [
        replace(row, ops=tuple(replace(op, nu=0.0) for op in row.ops)) for row in plan.evaluations
    ]
    return replace(plan, evaluations=tuple(rows))


@pytest.mark.parametrize(("spec", "steps"), [("unipc", 8), ("heun", 5), ("singlestep", 4)])
def test_hooks_act_after_each_solver_step(spec: str, steps: int) -> None:
    noise = torch.tensor([-1.5, 0.3, 1.1], dtype=torch.float64)
    hook = Hook(picks={1: [1, 1, 0], 2: [0, 2, 1]})
    chosen = sample(MixtureDenoiser(), spec, 8, noise=noise, hooks=[hook])
    assert [level.step for level, _ in hook.calls] == list(range(steps))
    plain = sample(MixtureDenoiser(), spec, 8, noise=noise)
    torch.testing.assert_close(chosen, plain[[1, 0, 1]], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "spec", ["ddim:eta=1", "dpmpp", "unipc", "heun", "sa:evaluate=pece", "rho_rk"]
)
@pytest.mark.parametrize("process", ["vp", "edm", "flow"])
def test_a_late_start_saves_calls(spec: str, process: str) -> None:
    denoiser = MixtureDenoiser()
    denoiser.process = PROCESSES[process]
    noise = torch.tensor([-1.5, 0.3, 1.1], dtype=torch.float64)
    hook, made = Hook(start_rho=4.0, scale=3.0), []
    sample(denoiser, spec, 14, noise=noise, hooks=[hook], callback=lambda e, x: made.append(e))
    assert math.isclose(hook.first.rho, 4.0, rel_tol=1e-9)
    assert made == list(range(len(hook.facts.levels)))
    whole = build_plan(spec, denoiser.process, 14, (4.0,))
    rest = [row for row in levels(whole) if row.rho < 4.0 * (1 + 1e-6)]
    assert len(rest) - 1 <= len(made) < 14  # Heun's second call at the start level is saved, too
    size = math.hypot(hook.first.alpha, hook.first.sigma)
    torch.testing.assert_close(hook.usual, size * noise)
    assert torch.equal(hook.noise, noise)


@pytest.mark.parametrize(
    ("spec", "bound"), [("unipc", 5e-3), ("deis", 5e-3), ("heun", 5e-2), ("singlestep", 5e-3)]
)
def test_a_late_start_of_a_saved_plan(spec: str, bound: float) -> None:
    """It has no level there: the run starts at the next one, near the exact solution."""
    plan = build_plan(spec, MixtureDenoiser.process, 30)
    noise = torch.tensor([-1.5, 0.3, 1.1], dtype=torch.float64)
    hook = Hook(start_rho=4.0)
    with pytest.warns(UserWarning, match="unsnapped"):
        x = sample(MixtureDenoiser(), plan, 30, noise=noise, hooks=[hook])
    first = hook.first
    assert first.rho < 4.0
    fine = grid_from_rho(MixtureDenoiser.process, np.append(np.geomspace(first.rho, 0.01, 300), 0))
    exact = run(planned("unipc", fine), MixtureDenoiser(), hook.usual)
    assert (x - exact).abs().max() < bound


def test_what_cannot_start_is_told() -> None:
    noise = torch.zeros(3, dtype=torch.float64)
    plan = build_plan("ddim", MixtureDenoiser.process, 5)
    with (
        pytest.warns(UserWarning, match="unsnapped"),
        pytest.raises(ValueError, match="no call is left"),
    ):
        sample(MixtureDenoiser(), plan, 5, noise=noise, hooks=[Hook(start_rho=1e-6)])
    with pytest.raises(ValueError, match="2 hooks"):
        sample(MixtureDenoiser(), plan, 5, noise=noise, hooks=[Hook(2.0), Hook(3.0)])
    hook = Hook(start_rho=1e9)  # above everything: the usual start
    sample(MixtureDenoiser(), plan, 5, noise=noise, hooks=[hook])
    assert hook.first == levels(plan)[0]
