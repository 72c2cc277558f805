"""Scores of a set of samples by their features, fed batch by batch, by one process or several.

The Frechet distance is of exact integer sums, so that it does not depend on batches, order or
processes. The other metrics compare single features: they take the samples of index 0 to 9,999, in
that order, or a seeded 10,000 if it is known how many there will be.
"""

from collections.abc import Iterable, Sequence
from typing import Self

import torch
from torch import Tensor

from fewstep.eval.metrics import kid, manifold
from fewstep.eval.metrics.choices import KEPT, METRIC_CHOICES
from fewstep.eval.metrics.extrapolation import fd_infinity, smallest_count
from fewstep.eval.metrics.moments import ExactMoments
from fewstep.eval.metrics.names import metric_key
from fewstep.eval.metrics.references import Reference, check_features, subset
from fewstep.eval.metrics.sliced import sliced_wasserstein
from fewstep.eval.metrics.spread import FEWEST, replicates
from fewstep.eval.networks.extractors import Extractor

NEED_REAL = ("kid", "prdc", "sw2")  # features of real samples


def needs_features(metrics: Iterable[str]) -> bool:
    """Whether one of these metrics needs a reference with features."""
    return any(metric in NEED_REAL for metric in metrics)


# Numbers of features of a jackknife, which takes five copies of them: 80 MiB, whatever n is.
MOST_SPREAD = 2**21


class KeptRows:
    """The rows of ``KEPT`` samples at most, in any order of arrival.

    Args:
        total: how many samples there will be: a seeded subset of them is kept, since files come
            sorted, by class for example; None for the first.
    """

    def __init__(self, total: int | None = None) -> None:
        self._chosen = torch.arange(KEPT) if total is None else subset(total, KEPT)
        self._rows: dict[int, tuple[int, Tensor]] = {}  # by the first sample: how many, those kept

    def add(self, rows: Tensor, first: int) -> None:
        """Takes in the rows (n, d) of samples ``first``, ``first`` + 1 and so on."""
        end = first + len(rows)
        ours = self._chosen[(self._chosen >= first) & (self._chosen < end)] - first
        if len(ours):
            self._put(first, len(rows), rows.detach().cpu()[ours])

    def merge(self, other: Self) -> None:
        """Takes in those of another process.

        Raises:
            ValueError: if both hold the same samples.
        """
        for first, (count, rows) in other._rows.items():
            self._put(first, count, rows)

    def result(self) -> Tensor:
        """(k, d), in the order of the samples; (0, 0) of none."""
        parts = [self._rows[first][1] for first in sorted(self._rows)]
        return torch.cat(parts) if parts else torch.empty(0, 0)

    def _put(self, first: int, count: int, rows: Tensor) -> None:
        for other, (there, _) in self._rows.items():
            if other < first + count and first < other + there:
                raise ValueError(
                    f"sample {max(first, other)} is there twice; tell each process's samples "
                    "apart by add(..., first=index)"
                )
        self._rows[first] = count, rows


