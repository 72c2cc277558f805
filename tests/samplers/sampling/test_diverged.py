"""Samples that are not finite: the message says which call, and whether it was the network."""

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from command_line import call
from torch import nn

from fewstep.eval.generate.units import Generation
from fewstep.eval.problems import Problem
from fewstep.guidance import CFG, TSG
from fewstep.models import EDMDenoiser
from fewstep.samplers import Plan, build_plan, sample
from fewstep.samplers.sampling.diverged import NotFiniteWarning
from fewstep.samplers.tuning.compensation_search import fit_compensation
from fewstep.schedules import VE, discrete_vp
from fewstep.types import Level

PROCESS = discrete_vp("linear")
NOISE = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2])


class Breaks:
    """A model whose answer is nan, or very large, from a call on; it counts its calls."""

    process = PROCESS

    def __init__(self, at: int | None = None, value: float = torch.nan) -> None:
        self.at, self.value, self.asked = at, value, 0

    def __call__(self, x: torch.Tensor, level: Level, cond: Any = None) -> torch.Tensor:
        self.asked += 1
        broken = self.at is not None and level.index >= self.at
        return torch.full_like(x, self.value) if broken else 0.5 * x

    def null_cond(self, cond: torch.Tensor) -> torch.Tensor:
        return torch.full_like(cond, 3)


def told(*arguments: Any, **keywords: Any) -> str:
    """The one warning of a run."""
    with pytest.warns(NotFiniteWarning) as caught:
        x = sample(*arguments, noise=NOISE, **keywords)
    assert not x.isfinite().all()  # it is handed out all the same
    (warning,) = caught
    assert warning.filename == __file__
    assert "\n" not in str(warning.message)
    return str(warning.message)


@pytest.mark.parametrize("spec", ["ddim", "unipc", "heun", "dpmpp:tau=1"])
@pytest.mark.parametrize("at", [0, 2, 4])
def test_the_networks_own_output(spec: str, at: int) -> None:
    model = Breaks(at)
    text = told(model, spec, 5)
    assert text.startswith(f"samples of '{spec}' are not finite: the network's own output was not")
    level = build_plan(spec, PROCESS, 5).sigmas(native=False)[at]
    assert f"in call {at + 1} of 5, at sigma/alpha = {level:.4g}" in text
    assert model.asked == 10  # once more, and no more


def test_finite_samples_cost_no_call_more() -> None:
    model = Breaks()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample(model, "unipc", 5, noise=NOISE)
    assert model.asked == 5


def test_differentiable_runs_are_made_again_under_their_guidance() -> None:
    """Guidance that may be called twice may be so when the run is looked at."""
    text = told(Breaks(2), "ddim", 3, cond=LABELS, guidance=CFG(2.0), differentiable=True)
    assert "the network's own output was not finite" in text
    assert "in call 3 of 3" in text


def test_under_guidance_it_is_told_from_the_networks() -> None:
    """Two finite rows of 3e38 differ by more than float32 holds."""

    class Large(Breaks):
        def __call__(self, x: torch.Tensor, level: Level, cond: Any = None) -> torch.Tensor:
            if level.index < 1 or cond is None:
                return 0.5 * x
            sign = torch.where(cond == 3, -1.0, 1.0)[:, None, None, None]
            return sign * torch.full_like(x, 3e38)

    text = told(Large(), "ddim", 4, guidance=CFG(3), cond=LABELS)
    assert "the network's own outputs were finite, and guidance made the prediction not" in text
    assert "in call 2 of 4" in text
    text = told(Breaks(2), "ddim", 4, guidance=CFG(3), cond=LABELS)
    assert "the network's own output was not finite" in text
    assert "in call 3 of 4" in text


def test_the_step_is_told_from_both() -> None:
    """Outputs that are finite, and weights whose products are not."""
    plan = build_plan("euler", PROCESS, 3)
    row = plan.evaluations[2]
    op = replace(row.ops[-1], w=tuple(1e6 * w for w in row.ops[-1].w))
    rows = (*plan.evaluations[:2], replace(row, ops=(*row.ops[:-1], op)))
    text = told(Breaks(2, 3e38), Plan(rows, plan.end, plan.process, "by hand"))
    assert text.startswith("samples of 'by hand' are not finite: the network's outputs were finite")
    assert "the step behind call 3 of 3" in text


def test_a_start_that_was_not_finite() -> None:
    class Start:
        start_rho = None

        def check(self, run: Any) -> None: ...

        def start(self, noise: torch.Tensor, x: torch.Tensor, level: Level) -> torch.Tensor:
            return x / 0

        def after_step(self, *given: Any) -> None: ...

    assert "the state that the run starts from was not" in told(
        Breaks(), "ddim", 3, hooks=[Start()]
    )


def test_a_model_that_is_not_the_same_again() -> None:
    class Once(Breaks):
        def __call__(self, x: torch.Tensor, level: Level, cond: Any = None) -> torch.Tensor:
            self.asked += 1
            return x * (torch.nan if self.asked == 2 else 0.5)

    assert "made again it was finite, so the model or a hook is not the same" in told(
        Once(), "ddim", 3
    )


def test_a_network_keeps_its_parts_when_it_is_looked_at() -> None:
    """Guidance that hooks the time embedding finds it the second time as well."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time_embed = nn.Linear(1, 4)

        def forward(self, x: torch.Tensor, s: torch.Tensor, labels: Any) -> torch.Tensor:
            return x * self.time_embed(s[:, None]).mean(1)[:, None, None, None] * torch.inf

    with torch.no_grad():
        text = told(EDMDenoiser(Net().eval(), VE()), "euler", 2, guidance=TSG(module="time_embed"))
    assert "the network's own output was not finite" in text


def test_a_unit_of_gen_is_refused_with_the_call() -> None:
    problem = Problem("mine", Breaks(2), (1, 4, 4), "none")
    with pytest.raises(ValueError, match=r"network's own output was not finite .* call 3 of 4"):
        Generation(problem, "ddim", 4, range(4)).make(0)


def test_sample_on_the_command_line_refuses_too(monkeypatch: pytest.MonkeyPatch, tmp_path,
                                                capsys) -> None:  # fmt: skip
    """No picture of greys is written."""
    problem = Problem("mine", Breaks(1), (1, 28, 28), "none", num_classes=10)
    monkeypatch.setattr("fewstep.eval.cli.drawing.load_problem", lambda *given: problem)
    monkeypatch.chdir(tmp_path)
    assert call("sample", "--n", "2", "--nfe", "3") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: samples of 'ipndm' are not finite: the network's own output")
    assert "call 2 of 3" in line
    assert not list(tmp_path.iterdir())


def test_fitting_ratios_says_which_call_too() -> None:
    for guidance, cond in ((None, None), ("cfg:2", LABELS)):
        with pytest.raises(ValueError, match=r"the network's own output .* in call 3 of 4, at"):
            fit_compensation(
                Late(), NOISE, 4, guidance=guidance, cond=cond, sweeps=0, progress=False
            )


class Late(Breaks):
    """Breaks in the third call of four, and not on the fine grid of their reference."""

    def __call__(self, x: torch.Tensor, level: Level, cond: Any = None) -> torch.Tensor:
        # Steps of the reference are 16 times as fine.
        coarse = level.rho > 1.5 * level.next_rho
        self.at = 2 if coarse and level.index == 2 else None
        return super().__call__(x, level, cond)
