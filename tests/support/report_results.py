"""Results as a benchmark makes them, without running one."""

import random

import torch

from fewstep.eval.reports.results import Results, Row

NAMES = ("bag", "coat", "bag", "dress", "sandal")  # of the classes of the images, in no order
HOSTILE = "<script>document.title='gotcha'</script>"


def sample_results(
    *,
    samplers: tuple[str, ...] = ("ddim", "unipc:order=2"),
    problem: str = "fashion",
    guidance: tuple[str, ...] = ("none", "cfg:2"),
    seeds: tuple[int, ...] = (0, 1),
    n: int = 24,
    scale: float = 1.0,
) -> Results:
    """Two numbers of calls, two seeds, times, memory and small images; numbers made up.

    Args:
        samplers, problem, guidance, seeds, n: of the rows.
        scale: factor on every metric.
    """
    env = {
        "fewstep": "0.1.0", "torch": "2.14.1", "diffusers": "0.42.1", "numpy": "2.4.6",
        "python": "3.11.9", "device": "cpu", "threads": 1, "fingerprint": "f" * 64,
        "answers": {"numbers": [1.0, 2.0], "tolerance": 1e-4},
        "determinism": "bitwise", "commit": "0123456789ab",
        "extractor": {"name": "fd-cnn:fashion", "sha256": "e" * 64, "comparable": False, "dim": 8},
        "ref": {"name": "fashion", "hash": "a" * 64, "n": 60000},
        "reference": {text: {"fd_fashion": 2.0} for text in guidance},
        "floor": {"fd_fashion": 1.8},
    }  # fmt: skip
    results = Results(env, [], settings={"n": n, "samplers": list(samplers)}, started="2026-01-01")
    generator = torch.Generator().manual_seed(0)
    for g, text in enumerate(guidance):
        results.reference_images[text] = _images(generator)
        for s, sampler in enumerate(samplers):
            for nfe in (4, 8):
                key = (text, sampler, nfe, "")
                results.images[key] = _images(generator)
                results.labels[key] = NAMES
                for seed in seeds:
                    error = scale * (1 + 0.1 * s + 0.05 * seed) / nfe
                    metrics = {"rmse": error, "fd_fashion": 3 * error, "accuracy": 1 - error}
                    seconds = 0.01 * nfe * (1 + g) * (1 + 0.5 * s)
                    phases = {"network": 0.9 * seconds, "solver": 0.1 * seconds, "features": 0.02}
                    results.rows.append(Row(
                        sampler, nfe, nfe, nfe * (1 + g), seed, n, problem, text, metrics, seconds,
                        seconds_by=phases, peak_memory=300 * 2**20 + nfe,
                    ))  # fmt: skip
    return results


def replicates(value: float, sd: float, seed: int) -> list[float]:
    """Twenty values of a jackknife that tells ``sd``; equal seeds vary alike."""
    draws = [random.Random(f"{seed} {i}").gauss(0, 1) for i in range(20)]
    mean = sum(draws) / 20
    size = (19 / 20 * sum((d - mean) ** 2 for d in draws)) ** 0.5
    return [value + sd * (d - mean) / size for d in draws]


def _images(generator: torch.Generator) -> torch.Tensor:
    pixels = torch.randint(0, 256, (5, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return pixels.float() / 127.5 - 1
