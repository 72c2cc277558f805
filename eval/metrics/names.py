"""What the Frechet distance in an extractor's features is called."""

from fewstep.eval.metrics.choices import FID_SAMPLES, NOT_COMPARABLE, family_text, sample_count
from fewstep.eval.networks.extractors import Extractor


def metric_name(extractor: Extractor, n: int) -> str:
    """The Frechet distance's name with its sample count: ``FID-50k``, ``FD-fashion-512``.

    Args:
        extractor: what the features are of.
        n: how many generated samples, >= 2.
    """
    if extractor.comparable:
        return f"FID-{sample_count(n)}"
    return f"FD-{family_text(extractor.name)}-{sample_count(n)}"


def metric_key(extractor: Extractor) -> str:
    """The Frechet distance's key among results: ``fid``, ``fd_fashion``, else ``fd``."""
    if extractor.comparable:
        return "fid"
    family, _, variant = extractor.name.partition(":")
    return f"fd_{variant}" if family == "fd-cnn" else "fd"


def comparison_note(extractor: Extractor, n: int) -> str:
    """:data:`NOT_COMPARABLE`, or nothing for an FID of exactly 50,000 samples."""
    return "" if extractor.comparable and n == FID_SAMPLES else NOT_COMPARABLE
