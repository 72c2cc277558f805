"""The metrics that commands take by name, each in a line; no torch is needed to read it."""

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
