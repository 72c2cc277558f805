"""Tuning against a teacher's end in features, and where features come from."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fewstep.eval.metrics.judge import Judge
from fewstep.eval.problems import load_problem
from fewstep.eval.tune.feature_space import load_features, objective_space
from fewstep.models.exact import MixtureDenoiser
from fewstep.samplers import build_plan
from fewstep.samplers.tuning.family import Family
from fewstep.samplers.tuning.feature_objective import FeatureSpace, feature_scale
from fewstep.samplers.tuning.flatten import flatten
from fewstep.samplers.tuning.objective import Objective, floor_of
from fewstep.samplers.tuning.pairs import Pairs
from fewstep.samplers.tuning.polish import polish
from fewstep.samplers.tuning.rollout import Calls, run_table
from fewstep.samplers.tuning.teacher import fine_grid, teach
from fewstep.schedules import discrete_vp

PROCESS = discrete_vp("scaled_linear")
MATRIX = torch.tensor([[2.0, 0.7], [-0.4, 0.3]], dtype=torch.float64)
WIDE = torch.tensor([[1.0, 0.5], [-0.3, 2.0], [0.8, -1.1]], dtype=torch.float64)


def mixture() -> MixtureDenoiser:
    means = torch.tensor([[-1.3, 0.4], [0.2, -0.9], [0.9, 1.0]], dtype=torch.float64)
    return MixtureDenoiser(PROCESS, means, torch.tensor([0.5, 0.35, 0.6]))


def smooth(x: Tensor) -> Tensor:
    """Three features that bend."""
    return torch.tanh(x @ WIDE.to(x).T) + 0.1 * (x @ WIDE.to(x).T).square()


def pairs_of(denoiser: Any, n: int, seed: int) -> Pairs:
    noise = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Pairs.of(teach(denoiser, noise, grid=fine_grid(PROCESS, 80, 1e-3)))


class Mapped:
    """The model of y = M x."""

    def __init__(self, denoiser: Any) -> None:
        self.denoiser, self.process = denoiser, denoiser.process

    def __call__(self, y: Tensor, level: Any, cond: Any = None) -> Tensor:
        return self.denoiser(y @ MATRIX.inverse().T, level, cond) @ MATRIX.T


def test_linear_features_are_a_weighted_sample_objective() -> None:
    """A table commutes with linear maps: features M x of x are the samples of the model of M x."""
    table = flatten(build_plan("unipc", PROCESS, 4), PROCESS)
    family, found = Family(table), []
    for mapped in (False, True):
        sets = [pairs_of(mixture(), 64, seed) for seed in (1, 2)]
        if mapped:
            denoiser: Any = Mapped(mixture())
            sets = [replace(p, start=p.start @ MATRIX.T, end=p.end @ MATRIX.T) for p in sets]
            goals = [Objective(p, 0.5, 1e-3) for p in sets]
        else:
            denoiser, space = mixture(), FeatureSpace(lambda x: x @ MATRIX.T)
            goals = [Objective(space.pairs(p), 0.5, 1e-3, space) for p in sets]
        found.append(polish(Calls(denoiser), family, table, *goals, steps=8))
    one, other = found
    assert one.select < 0.7 * one.history[0].select
    # Derivatives are differences with steps of 5e-7, along other lengths in the two runs.
    assert one.select == pytest.approx(other.select, rel=1e-4)
    np.testing.assert_allclose(one.table.rho, other.table.rho, rtol=1e-3)
    np.testing.assert_allclose(one.table.weights(), other.table.weights(), atol=1e-2)


def test_errors_are_the_weighted_means() -> None:
    generator = torch.Generator().manual_seed(0)
    x, goal = (torch.randn(5, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    e_x = (x - goal).square().mean(1)
    e_f = (smooth(x) - smooth(goal)).square().mean(1)
    for weight, scale in ((0.3, 2.0), (1.0, 0.5)):
        space = FeatureSpace(smooth, weight, scale, batch=2)
        error = (space.lift(x) - space.lift(goal)).square().mean(1)
        torch.testing.assert_close(error, (1 - weight) * e_x + weight * scale**2 * e_f)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("weight", [0.4, 1.0])
def test_columns_are_the_derivatives_of_autograd(dtype: torch.dtype, weight: float) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    tangents = torch.randn(4, 6, 2, generator=generator, dtype=torch.float64)
    tangents *= torch.tensor([1e-4, 1.0, 30.0, 0.0], dtype=torch.float64)[:, None, None]
    space = FeatureSpace(smooth, weight, 1.7, batch=4)
    made = space.columns(x.to(dtype), tangents.to(dtype))
    for column, tangent in zip(made, tangents, strict=True):
        _, expected = torch.autograd.functional.jvp(space.lift, x, tangent)
        # One-sided differences with steps of eps^0.4: 5e-7 of the sample, or 2e-3 in float32.
        tolerance = 1e-5 if dtype == torch.float64 else 2e-2
        assert (column - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("weight", [0.5, 1.0])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_gradient_is_that_of_the_loss(weight: float, power: float) -> None:
    denoiser, space = Calls(mixture()), FeatureSpace(smooth, weight, 1.3)
    family = Family(flatten(build_plan("unipc", PROCESS, 4), PROCESS))
    goal = Objective(space.pairs(pairs_of(mixture(), 24, 5)), power, 1e-3, space)
    vector = family.vector(family.base)
    _, gradient = goal.normal(denoiser, family, vector, batch=100)
    size = goal.pairs.end.shape[1]

    def total(v: np.ndarray) -> float:
        squares = goal.squares(denoiser, family.table(v)) + goal.floor
        return float(squares.pow(1 - power / 2).sum()) / (1 - power / 2)

    for k, step in enumerate(1e-5 * np.eye(family.size)):
        slope = (total(vector + step) - total(vector - step)) / 2e-5
        # e is a mean over ``size`` numbers; the gradient leaves out the factor 2 / size.
        assert slope == pytest.approx(2 / size * gradient[k], rel=1e-3, abs=1e-6)


def test_runs_that_are_not_finite_lose() -> None:
    space = FeatureSpace(smooth)
    pairs = space.pairs(pairs_of(mixture(), 4, 5))

    def broken(x: Tensor, level: Any, cond: Any) -> Tensor:
        return torch.full_like(x, math.nan)

    broken.process = PROCESS  # type: ignore[attr-defined]
    table = flatten(build_plan("unipc", PROCESS, 3), PROCESS)
    goal = Objective(pairs, space=space)
    assert goal.squares(Calls(broken), table).isinf().all()  # type: ignore[arg-type]


def test_scale_makes_both_errors_alike() -> None:
    goal = torch.randn(50, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    end = goal + 0.1 * goal.flip(0)
    end[3] = math.nan
    scale = feature_scale(smooth, end, goal)
    kept = [i for i in range(50) if i != 3]
    e_f = (smooth(end) - smooth(goal))[kept].square().mean()
    assert float(scale**2 * e_f) == pytest.approx(float((end - goal)[kept].square().mean()))
    with pytest.raises(ValueError, match=r"in features is 0\.0"):
        feature_scale(lambda x: x[:, :1] * 0, end, goal)


@pytest.fixture(scope="module")
def fashion() -> tuple[Any, list[Pairs]]:
    """The bundled model with 16 noises to tune on and 24 others."""
    problem, sets = load_problem("fashion"), []
    for seed, n in ((1, 16), (2, 24)):
        noise, classes = problem.initial_noise(n, seed), torch.arange(n) % 10
        sets.append(Pairs.of(teach(problem.denoiser, noise, classes, grid=20)))
    return problem, sets


@pytest.mark.parametrize("kind", ["features", "both"])
def test_features_of_the_bundled_model_come_nearer(fashion: Any, kind: Any) -> None:
    problem, (tune, others) = fashion
    features = load_features("fashion", problem)
    table = flatten(build_plan("unipc", problem.process, 4), problem.process)
    calls = Calls(problem.denoiser)
    space = objective_space(kind, features, run_table(calls, table, tune).end, tune.end)
    assert space is not None
    lifted = space.pairs(tune)
    squares = Objective(lifted, space=space).squares(calls, table)
    goal = Objective(lifted, 0.5, floor_of(squares), space)
    tuned = polish(calls, Family(table, "coefficients"), table, goal, goal, steps=2).table
    errors = []
    for one in (table, tuned):  # on noises by which nothing was chosen
        end = run_table(calls, one, others).end
        errors.append(float((features(end) - features(others.end)).square().mean().sqrt()))
    assert errors[1] < 0.9 * errors[0]  # measured: 0.72, and 0.83 with both


# Where features come from


def test_bundled_features_are_those_of_the_score() -> None:
    """On images that are whole numbers already, since the score rounds them."""
    problem = load_problem("fashion")
    features = load_features("fashion", problem)
    drawn = torch.randint(0, 256, (4, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    images = drawn / 127.5 - 1
    judged, _ = Judge()(images)
    # One convolution may add in another order than in the judge's parts of 64 images.
    torch.testing.assert_close(features(images), judged, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features(3 * images), features((3 * images).clamp(-1, 1)))


def test_features_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        "import torch\n"
        "def halves(images): return torch.stack([images[..., :14], images[..., 14:]], 1).mean(-1)\n"
        "def one(images): return images.mean()\n"
        "def broken(images): raise KeyError('no')\n"
        "number = 3\n"
    )
    problem, x = load_problem("fashion"), torch.randn(3, 1, 28, 28)
    assert load_features(f"{path}:halves", problem)(x).shape == (3, 2, 1, 28)
    with pytest.raises(ValueError, match="a row for each of 3 images"):
        load_features(f"{path}:one", problem)(x)
    with pytest.raises(ValueError, match="calling it failed with KeyError"):
        load_features(f"{path}:broken", problem)(x)
    for name in ("number", "missing"):
        with pytest.raises(ValueError, match="there is no function"):
            load_features(f"{path}:{name}", problem)
    assert load_features("torch.nn.functional:relu", problem)(x).min() == 0


def test_latents_are_decoded_first() -> None:
    problem = replace(load_problem("mix8"), decode=lambda x: x.float().view(-1, 2, 2, 2) * 2)
    x = torch.randn(3, 8, dtype=torch.float64)
    found = load_features("torch:abs", problem)(x)
    torch.testing.assert_close(found.flatten(1), 2 * x.float().abs())


def test_bad_objectives_are_refused() -> None:
    problem = load_problem("mix8")
    x, y = torch.zeros(2, 2), torch.ones(2, 2)
    cases = [
        (lambda: load_features("fashion", problem), "name a function of your own"),
        (lambda: load_features("lpips", problem), "unknown features 'lpips'"),
        (lambda: load_features("no_such_module:f", problem), "there is no module"),
        (lambda: FeatureSpace(smooth, 0.0), "weight of features"),
        (lambda: FeatureSpace(smooth, 1.5), "weight of features"),
        (lambda: FeatureSpace(smooth, scale=math.inf), "finite scale"),
        (lambda: FeatureSpace(lambda x: x[:1]).lift(x), "a row for each sample"),
        (lambda: objective_space("lpips", smooth, x, y), "must be one of sample"),  # type: ignore[arg-type]
        (lambda: objective_space("both", None, x, y), "'both' needs features"),
        (lambda: objective_space("sample", smooth, x, y), "takes no features"),
        (lambda: objective_space("both", smooth, x, y, 1.0), "between 0 and 1"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()
    assert objective_space("sample", None, x, y) is None
