"""Tuning on a CUDA device finds what it finds on the CPU."""

import numpy as np
import pytest
import torch

from fewstep.eval.problems import load_problem
from fewstep.samplers.gaussian.fit import fit_gaussian
from fewstep.samplers.tuning.flatten import flatten
from fewstep.samplers.tuning.optimise import Settings, tune_tied
from fewstep.samplers.tuning.scan import Landings
from fewstep.samplers.tuning.teacher import fine_grid, teach

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("landed", [False, True])
def test_same_table_as_on_the_cpu(landed: bool) -> None:
    tables = []
    for device in ("cpu", "cuda"):
        problem = load_problem("ring2", device)
        grid = fine_grid(problem.process, 64, least=1e-3)
        tune, select = (
            teach(problem.denoiser, problem.initial_noise(64, seed, torch.float64), grid=grid)
            for seed in (1, 2)
        )
        assert tune.end.device.type == device
        landings = Landings.of(fit_gaussian(tune.end.cpu())) if landed else None
        settings = Settings(starts=1, steps=4)
        tuned = tune_tied(problem.denoiser, 4, tune, select, settings, landings=landings)
        assert tuned.improved
        tables.append(flatten(tuned.plan, problem.process))
    # Four steps of Levenberg-Marquardt from Jacobians by differences, which keep 9 digits.
    np.testing.assert_allclose(tables[1].rho, tables[0].rho, rtol=1e-5)
    np.testing.assert_allclose(tables[1].weights(), tables[0].weights(), atol=1e-4)
