"""What minority guidance asks of the models: scores, ordinal classes, a classifier."""

import pytest
import torch
from bundled_files import present
from torch import Tensor, nn

from fewstep.models import (
    EDMClassifier,
    GaussianDenoiser,
    MixtureDenoiser,
    bundled_minority_classifier,
    level_at,
    minority_score,
    ordinal_classes,
)
from fewstep.models.data import load_fashion, to_signed
from fewstep.models.fashion import NULL_CLASS
from fewstep.models.minority import expected_class
from fewstep.models.rarity import RarityClassifier
from fewstep.models.training.train_minority import (
    SCORE_RHO,
    bundled_scores,
    rank_correlation,
)
from fewstep.schedules import VE, discrete_vp
from fewstep.types import Level

VP = discrete_vp("linear")


needs_data = pytest.mark.skipif(not present("data"), reason="no Fashion-MNIST")
needs_minority = pytest.mark.skipif(not present("minority"), reason="no weights; train_minority")


@pytest.fixture(scope="module")
def some_test_images() -> tuple[Tensor, Tensor]:
    """Fifty uint8 test images of each class, and the classes."""
    images, labels = load_fashion("test")
    chosen = torch.cat([(labels == c).nonzero().flatten()[:50] for c in range(10)])
    return images[chosen], labels[chosen]


# The score


@pytest.mark.parametrize("process", [VP, VE()], ids=lambda p: type(p).__name__)
def test_score_of_gaussian_data(process) -> None:
    """With v = alpha^2 s^2 + sigma^2: (sigma^2 / v)^2 (x0 - mu)^2 + (alpha s^2 sigma / v)^2."""
    mean, std, level = 0.3, 0.5, level_at(process, 1.3)
    denoiser = GaussianDenoiser(process, mean, std)
    offsets = torch.tensor([0.0, 0.4, -1.5], dtype=torch.float64)[:, None]
    got = minority_score(denoiser, mean + offsets.expand(3, 20_000), level, draws=5, clip=None)
    v = (level.alpha * std) ** 2 + level.sigma**2
    gain = level.alpha * std**2 / v
    want = (level.sigma**2 / v) ** 2 * offsets[:, 0] ** 2 + (gain * level.sigma) ** 2
    # 100,000 draws a row: the standard error is below 0.7 % of the greatest score here.
    torch.testing.assert_close(got, want, rtol=0.02, atol=0)


def test_score_is_independent_of_the_batch() -> None:
    x0 = torch.randn(13, 2, 3, generator=torch.Generator().manual_seed(0))
    cond, level = torch.arange(13) % 3, level_at(VP, 0.8)
    means = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(1))
    denoiser = MixtureDenoiser(VP, means, 0.4, labels=torch.arange(3))
    whole = minority_score(denoiser, x0, level, cond=cond)
    parts = minority_score(denoiser, x0, level, cond=cond, batch=3)
    # The mixture's matrix products round by batch size, in float64.
    torch.testing.assert_close(whole, parts, rtol=1e-6, atol=0)
    start = minority_score(denoiser, x0[:4], level, cond=cond[:4])
    torch.testing.assert_close(start, whole[:4], rtol=1e-6, atol=0)
    assert (minority_score(denoiser, x0, level, cond=cond, seed=1) != whole).all()
    assert (minority_score(denoiser, x0, level) != whole).any()
    same = minority_score(denoiser, x0[:1].expand(4, 2, 3), level)
    assert len(same.unique()) == 4  # each row has its own noise


def test_draws_are_averaged_and_distances_are_called() -> None:
    denoiser, x0 = GaussianDenoiser(VP, 0.0, 1.0), torch.linspace(-1, 1, 5)[:, None]
    calls: list[Tensor] = []

    def distance(a: Tensor, b: Tensor) -> Tensor:
        assert a.shape == b.shape == (5, 1)
        assert b.abs().max() <= 0.1
        calls.append(b)
        return torch.arange(5.0)

    got = minority_score(denoiser, x0, level_at(VP, 2.0), draws=3, distance=distance, clip=0.1)
    torch.testing.assert_close(got, torch.arange(5.0, dtype=torch.float64))
    assert len(calls) == 3
    assert not torch.equal(calls[0], calls[1])


def test_the_rare_mode_scores_high() -> None:
    """Where noise hides the modes, the prediction is drawn to the common ones."""
    means = torch.tensor([[-1.0], [1.0], [4.0]], dtype=torch.float64)
    denoiser = MixtureDenoiser(VE(), means, 0.2, torch.tensor([0.475, 0.475, 0.05]))
    score = minority_score(denoiser, means, level_at(VE(), 3.0), draws=200, clip=None)
    assert score[2] > 3 * score[:2].max()


def test_refusals_of_the_score() -> None:
    denoiser, x0, level = GaussianDenoiser(VP, 0.0, 1.0), torch.zeros(3, 2), level_at(VP, 1.0)
    with pytest.raises(ValueError, match="draws and batch must be >= 1, got 0 and 256"):
        minority_score(denoiser, x0, level, draws=0)
    with pytest.raises(ValueError, match="cond has 2 rows for 3 samples"):
        minority_score(denoiser, x0, level, cond=torch.zeros(2, dtype=torch.long))


