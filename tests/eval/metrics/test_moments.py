"""Streaming statistics: the same bits for every order and batching, digits, memory, limits."""

import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fewstep.eval.metrics.frechet import frechet_distance
from fewstep.eval.metrics.moments import ExactMoments, Moments

KINDS: list[type[Moments] | type[ExactMoments]] = [Moments, ExactMoments]


def features(n: int, dim: int, seed: int = 0) -> Tensor:
    """Positive, correlated and skewed, as after a ReLU."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dim, dim, generator=generator) / dim**0.5
    return (torch.randn(n, dim, generator=generator) @ mix).relu()


def exact(*batches: Tensor, dim: int = 7) -> ExactMoments:
    moments = ExactMoments(dim)
    for batch in batches:
        moments.add(batch)
    return moments


def same_bits(first: ExactMoments, second: ExactMoments) -> bool:
    (mu, sigma, n), (mu2, sigma2, n2) = first.result(), second.result()
    return torch.equal(mu, mu2) and torch.equal(sigma, sigma2) and n == n2


@given(
    cuts=st.lists(st.integers(0, 400), max_size=8),
    seed=st.integers(0, 1000),
    split=st.integers(0, 400),
)
@settings(max_examples=30, deadline=None)
def test_exact_totals_ignore_batches_order_and_merges(
    cuts: list[int], seed: int, split: int
) -> None:
    rows = features(400, 7)
    whole = exact(rows)
    shuffled = rows[torch.randperm(400, generator=torch.Generator().manual_seed(seed))]
    batches = [shuffled[start:end] for start, end in pairwise([0, *sorted(cuts), 400])]
    assert same_bits(exact(*batches), whole)
    merged = exact(shuffled[split:])
    merged.merge(exact(shuffled[:split]))
    assert same_bits(merged, whole)


def test_exact_totals_over_several_slabs() -> None:
    rows = features(300, 600)
    whole, batched = exact(rows, dim=600), exact(*rows.flip(0).split(37), dim=600)
    assert same_bits(whole, batched)
    torch.testing.assert_close(whole.result()[1], rows.double().T.cov(), rtol=0, atol=1e-6)
    assert torch.equal(whole.result()[1], whole.result()[1].T)


@given(
    rows=st.lists(st.lists(st.integers(-(2**23), 2**23), min_size=3, max_size=3), min_size=2),
    repeats=st.sampled_from([1, 1000]),
)
@settings(max_examples=50, deadline=None)
def test_exact_result_is_the_fraction(rows: list[list[int]], repeats: int) -> None:
    """Against rational arithmetic, whatever the ratio of mean to deviation."""
    units = torch.tensor(rows, dtype=torch.float64).repeat(repeats, 1)
    mu, sigma, n = exact(units / 2**20, dim=3).result()
    for i in range(3):
        mean_i = Fraction(sum(row[i] for row in rows), len(rows))
        assert float(mu[i]) == pytest.approx(float(mean_i / 2**20), rel=4e-16, abs=0)
        for j in range(3):
            mean_j = Fraction(sum(row[j] for row in rows), len(rows))
            total = repeats * sum((row[i] - mean_i) * (row[j] - mean_j) for row in rows)
            expected = float(total / (n - 1) / 2**40)
            # Only r r' / n is subtracted in float64, of size n in units of 2^-40.
            assert float(sigma[i, j]) == pytest.approx(expected, rel=1e-15, abs=1e-15 * 2**-40)


@pytest.mark.parametrize("kind", KINDS)
def test_result_is_the_mean_and_covariance(kind: type[Moments] | type[ExactMoments]) -> None:
    # Multiples of 2^-10, so that the exact totals round nothing either.
    rows = (features(500, 9).double() * 1024).round() / 1024
    moments = kind(9)
    moments.add(rows[:1])
    moments.add(rows[1:].float().numpy())
    mu, sigma, n = moments.result()
    assert n == moments.n == 500
    torch.testing.assert_close(mu, rows.mean(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(sigma, rows.T.cov(), rtol=1e-12, atol=1e-14)
    assert torch.equal(sigma, sigma.T)


@pytest.mark.parametrize("kind", KINDS)
def test_states_add_and_resume(kind: type[Moments] | type[ExactMoments]) -> None:
    """What all_reduce with SUM does to the tensors of several ranks, or a checkpoint to one."""
    parts = [kind(7) for _ in range(3)]
    for part, rows in zip(parts, features(300, 7).split(100), strict=True):
        part.add(rows)
    states = [part.state() for part in parts]
    total = kind.from_state({name: sum(s[name] for s in states) for name in states[0]})  # type: ignore[misc]
    for other in parts[1:]:
        parts[0].merge(other)  # type: ignore[arg-type]
    assert total.n == 300
    torch.testing.assert_close(total.result()[1], parts[0].result()[1], rtol=1e-14, atol=0)
    before = total.state()
    total.state()["sums"].zero_()
    total.add(features(2, 7))
    resumed = kind.from_state(before)
    resumed.add(features(2, 7))
    assert torch.equal(total.result()[1], resumed.result()[1])


@pytest.mark.parametrize(("stretch", "limit"), [(1.0, 1e-9), (1.05, 5e-9)])
def test_rounding_moves_a_distance_by_little(stretch: float, limit: float) -> None:
    both = features(20_000, 64).double()
    rows, reference = both[:10_000] * stretch, both[10_000:]
    other = (reference.mean(0), reference.T.cov())
    stored = frechet_distance(rows.mean(0), rows.T.cov(), *other)
    for kind, moved in ((ExactMoments, limit), (Moments, 1e-13)):
        moments = kind(64)
        moments.add(rows)
        mu, sigma, _ = moments.result()
        # Errors of 2^-21 at most average out to 3e-9 in each mean, and count times how far apart
        # the means are.
        assert frechet_distance(mu, sigma, *other) == pytest.approx(stored, rel=0, abs=moved)


MEMORY = """
import resource, sys
import torch
from fewstep.eval.metrics.moments import ExactMoments
torch.set_num_threads(1)
n, dim = int(sys.argv[1]), int(sys.argv[2])
moments, batch = ExactMoments(dim), torch.rand(128, dim)
moments.add(batch)
moments.result()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for start in range(0, n, 128):
    moments.add(batch[: min(128, n - start)])
