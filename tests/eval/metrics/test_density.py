"""Density measures: against plain definitions, their invariances, and what judges make of them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fewstep.eval.metrics import neighbours
from fewstep.eval.metrics.density import DensityJudge, FashionJudge, fashion_judge
from fewstep.eval.metrics.judge import Judge
from fewstep.eval.metrics.neighbours import average_knn, local_outlier_factor, rarity_score
from fewstep.models.data import fashion_folder, load_fashion, to_signed

MEASURES = (average_knn, local_outlier_factor, rarity_score)
Measure = Callable[..., Tensor]


def have_fashion() -> bool:
    try:
        fashion_folder(download=False)
        Judge()
    except FileNotFoundError:
        return False
    return True


needs_fashion = pytest.mark.skipif(not have_fashion(), reason="no Fashion-MNIST or no classifier")


def points(n: int, dim: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=generator, dtype=torch.float64)


def mixture(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """The notes' 47.5/47.5/5 % mixture in the plane: points and modes, of which 2 is rare."""
    generator = torch.Generator().manual_seed(seed)
    mode = torch.multinomial(torch.tensor([0.475, 0.475, 0.05]), n, True, generator=generator)
    centres = torch.tensor([[-2.0, 0.0], [2.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    return centres[mode] + 0.5 * points(n, 2, seed + 1), mode


def by_definition(x: np.ndarray, real: np.ndarray, k: int) -> tuple[np.ndarray, ...]:
    """AvgkNN, LOF and rarity, sample by sample, as the papers write them."""

    def near(point: np.ndarray, skip: int | None = None) -> list[tuple[float, int]]:
        found = [(float(np.linalg.norm(point - p)), i) for i, p in enumerate(real) if i != skip]
        return sorted(found)[:k]

    radius = [near(p, i)[-1][0] for i, p in enumerate(real)]

    def lrd(neighbours: list[tuple[float, int]]) -> float:
        return 1 / float(np.mean([max(d, radius[i]) for d, i in neighbours]))

    densities = [lrd(near(p, i)) for i, p in enumerate(real)]
    average, factor, rarity = [], [], []
    for point in x:
        found = near(point)
        average.append(np.mean([d for d, _ in found]))
        factor.append(np.mean([densities[i] for _, i in found]) / lrd(found))
        distances = np.linalg.norm(real - point, axis=1)
        balls = [r for r, d in zip(radius, distances, strict=True) if d < r]
        rarity.append(min(balls, default=np.nan))
    return np.array(average), np.array(factor), np.array(rarity)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_measures_are_their_definitions(k: int) -> None:
    real, x = points(60), 1.5 * points(40, seed=1)
    expected = by_definition(x.numpy(), real.numpy(), k)
    assert np.isnan(expected[2]).any()  # some samples are in no ball: those are compared too
    for measure, values in zip(MEASURES, expected, strict=True):
        # float64 sums of a few terms; LOF also has scikit-learn's 1e-10 in its densities.
        np.testing.assert_allclose(measure(x, real, k).numpy(), values, rtol=1e-9)


def test_factor_is_scikit_learns() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    real, x = points(300, 8), 2 * points(100, 8, seed=1)
    theirs = neighbors.LocalOutlierFactor(20, novelty=True).fit(real.numpy())
    ours = local_outlier_factor(x, real).numpy()
    np.testing.assert_allclose(ours, -theirs.score_samples(x.numpy()), rtol=1e-9)


@pytest.mark.parametrize("measure", MEASURES)
def test_moving_turning_and_scaling(measure: Measure) -> None:
    real, x = points(200), points(50, seed=1)
    turn = torch.linalg.qr(points(3, seed=2)).Q
    before = measure(x, real)
    moved = measure(x @ turn + 40, real @ turn + 40)
    torch.testing.assert_close(moved, before, rtol=1e-9, atol=0, equal_nan=True)
    factor = 1 if measure is local_outlier_factor else 3  # a ratio of densities has no unit
    scaled = measure(3 * x, 3 * real)
    torch.testing.assert_close(scaled, factor * before, rtol=1e-9, atol=0, equal_nan=True)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("tile", [1, 700])
def test_tiles_and_batches_change_nothing(
    measure: Measure, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, x = points(100), points(30, seed=1)
    whole = measure(x, real)
    monkeypatch.setattr(neighbours, "TILE", tile)
    # Products of other shapes round differently in the last bit.
    torch.testing.assert_close(measure(x, real), whole, rtol=1e-12, atol=0, equal_nan=True)
    parts = torch.cat([measure(part, real) for part in x.split(7)])
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0, equal_nan=True)


def test_single_precision_far_from_the_origin() -> None:
    real, x = (points(n, seed=n).float() + 1000 for n in (200, 50))
    # Distances from differences of these very float32 numbers, so rounding is 1e-7 relative;
    # |x|^2 + |p|^2 - 2xp, without the centre taken off first, has errors of 0.1 and more.
    exact = torch.cdist(x.double(), real.double()).sort().values[:, :5].mean(1)
    torch.testing.assert_close(average_knn(x, real).double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("measure", MEASURES)
def test_the_rare_mode_scores_higher(measure: Measure) -> None:
    real, _ = mixture(2000, 0)
    x, mode = mixture(2000, 10)
    score = measure(x, real)
    rare, common = (score[chosen].nanmean() for chosen in (mode == 2, mode != 2))
    # Ratios 3.0, 1.10 and 2.7 here: LOF is local and hardly sees the density of a whole mode.
    assert rare > (1.02 if measure is local_outlier_factor else 1.5) * common


def test_samples_in_no_ball_are_told_apart() -> None:
    real = points(200)
    score = rarity_score(torch.cat([real[:5] + 1e-6, real[:5] + 100]), real)
    assert score[:5].isfinite().all()
    assert score[5:].isnan().all()


def test_other_real_samples_are_judged_as_real() -> None:
    judge = DensityJudge(points(4000), points(4000, seed=1))
    found = judge.judge(points(4000, seed=2))
    # Binomial errors of two samples of 4,000: 0.0067 at 0.1, 0.0007 at 0.001; four of them here.
    assert found["below_10"] == pytest.approx(0.1, abs=0.027)
    assert found["off"] <= 0.004
    assert found["low"] == pytest.approx(found["below_10"] - found["off"])
    assert found["no_ball"] == pytest.approx(found["no_ball_held_out"], abs=0.03)
    for name in ("avgknn", "lof", "rarity"):
        assert found[name] == pytest.approx(1, abs=0.03)


def test_far_noise_is_off_and_not_low() -> None:
    judge = DensityJudge(points(500), points(500, seed=1))
    found = judge.judge(torch.rand(100, 3, dtype=torch.float64) + 50)
    assert (found["off"], found["low"], found["below_10"], found["no_ball"]) == (1, 0, 1, 1)
    assert found["avgknn"] > 10
    assert np.isnan(found["rarity"])


def test_what_is_not_finite_is_off_and_out_of_the_means() -> None:
    judge = DensityJudge(points(500), points(500, seed=1))
    good = points(90, seed=2)
    bad = torch.full((10, 3), torch.nan, dtype=torch.float64)
    bad[:5] = torch.inf
    found, alone = judge.judge(torch.cat([good, bad])), judge.judge(good)
    assert found["off"] == pytest.approx(0.1 + 0.9 * alone["off"])
    for name in ("avgknn", "lof", "rarity"):
        assert found[name] == pytest.approx(alone[name])


def test_classes_are_judged_by_their_own_thresholds() -> None:
    labels = torch.arange(1000) % 2
    scale = torch.where(labels == 0, 1.0, 10.0)[:, None].double()  # class 1 is ten times as wide
    judge = DensityJudge(points(1000) * scale, points(1000, seed=1) * scale, labels, labels)
    x = points(1000, seed=2) * scale
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    marks = judge.marks(x, labels)
    assert torch.equal(judge.marks(x[order], labels[order]), marks[order])
    for c in (0, 1):
        assert float(marks[labels == c, 0].double().mean()) == pytest.approx(0.1, abs=0.06)
    swapped = judge.judge(x, 1 - labels)
    assert swapped["off"] > 0.3  # half of the samples are far too wide for the class asked for
    with pytest.raises(ValueError, match=r"labels among \[0, 1\], got \[7\]"):
        judge.judge(x[:1], torch.tensor([7]))
    with pytest.raises(ValueError, match="1000 samples need as many labels"):
        judge.judge(x, labels[:3])


def test_what_does_not_fit_is_refused() -> None:
    real = points(10)
    with pytest.raises(ValueError, match=r"k must be 1 to 10 for 10 real samples, got 11"):
        average_knn(real, real, 11)
    with pytest.raises(ValueError, match="k must be 1 to 9"):
        rarity_score(real, real, 10)
    with pytest.raises(ValueError, match=r"same d .* got \(10, 2\) and \(10, 3\)"):
        average_knn(real[:, :2], real)
    with pytest.raises(ValueError, match="finite"):
        average_knn(real, real / 0)
    with pytest.raises(ValueError, match="same classes"):
        DensityJudge(real, real, torch.zeros(10), torch.ones(10))


@pytest.fixture(scope="module")
def half_judge(tmp_path_factory: pytest.TempPathFactory) -> FashionJudge:
    """A tenth of the training images, with the even test images held out; leaves nothing behind."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSTEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        train, test = load_fashion("train"), load_fashion("test")
        return FashionJudge((train[0][:6000], train[1][:6000]), (test[0][::2], test[1][::2]))


@needs_fashion
@pytest.mark.slow
def test_other_half_of_the_test_images(half_judge: FashionJudge) -> None:
    images, labels = load_fashion("test")
    found = half_judge.judge(to_signed(images[1::2]), labels[1::2])
    # Thresholds from 500 images a class, 5,000 in all: twice the binomial errors 0.0042 + 0.0042.
    assert found["below_10"] == pytest.approx(0.1, abs=0.017)
    assert found["off"] <= 0.01  # 0.003 expected: the quantile is between the two largest of 500
    assert found["off_pixels"] <= 0.01
    assert found["off_either"] <= found["off"] + found["off_pixels"]
    assert found["low_both"] <= found["low"]


@needs_fashion
@pytest.mark.slow
def test_noise_is_no_image(half_judge: FashionJudge) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(200, 1, 28, 28, generator=generator) * 2 - 1
    found = half_judge.judge(noise, torch.arange(200) % 10)
    assert found["off_either"] > 0.9
    assert found["off_pixels"] > 0.9
    assert found["low_both"] < 0.1
    # Diverged samples are off as well, also where the classifier is asked for the class.
    assert half_judge.judge(torch.full((4, 1, 28, 28), torch.nan))["off_either"] == 1


def test_missing_data_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(split: str) -> tuple[Tensor, Tensor]:
        raise FileNotFoundError("Fashion-MNIST is not here")

    monkeypatch.setattr("fewstep.eval.metrics.density.load_fashion", absent)
    fashion_judge.cache_clear()
    with pytest.raises(FileNotFoundError, match="Fashion-MNIST"):
        fashion_judge()
