"""What metrics are called in a report, with the number of samples, and what they mean."""

from fewstep.eval.metrics.choices import (
    FID_SAMPLES,
    KEPT,
    NOT_COMPARABLE,
    family_text,
    sample_count,
)
from fewstep.eval.reports.results import Results, metric_entry

NOT_AN_FID = "It is not an FID, and grows as n falls: compare equal n only."
EXPLAINED = {
    "rmse": "Root mean square difference, over samples and elements, to the fine solution from the "
    "same starting noise under the same guidance. It does not judge samplers that add noise, which "
    "leave that solution.",
    "feature_rmse": "The same difference in the features of the extractor.",
    "fid": "Frechet distance, in the published Inception network's features, to the reference's "
    "images. It grows as n falls: compare equal n, protocol and reference only.",
    "fd_fashion": "Frechet distance, in the bundled classifier's features, to the Fashion-MNIST "
    f"training images. {NOT_AN_FID}",
    "fd": f"Frechet distance, in the extractor's features, to the reference's images. {NOT_AN_FID}",
    "fd_infinity": "The Frechet distance extrapolated in 1/n to infinitely many samples.",
    "kid": "Squared MMD of the features, cubic kernel; may be negative. Unbiased for independent "
    "samples, and below that where classes were taken in turn, as in a benchmark.",
    "sw2": "Sliced 2-Wasserstein distance: root of the mean square over random directions.",
    "w2_gauss": "2-Wasserstein distance between the Gaussians of the samples' and the data's "
    "moments, which are exact. It does not vanish for finite n.",
    "mmd2": "Squared MMD to exact draws, Gaussian kernel, unbiased; may be negative.",
    "precision": "Share of samples within the real images' k-nearest-neighbour balls.",
    "recall": "Share of real images within the samples' k-nearest-neighbour balls.",
    "density": "How many real balls a sample lies in, relative to k; may exceed 1.",
    "coverage": "Share of real images that have a sample in their ball.",
    "accuracy": "Share of samples that the bundled classifier gives the class they were asked for.",
}
# Of features, and so of an extractor, which is part of the name.
OF_FEATURES = ("fid", "fd", "fd_fashion", "fd_infinity", "kid", "precision", "recall", "density",
               "coverage")  # fmt: skip
OF_FIRST = ("fd_infinity", "kid", "precision", "recall", "density", "coverage", "sw2", "mmd2")
FRONT = (
    "The Pareto front: samplers that no other one beats in both quality and cost. The cost is the "
    "number of network evaluations for each sample, which is exact; seconds depend on the machine "
    "and on what else it does, so that they decide nothing here."
)
TIMES = (
    "Time of sampling, which is network and solver, without warm-up; decoding, features and saving "
    "come on top. The samplers took turns on the same units of samples, so that what else the "
    'machine did slowed all of them: "least to most" is over these units. Bold: the fastest of '
    "those with as many network evaluations, where no range reaches into another."
)
TIMES_APART = (
    "These runs were made at different times, maybe on a machine that had other work to do: their "
    "times are no comparison of samplers. `fewstep bench` measures samplers side by side."
)


def times_note(results: Results) -> str:
    """What times here may be compared by."""
    return TIMES if results.is_side_by_side else TIMES_APART


def extractor_name(results: Results) -> str:
    """The extractor; results from before it was recorded had the bundled classifier."""
    return str(results.env.get("extractor", {}).get("name", "fd-cnn:fashion"))


def is_comparable(results: Results) -> bool:
    """Whether the features are those of published FIDs."""
    return bool(results.env.get("extractor", {}).get("comparable", "fid" in results.metrics))


def metric_title(results: Results, metric: str) -> str:
    """``FID-50k``, ``KID-fashion-512``, ``RMSE to the reference, n = 512``.

    Metrics that compare single features are of 10,000 samples at most, and say so.
    """
    n = results.rows[0].n
    title, count = metric_entry(metric)[0], sample_count(min(n, KEPT) if metric in OF_FIRST else n)
    # Of exact problems it is of the samples themselves.
    if metric not in OF_FEATURES and not (metric == "sw2" and "extractor" in results.env):
        return f"{title}, n = {count}"
    return feature_title(metric, n, extractor_name(results), comparable=is_comparable(results))


def feature_title(metric: str, n: int, extractor: str, *, comparable: bool) -> str:
    """``FID-50k``, ``KID-10k``, ``KID-fashion-512``: of features of an extractor.

    Args:
        metric: key in results.
        n: samples of the set.
        extractor: its name.
        comparable: whether it is that of published FIDs.
    """
    title, count = metric_entry(metric)[0], sample_count(min(n, KEPT) if metric in OF_FIRST else n)
    if comparable:
        return f"{title.replace('FD', 'FID')}-{count}"
    return f"{title.removesuffix('-fashion')}-{family_text(extractor)}-{count}"


def rank_note(results: Results, metric: str) -> str:
    """That there are too few samples for a covariance of full rank; empty if there are enough."""
    dim = results.env.get("extractor", {}).get("dim")
    n = results.rows[0].n
    if metric not in ("fid", "fd", "fd_fashion") or dim is None or n > dim:
        return ""
    return few_samples(metric_title(results, metric), n, dim)


def few_samples(title: str, n: int, dim: int) -> str:
    """The same of a score's title, samples and features."""
    return (
        f"{title}: {n} samples of {dim} features have a covariance of rank {n - 1} at most, so "
        f"that this distance is mostly due to the small number: take more than {dim}, better ten "
        "times as many."
    )


def is_of_features(results: Results) -> bool:
    """Whether any score here is of features of an extractor."""
    return any(metric in OF_FEATURES for metric in results.metrics)


def comparison_note(results: Results) -> str:
    """That no score here may stand beside a published FID, unless one may."""
    if not is_of_features(results):
        return ""
    # A benchmark has seeds of its own and takes classes in turn.
    published = is_comparable(results) and "calc" in results.settings
    if published and results.rows[0].n == FID_SAMPLES:
        return ""
    names = ", ".join(_distances(results))
    return f"{names}: {NOT_COMPARABLE}; compare equal n, extractor and reference only."


def _distances(results: Results) -> list[str]:
    names = [m for m in results.metrics if m in ("fid", "fd", "fd_fashion", "fd_infinity", "kid")]
    return [metric_title(results, m) for m in names] or ["the scores of features"]
