"""Scores against data in closed form: the moments are those of draws, and solvers are ranked."""

import pytest
import torch
from gaussians import randn

from fewstep import sample
from fewstep.eval.metrics.exact import exact_draws, exact_moments, exact_scores
from fewstep.eval.problems import Problem, load_problem
from fewstep.models.exact import GaussianDenoiser, MixtureDenoiser
from fewstep.schedules import discrete_vp

PROCESS = discrete_vp("linear")
SHAPE = (2, 3)
MIXTURE = MixtureDenoiser(
    PROCESS, randn(4, *SHAPE, seed=0), torch.tensor([0.1, 0.5, 1.0, 0.0]),
    torch.tensor([0.1, 0.2, 0.3, 0.4]), labels=torch.tensor([0, 1, 1, 2]),
)  # fmt: skip
GAUSSIAN = GaussianDenoiser(PROCESS, torch.tensor([1.0, -2.0, 0.5]), torch.tensor([[0.2], [1.5]]))
CLASSES = Problem("classes", MIXTURE, SHAPE, "classes-1", num_classes=3)


@pytest.mark.parametrize(
    ("denoiser", "shares"),
    [(GAUSSIAN, None), *((MIXTURE, shares) for shares in (None, (0, 0, 1), (1, 2, 2), (0, 3)))],
)
def test_moments_are_those_of_draws(
    denoiser: MixtureDenoiser | GaussianDenoiser, shares: tuple[int, ...] | None
) -> None:
    """Of classes in any shares; 3 is "any class"."""
    n = 60_000
    labels = None if shares is None else torch.tensor(shares).repeat(n // len(shares))
    rows = exact_draws(denoiser, SHAPE, n, labels).flatten(1)
    mean, covariance = exact_moments(denoiser, SHAPE, labels)
    # 5 standard errors, with entries of size 1 to 2.
    torch.testing.assert_close(rows.mean(0), mean, rtol=0, atol=5 * 1.6 / n**0.5)
    torch.testing.assert_close(rows.T.cov(), covariance, rtol=0, atol=5 * 3.5 / n**0.5)


def test_classes_in_fixed_shares_have_the_parts_moments() -> None:
    """One component each: a mixture of two Gaussians, by hand."""
    mean, covariance = exact_moments(MIXTURE, SHAPE, torch.tensor([0, 2, 2, 2]))
    first, second = MIXTURE.means[0], MIXTURE.means[3]
    expected = (first + 3 * second) / 4
    between = torch.outer(first - second, first - second) * 3 / 16
    torch.testing.assert_close(mean, expected)
    torch.testing.assert_close(covariance, between + 0.25 * 0.1**2 * torch.eye(6).double())


def test_draws_are_of_their_classes_and_seeded() -> None:
    labels = torch.tensor([2, 0]).repeat(700)
    rows = exact_draws(MIXTURE, SHAPE, 1400, labels)
    assert torch.equal(rows, exact_draws(MIXTURE, SHAPE, 1400, labels))
    assert not torch.equal(rows, exact_draws(MIXTURE, SHAPE, 1400, labels, seed=1))
    # Class 2 is a point mass.
    torch.testing.assert_close(rows[::2].flatten(1), MIXTURE.means[3].expand(700, 6))


def test_exact_draws_score_as_little_as_the_count_allows() -> None:
    problem, n = load_problem("mix8"), 1000
    perfect = exact_scores(problem, exact_draws(problem.denoiser, problem.shape, n, seed=7))
    shifted = exact_scores(problem, exact_draws(problem.denoiser, problem.shape, n, seed=7) + 0.5)
    assert perfect["w2_gauss"] < 0.25  # 0.1 to 0.16 of 2,000 draws, and as 1/sqrt(n)
    # The means are 0.5 sqrt(8) apart.
    assert shifted["w2_gauss"] == pytest.approx(0.5 * 8**0.5, rel=0.1)
    assert shifted["sw2"] == pytest.approx(0.5, rel=0.15)  # of 1,000 draws
    assert abs(perfect["mmd2"]) < 1e-3 < shifted["mmd2"]


def test_mmd_is_unbiased() -> None:
    problem = load_problem("ring2")
    found = torch.tensor(
        [
            exact_scores(problem, exact_draws(problem.denoiser, (2,), 100, seed=100 + i), seed=i)[
                "mmd2"
            ]
            for i in range(40)
        ]
    )
    assert abs(float(found.mean())) < 3 * float(found.std()) / 40**0.5  # three standard errors


@pytest.mark.parametrize("nfe", [8, 10])
def test_heun_beats_euler_at_equal_calls(nfe: int) -> None:
    """Euler scores 1.5 times as high, without network or files: row 15 of fid_harness.md."""
    problem, n = load_problem("mix8"), 4000
    found = {
        spec: exact_scores(
            problem,
            sample(
                problem.denoiser, spec, nfe, shape=(n, *problem.shape), seeds=range(n),
                dtype=torch.float64,
            ),
        )
        for spec in ("euler", "heun")
    }  # fmt: skip
    # Measured over three sets of seeds: 1.8 to 2.1 times for the distances, 6.5 to 9.5 for the MMD.
    for metric, margin in (("w2_gauss", 1.5), ("sw2", 1.5), ("mmd2", 4)):
        assert found["euler"][metric] > margin * found["heun"][metric]


def test_classes_are_the_problems_by_default() -> None:
    x = exact_draws(MIXTURE, SHAPE, 60, CLASSES.labels(60), seed=3)
    assert exact_scores(CLASSES, x) == exact_scores(CLASSES, x, CLASSES.labels(60))
    assert exact_scores(CLASSES, x) != exact_scores(CLASSES, x, torch.full((60,), 3))


def test_what_does_not_apply_is_left_out() -> None:
    x = randn(10, *SHAPE, seed=0)
    assert exact_scores(Problem("own", lambda *_: x, SHAPE, "own-1"), x) == {}  # type: ignore[arg-type]
    x[3, 1, 2] = torch.inf
    assert exact_scores(CLASSES, x) == {}
    with pytest.raises(ValueError, match=r"samples of classes must be \(n, 2, 3\), got \(10, 3\)"):
        exact_scores(CLASSES, x[:, 0])