# The ordinal classes


@pytest.mark.parametrize("bins", [2, 7, 10])
def test_classes_have_equal_mass_within_each_label(bins: int) -> None:
    generator = torch.Generator().manual_seed(bins)
    labels = torch.randint(3, (200,), generator=generator)
    scores = torch.randn(200, generator=generator) + 10 * labels
    classes = ordinal_classes(scores, bins, labels)
    for label in range(3):
        own, values = classes[labels == label], scores[labels == label]
        counts = own.bincount(minlength=bins)
        assert counts.max() - counts.min() <= 1
        assert (own[values.argsort()].diff() >= 0).all()
    over_all = ordinal_classes(scores, bins)
    assert (over_all[scores.argsort()].diff() >= 0).all()
    assert over_all.unique().tolist() == list(range(bins))
    assert over_all.dtype == classes.dtype == torch.int64


def test_refusals_of_the_classes() -> None:
    scores, labels = torch.arange(10.0), torch.arange(10) // 5
    with pytest.raises(ValueError, match=r"100 bins need as many samples, got 10$"):
        ordinal_classes(scores)
    with pytest.raises(ValueError, match="6 bins need as many samples, got 5 in class 0"):
        ordinal_classes(scores, 6, labels)
    with pytest.raises(ValueError, match="2 bins need as many samples, got 0"):
        ordinal_classes(torch.zeros(0), 2)
    with pytest.raises(ValueError, match="finite, got 1 NaN or infinite of 10"):
        ordinal_classes(scores.index_fill(0, torch.tensor([3]), torch.nan), 2)
    with pytest.raises(ValueError, match="bins must be >= 2, got 1"):
        ordinal_classes(scores, 1)
    with pytest.raises(ValueError, match=r"got \(10,\) and \(9,\)"):
        ordinal_classes(scores, 2, labels[:9])


# The classifier


def small_classifier() -> EDMClassifier:
    torch.manual_seed(0)
    net = RarityClassifier(12, outer=8, inner=16, depth=1, embed=16)
    for parameter in net.parameters():  # some start at zero
        nn.init.normal_(parameter, std=0.1)
    return EDMClassifier(net.eval())


def test_classifier_on_every_process() -> None:
    classifier, labels = small_classifier(), torch.tensor([0, 9, NULL_CLASS])
    x0 = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    vp, ve = level_at(VP, 0.7), level_at(VE(), 0.7)
    on_vp, on_ve = classifier(vp.alpha * x0, vp, labels), classifier(x0, ve, labels)
    assert on_vp.shape == (3, classifier.num_classes) == (3, 12)
    assert classifier.takes_time
    torch.testing.assert_close(on_vp, on_ve, rtol=1e-4, atol=1e-5)  # float32
    torch.testing.assert_close(classifier(x0, ve)[2], on_ve[2])  # None is "unknown"
    assert classifier(x0.double(), ve).dtype == torch.float64
    with pytest.raises(ValueError, match="no noise level for alpha = 0"):
        classifier(x0, Level(999.0, 0.0, 1.0))


def test_gradient_is_that_of_the_logits() -> None:
    """Against a central difference: nothing in the network is cut off or only one-sided."""
    classifier, level = small_classifier(), level_at(VP, 1.0)
    classifier.net.double()
    generator = torch.Generator().manual_seed(2)
    x, step = torch.randn(2, 2, 1, 28, 28, generator=generator, dtype=torch.float64)
    x.requires_grad_(True)
    (gradient,) = torch.autograd.grad(classifier(x, level).log_softmax(1)[:, -1].sum(), x)
    h = 1e-5
    with torch.no_grad():
        ahead, behind = (classifier(x + s * h * step, level) for s in (1, -1))
        slope = (ahead.log_softmax(1) - behind.log_softmax(1))[:, -1].sum() / (2 * h)
    torch.testing.assert_close((gradient * step).sum(), slope, rtol=1e-6, atol=1e-9)


@needs_minority
def test_bundled_classifier_has_finite_gradients() -> None:
    classifier, labels = bundled_minority_classifier(), torch.tensor([7, 8])
    assert classifier.num_classes == 100
    assert not any(p.requires_grad for p in classifier.net.parameters())
    for rho in (0.002, 0.5, 80.0):
        x = rho * torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        x.requires_grad_(True)
        log_p = classifier(x, level_at(VE(), rho), labels).log_softmax(dim=1)
        (gradient,) = torch.autograd.grad(log_p[:, 99].sum(), x)
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


@needs_minority
@needs_data
def test_bundled_classifier_knows_the_score(some_test_images: tuple[Tensor, Tensor]) -> None:
    images, labels = some_test_images
    scores = bundled_scores(images, labels, rho=SCORE_RHO, draws=2, seed=1)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = bundled_minority_classifier()(
            to_signed(images) + 0.1 * noise, level_at(VE(), 0.1), labels
        )
    expected = expected_class(logits)
    within = [rank_correlation(expected[labels == c], scores[labels == c]) for c in range(10)]
    assert sum(within) / 10 > 0.5
