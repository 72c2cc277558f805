"""What a tuning budgets, how it tells where it is, and which Gaussian it lands by."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from saved_pipelines import PROMPTS, loaded, prompt_file

from fewstep.eval.problems import Problem, load_problem
from fewstep.eval.tune.landings import find_landings, model_samples
from fewstep.eval.tune.run import run_tune
from fewstep.eval.tune.settings import TuneSettings, batch_of
from fewstep.eval.tune.stages import Stages, estimate, estimate_line, minutes_left
from fewstep.eval.tune.teachers import cached_teacher, split_noises
from fewstep.models.exact import MixtureDenoiser
from fewstep.samplers.gaussian.class_gaussians import ClassGaussians
from fewstep.samplers.gaussian.gaussian import GaussianFit
from fewstep.schedules import discrete_vp


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("fewstep.eval.tune.landings.FITTED_EXACT", 128)


def classes(spread: float) -> Problem:
    """Two classes of points in the plane, ``spread`` apart."""
    process = discrete_vp("scaled_linear", beta_start=0.00085, beta_end=0.012)
    means = torch.tensor([[0.1, 0.9], [0.2, -0.8], [0.1, 0.7], [0.0, -1.0]]).double()
    means[2:, 0] += spread
    labels = torch.tensor([0, 0, 1, 1])
    denoiser = MixtureDenoiser(process, means, 0.3, labels=labels)
    return Problem("classes", denoiser, denoiser.shape, f"classes {spread}", 2)


@pytest.mark.parametrize("spread", [4.0, 0.0])
def test_the_fit_that_follows_the_teacher_is_taken(spread: float) -> None:
    """By class where classes lie apart. Held-out samples choose, so few noisy fits do not win."""
    problem = classes(spread)
    split = split_noises(problem, 0, {"tune": 64})["tune"]
    teacher = cached_teacher(problem, split.noise, split.labels)
    samples, labels = model_samples(problem, None, 0, 64)
    assert samples.shape == (128, 2)
    landings = find_landings(problem, samples, labels, teacher)
    assert isinstance(landings.fit, ClassGaussians) or spread == 0
    if isinstance(landings.fit, ClassGaussians) and spread:
        apart = landings.fit.fits[1].mean - landings.fit.fits[0].mean
        assert float(apart[0]) == pytest.approx(spread, abs=0.3)  # 4 deviations of 64 samples


def test_samples_for_the_fit_are_other_ones_than_those_to_tune() -> None:
    problem = classes(1.0)
    told: list[tuple[int, int]] = []
    first, _ = model_samples(problem, None, 0, 8, lambda *now: told.append(now))
    assert told[-1] == (128, 128)
    later, _ = model_samples(problem, None, 0, 16)
    assert torch.equal(first[8:], later[:-8])  # 8 noises further on in the same stream
    told.clear()
    again, _ = model_samples(problem, None, 0, 8, lambda *now: told.append(now))
    assert torch.equal(again, first)
    assert not told  # from the disk


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_prompts_are_landed_by_channels(tmp_path: Path) -> None:
    """A pipeline has other prompts later, and images of other sizes."""
    problem = loaded("sd", prompt_file(tmp_path))
    samples = torch.randn(16, *problem.shape)
    labels = torch.arange(16) % len(PROMPTS)
    split = split_noises(problem, 0, {"tune": 2})["tune"]
    teacher = cached_teacher(problem, split.noise, split.labels, grid=8)
    fit = find_landings(problem, samples, labels, teacher).fit
    assert isinstance(fit, GaussianFit)
    assert fit.mean.shape == (problem.shape[0], 1, 1)


def test_the_tuning_gets_what_is_left_of_its_minutes() -> None:
    assert minutes_left(8.0, 1.0) == 7.0
    assert minutes_left(8.0, 20.0) == 2.0  # a quarter


def test_estimate_is_bounded_by_the_minutes() -> None:
    problem = load_problem("mix8")
    settings = TuneSettings(problem="mix8", nfe=5, minutes=1.0)

    def seconds(**given: Any) -> dict[str, float]:
        return estimate(replace(settings, **given), problem, 1e4, 100, 4096)

    few, more = seconds(), seconds(minutes=8.0)
    assert few["tuning"] <= 61
    assert few["tuning"] < more["tuning"]
    assert few["teacher"] == pytest.approx((1024 + 2048 + 4096 + 32) * 100 / 1e4)
    # A search of nodes runs to its end, whatever the minutes.
    slow, slower = (seconds(family="grid:search", minutes=m)["tuning"] for m in (1e-3, 8.0))
    assert slow == slower
    assert "teacher 1 min" in estimate_line(few, 1e4)
    assert "Gaussian" not in estimate_line({"teacher": 1.0, "Gaussian": 0.0}, 1e4)


def test_no_step_begins_behind_the_deadline() -> None:
    settings = TuneSettings(
        problem="mix8", nfe=3, noises=(16, 16, 16), minutes=1e-9, teleport=False
    )
    found = run_tune(settings).found
    assert len(found.history) <= 1
    assert found.select <= found.select_before


def test_stages_add_up_to_what_was_estimated() -> None:
    told: list[tuple[float, float, str]] = []
    stages = Stages({"teacher": 2.0, "tuning": 6.0}, lambda *now: told.append(now))
    stages.enter("teacher")
    stages.at(0.5, "half")
    stages.enter("tuning")
    stages.at(3.0)  # longer than was estimated
    assert told == [(0.0, 8.0, "teacher"), (1.0, 8.0, "half"), (2.0, 8.0, "tuning"),
                    (8.0, 8.0, "tuning")]  # fmt: skip
    assert stages.finish().keys() == {"teacher", "tuning"}


def test_batches_are_of_bounded_memory() -> None:
    problem = load_problem("mix8")
    assert batch_of(problem) == 8192
    large = replace(problem, shape=(4, 64, 64), exact=False)
    assert batch_of(large) == 16
    assert batch_of(replace(large, device="cuda")) == 32