moments.result()
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_kib(n: int, dim: int) -> tuple[int, int]:
    """Peak memory after a first batch, and after n samples."""
    command = [sys.executable, "-c", MEMORY, str(n), str(dim)]
    before, after = subprocess.run(command, capture_output=True, text=True).stdout.split()
    return int(before), int(after)


def test_memory_does_not_grow_with_samples() -> None:
    # 50,000 features of 256 in float64 would be 98 MiB.
    peaks = [peak_kib(n, 256)[1] for n in (1_000, 10_000, 50_000)]
    assert max(peaks) < 1.05 * min(peaks)


@pytest.mark.slow
def test_memory_at_2048() -> None:
    before, after = peak_kib(2_000, 2048)
    assert after < before + 4096


def test_limit_of_int64_is_a_refusal() -> None:
    moments, full = ExactMoments(2), torch.full((16384, 2), 8.0)
    for _ in range(7):
        moments.add(full)
    with pytest.raises(ValueError, match=r"after 114688 samples.*ExactMoments\(2, scale=262144"):
        moments.add(full)
    mu, sigma, n = moments.result()
    # The batch that did not fit was not added, and the totals next to the limit are right.
    assert (n, mu.tolist(), sigma.abs().max()) == (114688, [8.0, 8.0], 0.0)
    with pytest.raises(ValueError, match="limit of int64"):
        moments.merge(moments)
    half = exact(*[torch.tensor([[8.0, -8.0], [-8.0, 8.0]]).repeat(8192, 1)] * 7, dim=2)
    assert float(half.result()[1][0, 1]) == pytest.approx(-64 * 114688 / 114687, rel=1e-15)


def test_sum_of_states_that_overflowed_is_refused() -> None:
    moments = exact(*[torch.full((16384, 1), 8.0)] * 7, dim=1)
    for ranks in (2, 3, 4):  # of which 3 leave a sum that looks possible
        state = {name: total * ranks for name, total in moments.state().items()}
        with pytest.raises(ValueError, match="their sum overflowed"):
            ExactMoments.from_state(state)


def test_state_of_another_scale_or_class_is_refused() -> None:
    moments = exact(features(9, 7))
    with pytest.raises(ValueError, match="another scale"):
        ExactMoments.from_state(moments.state(), scale=2**19)
    with pytest.raises(ValueError, match=r"torch\.int64 totals are not those of Moments"):
        Moments.from_state(moments.state())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.full((3, 2), 8.5), r"size 8.5 is beyond bound=8; use ExactMoments\(2, scale=524288.0, "
         r"bound=16.0\) for all"),
        (np.full((3, 2), -1000.0), "scale=8192.0, bound=1024.0"),
        (np.full((3, 2), np.nan), "nan or infinite"),
        (np.full((3, 2), np.inf), "nan or infinite"),
        (np.zeros(2), r"must be \(n, d\).*got shape \(2,\)"),
        (np.zeros((3, 5)), r"must be \(n, 2\), got \(3, 5\)"),
        (np.zeros((3, 2), dtype=np.uint8), "floating point, got uint8"),
    ],
)  # fmt: skip
def test_bad_features_are_refused_whole(rows: Any, message: str) -> None:
    moments = exact(features(5, 2), dim=2)
    before = moments.state()
    with pytest.raises(ValueError, match=message):
        moments.add(rows)
    assert all(torch.equal(before[name], total) for name, total in moments.state().items())


def test_advice_of_the_refusals_is_accepted() -> None:
    ExactMoments(2, scale=524288.0, bound=16.0).add(np.full((3, 2), 8.5))
    ExactMoments(2, scale=8192.0, bound=1024.0).add(np.full((3, 2), -1000.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "dim must be at least 1"),
        ({"dim": 2, "scale": 1000}, "scale must be a power of two"),
        ({"dim": 2, "bound": 16}, "for this bound use scale=524288"),
        ({"dim": 2, "bound": -1.0}, "bound must be above 0"),
        ({"dim": 2, "bound": float("nan")}, "bound must be above 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExactMoments(**arguments)


def test_unlike_totals_do_not_merge() -> None:
    exact_totals = exact(features(5, 2), dim=2)
    for other in (Moments(2), ExactMoments(3), ExactMoments(2, scale=2**19)):
        with pytest.raises(ValueError, match="cannot merge"):
            exact_totals.merge(other)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_need_two_samples(kind: type[Moments] | type[ExactMoments]) -> None:
    moments = kind(3)
    moments.add(np.zeros((0, 3)))
    moments.add(np.ones((1, 3)))
    with pytest.raises(ValueError, match="at least 2 samples, got 1; raise n"):
        moments.result()
    moments.add(np.ones((1, 3)))
    assert moments.result()[1].tolist() == torch.zeros(3, 3).tolist()
