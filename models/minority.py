r"""How rare a sample is to a diffusion model: minority scores and the classes made of them.

The minority score of x0 at a level is the mean distance between x0 and the denoiser's one-step
reconstruction of it from noise::

    l(x0) = E_noise d(x0, D(alpha x0 + sigma noise))

A denoiser draws what it is unsure of towards the common samples, so rare ones lose most. (Um, Lee
and Ye 2024, "Don't play favorites: minority guidance for diffusion models", arXiv:2301.12334.)
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fewstep.noise import SPREAD, keyed_noise
from fewstep.types import Denoiser, Level

Distance = Callable[[Tensor, Tensor], Tensor]


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """(n,) mean over the elements of (n, ...) of (a - b)^2."""
    return (a - b).square().flatten(1).mean(dim=1)


def _keyed_noise(start: int, stop: int, like: Tensor, seed: int, draw: int) -> Tensor:
    """Noise of the rows ``start`` to ``stop``; each depends on its number, seed and draw alone."""
    # The multipliers are odd, so that no two of the three are mistaken for each other.
    own = seed * SPREAD + draw * 0xD1B54A32D192ED03
    return keyed_noise((row + own for row in range(start, stop)), like.shape[1:]).to(like)


@torch.no_grad()
def minority_score(
    denoiser: Denoiser,
    x0: Tensor,
    level: Level,
    *,
    cond: Tensor | None = None,
    draws: int = 5,
    distance: Distance | None = None,
    clip: float | None = 1.0,
    seed: int = 0,
    batch: int = 256,
) -> Tensor:
    """The minority score of each sample: mean over draws of d(x0, D(alpha x0 + sigma noise)).

    Row i has its own noise, keyed by ``seed``, i and the draw: the scores do not depend on
    ``batch``, up to what a network's arithmetic makes of it.

    Args:
        denoiser: of the model that the samples are rare or common to.
        x0: (n, ...) clean samples, in the units of the denoiser.
        level: where noise is added; alpha > 0, sigma > 0. See `fewstep.models.level_at`.
        cond: (n, ...) condition of each sample; None asks the unconditional prediction.
        draws: noise draws for each sample, >= 1.
        distance: called as ``distance(a, b)`` on (m, ...) samples, returns (m,); the mean squared
            error by default.
        clip: the reconstruction is clipped to [-clip, clip]; None for latents, or any other data
            without bounds.
        seed: of the noise.
        batch: rows of a call.

    Returns:
        (n,) float64 on the CPU, higher for rarer samples.

    Raises:
        ValueError: for draws or batch below 1, or a condition of another length.

    Reference:
        arXiv:2301.12334, the minority score. The authors' code has LPIPS and five draws, at
        sigma / alpha of about 6.4 of the linear VP schedule (for LSUN).
    """
    if draws < 1 or batch < 1:
        raise ValueError(f"draws and batch must be >= 1, got {draws} and {batch}")
    if cond is not None and len(cond) != len(x0):
        raise ValueError(f"cond has {len(cond)} rows for {len(x0)} samples")
    distance = squared_error if distance is None else distance
    scores = torch.zeros(len(x0), dtype=torch.float64)
    for start in range(0, len(x0), batch):
        stop = min(start + batch, len(x0))
        clean, given = x0[start:stop], None if cond is None else cond[start:stop]
        for draw in range(draws):
            noise = _keyed_noise(start, stop, clean, seed, draw)
            restored = denoiser(level.alpha * clean + level.sigma * noise, level, given)
            if clip is not None:
                restored = restored.clamp(-clip, clip)
            scores[start:stop] += distance(clean, restored).double().cpu() / draws
    return scores


def ordinal_classes(scores: Tensor, bins: int = 100, labels: Tensor | None = None) -> Tensor:
    """Equal-mass classes of the scores: 0 the commonest samples, ``bins - 1`` the rarest.

    The bins of n samples hold floor(n / bins) or ceil(n / bins) of them; equal scores are told
    apart by their order.

    Args:
        scores: (n,) minority scores, finite.
        bins: how many classes, >= 2; the paper's L.
        labels: (n,) integer classes of the data; the bins are made within each, so that rarity is
            not taken for one class of the data. None makes them over all samples.

    Returns:
        (n,) int64 in 0 .. bins - 1, on the device of ``scores``.

    Raises:
        ValueError: for NaN or infinite scores, fewer than two bins, labels of another length, or
            fewer samples than bins (in some class).
    """
    if bins < 2:
        raise ValueError(f"bins must be >= 2, got {bins}")
    if scores.ndim != 1 or (labels is not None and labels.shape != scores.shape):
        given = "" if labels is None else f" and {tuple(labels.shape)}"
        raise ValueError(f"scores and labels must both be (n,), got {tuple(scores.shape)}{given}")
    bad = int((~scores.isfinite()).sum())
    if bad:
        raise ValueError(f"scores must be finite, got {bad} NaN or infinite of {len(scores)}")
    groups = torch.zeros_like(scores, dtype=torch.int64) if labels is None else labels
    classes = torch.empty_like(groups, dtype=torch.int64)
    for group in groups.unique().tolist() or [0]:
        members = (groups == group).nonzero().flatten()
        if len(members) < bins:
            where = "" if labels is None else f" in class {group}"
            raise ValueError(f"{bins} bins need as many samples, got {len(members)}{where}")
        order = members[scores[members].argsort(stable=True)]
        rank = torch.arange(len(order), device=scores.device)
        classes[order] = rank * bins // len(order)
    return classes


def expected_class(logits: Tensor) -> Tensor:
    """(n,) mean class of the (n, L) logits' distribution, in [0, L - 1]."""
    return logits.softmax(dim=1) @ torch.arange(logits.shape[1]).to(logits)
