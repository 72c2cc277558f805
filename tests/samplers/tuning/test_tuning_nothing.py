"""Where nothing can be gained, every family gives back the start."""

import warnings

import pytest
import torch
from gaussians import randn
from teleports import PROCESSES, diagonal_fit

from fewstep.eval.tune.families import Task, tune_family
from fewstep.eval.tune.settings import FAMILIES, TIED, parse_family
from fewstep.models.exact import GaussianDenoiser
from fewstep.samplers.gaussian.gaussian import level_of
from fewstep.samplers.gaussian.warm import warm_plan
from fewstep.samplers.tuning.family import Family
from fewstep.samplers.tuning.flatten import flatten
from fewstep.samplers.tuning.objective import Objective
from fewstep.samplers.tuning.optimise import Settings
from fewstep.samplers.tuning.pairs import Pairs
from fewstep.samplers.tuning.polish import polish
from fewstep.samplers.tuning.rollout import Calls
from fewstep.samplers.tuning.scan import Landings
from fewstep.samplers.tuning.teacher import fine_grid, teach

POINT = torch.linspace(-1, 1, 6, dtype=torch.float64)
WRITTEN = {"klub=P": "klub=1", "gits=G": "gits=1", "teacher=K": "teacher=2"}


@pytest.mark.parametrize("family", FAMILIES)
def test_data_of_a_point_which_every_table_solves(family: str) -> None:
    """And which a jump by its Gaussian, of no width, solves as well."""
    for long, short in WRITTEN.items():
        family = family.replace(long, short)
    process = PROCESSES["vp"]
    denoiser = GaussianDenoiser(process, POINT, torch.zeros(6, dtype=torch.float64))
    noises = [randn(16, 6, seed=seed) for seed in (1, 2)]
    tune, select = (teach(denoiser, noise, grid=fine_grid(process, 60)) for noise in noises)
    kind, _ = parse_family(family)
    fit = diagonal_fit(torch.zeros(6, dtype=torch.float64), POINT)
    landings = Landings(fit, (3.0,)) if kind in TIED and kind != "grid" else None
    task = Task(
        denoiser, 4, family, tune, select, noises[0],
        Settings(starts=1, steps=0 if kind == "least-squares" else 3), landings,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gains nothing")
        tuned = tune_family(task)
    assert not tuned.improved
    assert tuned.plan == tuned.start
    assert tuned.select == tuned.select_before


@pytest.mark.parametrize("name", PROCESSES)
def test_gaussian_data_behind_an_exact_jump_to_the_end(name: str) -> None:
    """Without network calls of consequence the jump solves it; what is tuned behind stays put."""
    process = PROCESSES[name]
    stds = torch.linspace(0.3, 1.2, 6, dtype=torch.float64)
    denoiser, fit = GaussianDenoiser(process, POINT, stds), diagonal_fit(stds, POINT)
    landing = 1.001 * process.rho_min
    table = flatten(warm_plan("dpmpp", process, 2, landing, 0), process)
    goals = []
    for seed in (1, 2):
        noise = randn(32, 6, seed=seed)
        pairs = Pairs.landed(teach(denoiser, noise, grid=3), fit, landing)
        x = process.start_scale * noise
        first = level_of(process, process.rho_max)
        end = fit.jump(x, first, level_of(process, 0.0))
        goals.append(Objective(Pairs(pairs.start, end)))
    before = goals[1].loss(goals[1].squares(Calls(denoiser), table))
    # Of second order in the last level, which is at most 0.01.
    assert before < 3 * process.rho_min**2 + 1e-12
    found = polish(Calls(denoiser), Family(table), table, *goals)
    assert found.select <= before