class SetScores:
    """Scores of one set of samples against a reference.

    ===============  ==========================================  =========================
    metric           key of the result                           taken from
    ===============  ==========================================  =========================
    ``fd``           ``fid``, ``fd_fashion`` (``metric_key``)    all samples
    ``kid``          ``kid``: mean of 100 subsets of 1,000       the first 10,000
    ``prdc``         ``precision``, ``recall``, ``density``,     the first 10,000, k = 3
                     ``coverage``
    ``sw2``          ``sw2``: 1,000 directions                   the first 10,000
    ``fd_infinity``  ``fd_infinity``: 15 points                  the first 10,000
    ===============  ==========================================  =========================

    If the number of samples is told, it is a seeded 10,000 of them and not the first. Of fewer than
    1,000 samples, or real features, the subsets of KID are as large as both allow. Of more than
    10,000 real features a seeded subset is taken.

    Args:
        extractor: of the features.
        reference: of the same extractor (``load_reference`` checks that).
        metrics: of ``METRIC_CHOICES``.
        total: how many samples there will be, if it is known.

    Raises:
        ValueError: for an unknown metric, or one that needs features which the reference lacks.
    """

    def __init__(
        self,
        extractor: Extractor,
        reference: Reference,
        metrics: Sequence[str] = ("fd",),
        total: int | None = None,
    ) -> None:
        for metric in metrics:
            if metric not in METRIC_CHOICES:
                raise ValueError(f"metrics must be of {', '.join(METRIC_CHOICES)}, got {metric!r}")
        if needs_features(metrics):
            check_features(reference)
        self._reference, self._metrics = reference, tuple(metrics)
        self._key = metric_key(extractor)
        self._moments = ExactMoments(extractor.dim, extractor.scale, extractor.bound)
        # Of more samples the spread is small, and twenty more distances would take minutes.
        most = min(KEPT, MOST_SPREAD // extractor.dim)
        self._spread = "fd" in metrics and total is not None and FEWEST <= total <= most
        self._kept, self._n, self._finite = KeptRows(total), 0, True

    @property
    def n(self) -> int:
        """How many samples were added."""
        return self._n

    @property
    def sums(self) -> ExactMoments:
        """Exact sums of all features."""
        return self._moments

    @property
    def features(self) -> Tensor:
        """(k, d) of the samples kept: for a spread, and by the metrics beside ``fd``."""
        return self._kept.result()

    def add(self, features: Tensor, first: int | None = None) -> None:
        """Takes in (n, d) features, of any floating dtype and device.

        Args:
            features: one row a sample. A value that is not finite means that the run diverged:
                then there is no result.
            first: index of the first sample; by default that after the ones added before. Several
                processes must give it if metrics beside ``fd`` are asked for.

        Raises:
            ValueError: another shape, or values beyond the extractor's bound.
        """
        first = self._n if first is None else first
        self._n += len(features)
        if not bool(features.isfinite().all()):
            self._finite = False
            return
        self._moments.add(features)
        if self._spread or set(self._metrics) - {"fd"}:
            self._kept.add(features, first)

    def add_sums(self, moments: ExactMoments) -> None:
        """Takes in sums of features that were not kept, for ``fd`` alone.

        Raises:
            ValueError: if another metric is asked for, or the sums are of another extractor.
        """
        if set(self._metrics) - {"fd"}:
            raise ValueError(
                f"{', '.join(self._metrics)} cannot be had of sums, and no features were kept; "
                "generate with keep='features', or ask for fd alone"
            )
        self._moments.merge(moments)
        self._n += moments.n

    def merge(self, other: Self) -> None:
        """Takes in what another process added.

        Raises:
            ValueError: if it has the same samples, or another extractor.
        """
        self._kept.merge(other._kept)
        self._moments.merge(other._moments)
        self._n += other._n
        self._finite = self._finite and other._finite

    def result(self) -> dict[str, float]:
        """The metrics by key.

        Those that cannot be had of so few samples are left out, and all of a run that diverged.
        """
        found: dict[str, float] = {}
        if not self._finite or self._n < 2:
            return found
        if "fd" in self._metrics:
            mu, sigma, _ = self._moments.result()
            found[self._key] = self._reference.frechet.distance(mu, sigma)
        features = self.features
        if "fd_infinity" in self._metrics and len(features) >= smallest_count(features.shape[1]):
            found["fd_infinity"] = fd_infinity(features, self._reference.frechet).value
        if needs_features(self._metrics) and self._reference.features is not None:
            real = self._reference.features
            # Not the first: files often have one class after another.
            found |= self._against(features, real[subset(len(real), KEPT)])
        return found

    def replicates(self) -> dict[str, list[float]]:
        """The Frechet distance without each twentieth of the samples (see :mod:`.spread`).

        Nothing if it is not known how many samples there would be, of sums, or of more than
        10,000 or ``MOST_SPREAD`` numbers.
        """
        rows = self.features
        if not self._spread or not self._finite or len(rows) != self._n:
            return {}
        return {self._key: replicates(rows, self._reference.frechet.distance_of_features)}

    def _against(self, features: Tensor, real: Tensor) -> dict[str, float]:
        """The metrics that need features of real samples."""
        found, least = {}, min(len(features), len(real))
        if "kid" in self._metrics and least > 1:
            found["kid"] = kid.kid(features, real, size=min(kid.SIZE, least))[0]
        if "prdc" in self._metrics and least > manifold.K:
            found |= vars(manifold.manifold(features, real))
        if "sw2" in self._metrics:
            found["sw2"] = sliced_wasserstein(features, real)
        return found
