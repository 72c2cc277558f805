"""The metrics that commands take by name, and what they are called; it needs no torch."""

OF_FEATURES = {
    "fd": "Frechet distance of features: FID of 50,000 samples in FID's network, else FD",
    "kid": "squared MMD of features with a cubic kernel; may be negative",
    "prdc": "precision, recall, density and coverage: samples among real images, and the reverse",
    "sw2": "sliced 2-Wasserstein distance of features",
    "fd_infinity": "Frechet distance extrapolated to infinitely many samples",
}
EXACT = "exact"
OF_SAMPLES = {EXACT: "distances to the data of an exact problem themselves: w2_gauss, sw2, mmd2"}
METRIC_CHOICES = tuple(OF_FEATURES)
KEPT = 10_000  # samples that metrics of single features take, at most
FID_SAMPLES = 50_000
NOT_COMPARABLE = "not comparable with published FID"


def sample_count(n: int) -> str:
    """``50k`` for 50000, ``512`` for 512."""
    return f"{n // 1000}k" if n and n % 1000 == 0 else str(n)


def family_text(name: str) -> str:
    """An extractor's name within that of a metric: ``fashion``, ``pixels-3x32x32``."""
    return name.removeprefix("fd-cnn:").replace(":", "-")
