"""The Frechet distance between Gaussians fitted to two sets of features in memory.

Dowson and Landau 1982, J. Multivariate Analysis 12:450; used on Inception features by
arXiv:1706.08500, eq. 6::

    |mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1^1/2 C_2 C_1^1/2)^1/2)

On the 64 features of the bundled classifier it is called ``FD-fashion``. It is not an FID: that
name belongs to one network, one preprocessing and 50,000 samples.
"""

from torch import Tensor

from fewstep.eval.metrics import frechet
from fewstep.eval.metrics.moments import Moments
from fewstep.eval.metrics.statistics_files import FeatureStatistics


def statistics(features: Tensor) -> FeatureStatistics:
    """Statistics of (n, d) features, n >= 2, in float64.

    Raises:
        ValueError: with fewer, which have no covariance, or values that are not finite.
    """
    moments = Moments(features.shape[1])
    moments.add(features)
    mu, sigma, n = moments.result()
    return FeatureStatistics(mu.numpy(), sigma.numpy(), n)


def frechet_distance(features: Tensor, real: FeatureStatistics) -> float:
    """Squared Frechet distance of (n, d) features, >= 0; nan if one of them is not finite.

    A run that diverged has no distance, and the others go on.

    Raises:
        ValueError: for features of another size than those of ``real``.
    """
    if not bool(features.isfinite().all()):
        return float("nan")
    found = statistics(features)
    return frechet.frechet_distance(found.mu, found.sigma, real.mu, real.sigma)
