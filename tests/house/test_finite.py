"""No factorisation sees numbers that are not finite: what it makes of them differs by machine."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from fewstep.finite import finite
from fewstep.models.exact import GaussianDenoiser
from fewstep.samplers import build_plan
from fewstep.samplers.gaussian.fit import fit_gaussian
from fewstep.samplers.solvers.cascade import CascadePolynomial
from fewstep.samplers.tuning.flatten import flatten
from fewstep.samplers.tuning.least_squares import least_squares
from fewstep.samplers.tuning.teacher import fine_grid, teach
from fewstep.schedules import discrete_vp

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [p for name in ("samplers", "eval", "models", "guidance", "schedules")
           for p in sorted((ROOT / name).rglob("*.py"))]  # fmt: skip
FACTORISATION = re.compile(
    r"linalg\.(?!norm|vector_norm)\w+\((?P<inside>[^\n]*(?:\n[^\n]*)?)", re.MULTILINE
)
# Those that look before in their own way, and why that is enough.
LOOKS_BEFORE = {
    "eval/metrics/cholesky.py": "`factorise` looks, and hands on what it looked at",
    "eval/metrics/frechet.py": "covariances that were looked at, in their own units",
    "samplers/tuning/polish.py": "`_step` ends the descent at a matrix that is not finite",
}


@pytest.mark.parametrize("dtype", ["tensor", "array"])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_one_entry_is_enough(dtype: str, bad: float) -> None:
    numbers = np.full((3, 4), 1e308)  # their sum is infinite, and they are not
    numbers = torch.from_numpy(numbers) if dtype == "tensor" else numbers
    assert finite(numbers, "no") is numbers
    numbers[1, 2] = bad
    with pytest.raises(ValueError, match="these numbers are no good"):
        finite(numbers, "these numbers are no good")
    numbers[0] = -bad  # whose sum with it is nan
    with pytest.raises(ValueError, match="no good"):
        finite(numbers, "no good")


def test_every_factorisation_is_of_numbers_that_were_looked_at() -> None:
    blind = {}
    for path in SOURCES:
        calls = [m.group() for m in FACTORISATION.finditer(path.read_text())]
        blind[path.relative_to(ROOT).as_posix()] = [c for c in calls if "finite(" not in c]
    assert {name for name, calls in blind.items() if calls} <= LOOKS_BEFORE.keys()


def test_samples_whose_squares_are_too_large_have_no_gaussian() -> None:
    for rank, shape in ((None, (4, 3)), (2, (4, 3000))):  # decomposed as a whole, and in part
        with pytest.raises(ValueError, match=r"squares of samples .* scale them down"):
            fit_gaussian(torch.randn(*shape, dtype=torch.float64) * 1e200, rank=rank)


def test_coefficients_are_not_fitted_to_predictions_that_are_not_finite() -> None:
    process = discrete_vp("linear")
    noise = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table = flatten(build_plan("unipc", process, 4), process)
    good = GaussianDenoiser(process, 0.0, 1.0)
    teacher = teach(good, noise, grid=fine_grid(process, 20))
    for bad in (np.nan, 1e200):
        with pytest.raises(ValueError, match="not finite, so no coefficients can be fitted"):
            least_squares(GaussianDenoiser(process, bad, 1.0), table, teacher)


def test_a_cascade_is_not_fitted_to_a_scale_without_bound() -> None:
    with pytest.raises(ValueError, match="guidance scales of the searches must be finite"):
        CascadePolynomial.fit([(4, np.inf, [1.0, 1.0, 0.9, 1.1])])
