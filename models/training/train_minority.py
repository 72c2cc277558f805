"""Trains the bundled rarity classifier of minority guidance, in two commands.

    python -m fewstep.models.training.train_minority score
    python -m fewstep.models.training.train_minority classifier

The first asks the bundled denoiser how badly it restores each training image of Fashion-MNIST from
noise; the second teaches a noise-conditioned classifier the hundredths of each class by that score.
Both follow Um, Lee and Ye 2024 (arXiv:2301.12334): five draws at one level and LPIPS there, here
four and an LPIPS of the bundled classifier's features; cross-entropy on noisy images with the time
of the linear VP process uniform, AdamW with decay 0.05, a validation split of 5 %. Images are not
flipped or cropped: all shoes look to the left, so that a turned one would be a rare one.
"""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from fewstep.models.bundled import bundled_classifier, bundled_denoiser, weights_sha256
from fewstep.models.data import load_fashion, to_signed
from fewstep.models.fashion import NULL_CLASS
from fewstep.models.minority import expected_class, minority_score, ordinal_classes
from fewstep.models.ode import level_at
from fewstep.models.rarity import BINS, RarityClassifier
from fewstep.models.training.loop import (
    WEIGHTS,
    Batch,
    Images,
    Out,
    Run,
    Seed,
    Threads,
    Training,
    console,
)
from fewstep.schedules import ContinuousVP

app = typer.Typer(add_completion=False, help=__doc__)
MINORITY = WEIGHTS / "minority.safetensors"
SCORES = Path("runs/minority/scores.safetensors")
SCORE_RHO = 4.0  # of the levels and distances tried, the best agreement with rarity; see the card
PEAK_RATE = 1e-3  # of learning
DECAY = 0.05
FIGURE_RHOS = (0.1, 0.5, 1.0, 2.0, 5.0)


def bundled_scores(images: Tensor, labels: Tensor, *, rho: float, draws: int, seed: int) -> Tensor:
    """(n,) minority scores of uint8 images with the bundled denoiser and distance."""
    denoiser, judge = bundled_denoiser(), bundled_classifier()
    # bfloat16 halves the time, and disturbs the scores less than their noise does.
    with torch.autocast("cpu", torch.bfloat16):
        return minority_score(
            denoiser, to_signed(images), level_at(denoiser.process, rho), cond=labels,
            draws=draws, distance=judge.distance, seed=seed,
        )  # fmt: skip


@app.command()
def score(
    rho: Annotated[float, typer.Option(help="sigma / alpha of the level")] = SCORE_RHO,
    draws: Annotated[int, typer.Option(help="noise draws an image")] = 4,
    seed: Annotated[int, typer.Option(help="of the noise")] = 0,
    threads: Threads = 2,
    out: Annotated[Path, typer.Option(help="where the scores go")] = SCORES,
) -> None:
    """Scores the 60,000 training images, about ten minutes on one core."""
    torch.set_num_threads(threads)
    images, labels = load_fashion("train")
    with console.status(f"scoring {len(images):,} images at rho {rho:g}"):
        scores = bundled_scores(images, labels, rho=rho, draws=draws, seed=seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    facts = {"rho": rho, "draws": draws, "seed": seed, "denoiser": weights_sha256()}
    save_file({"scores": scores}, out, {name: str(value) for name, value in facts.items()})
    console.print(f"{out}: mean {scores.mean():.4f}, standard deviation {scores.std():.4f}")


def split(classes: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of training and validation: of every 20 neighbours in rarity one is held out.

    Args:
        classes: (n,) ordinal classes.
        labels: (n,) classes of clothes.
        seed: of the choice.
    """
    order = (labels * BINS + classes).argsort(stable=True)
    held = torch.randint(
        20, (-(-len(order) // 20), 1), generator=torch.Generator().manual_seed(seed)
    )
    chosen = (torch.arange(20) == held).flatten()[: len(order)]
    return order[~chosen], order[chosen]


def noise_levels(n: int, generator: torch.Generator) -> Tensor:
    """(n,) ratios rho of stratified uniform times of the linear VP process, shuffled."""
    process = ContinuousVP()
    u = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    times = process.t_min + (1 - process.t_min) * u.double().numpy()
    rho = torch.as_tensor(process.rho(times), dtype=torch.float32)
    return rho[torch.randperm(n, generator=generator)]


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's correlation of (n,) and (n,); b may have ties."""

    def ranks(x: Tensor) -> Tensor:
        _, place, count = x.unique(return_inverse=True, return_counts=True)
        middle: Tensor = (count.cumsum(0) - count / 2).double()
        return middle[place]

    return float(torch.corrcoef(torch.stack([ranks(a), ranks(b)]))[0, 1])


@torch.no_grad()
def validation_figures(
    model: RarityClassifier, images: Tensor, labels: Tensor, classes: Tensor
) -> dict[str, Any]:
    """At each of five levels, with fixed noise, on (n, 1, 28, 28) uint8 images.

    ``loss``: cross-entropy; ``rank``: Spearman's correlation of the expected with the true class;
    ``within_10``: share of images whose likeliest class is at most 10 from the true one. A guess
    from the label alone has 4.605, 0 and about 0.2.
    """
    generator = torch.Generator().manual_seed(0)
    figures: dict[str, Any] = {"loss": {}, "rank": {}, "within_10": {}}
    for rho in FIGURE_RHOS:
        parts = []
        for x0, label in zip(images.split(500), labels.split(500), strict=True):
            x = to_signed(x0) + rho * torch.randn(x0.shape, generator=generator)
            with torch.autocast("cpu", torch.bfloat16):
                parts.append(model(x, torch.tensor(rho), label).float())
        logits = torch.cat(parts)
        near = (logits.argmax(dim=1) - classes).abs() <= 10
        key = f"{rho:g}"
        figures["loss"][key] = round(F.cross_entropy(logits, classes).item(), 4)
        figures["rank"][key] = round(rank_correlation(expected_class(logits), classes), 4)
        figures["within_10"][key] = round(near.float().mean().item(), 4)
    return {f"validation_{name}": value for name, value in figures.items()}


@app.command()
def classifier(
    images: Images = 1_500_000, batch: Batch = 256, seed: Seed = 0, threads: Threads = 2,
    run: Run = Path("runs/minority"), out: Out = MINORITY,
    scores: Annotated[Path, typer.Option(help="what `score` wrote")] = SCORES,
) -> None:  # fmt: skip
    """Trains the classifier of the hundredths of each class, about half an hour on one core."""
    torch.set_num_threads(threads)
    if not scores.is_file():
        console.print(f"there are no scores in {scores}: run the command score first")
        raise typer.Exit(2)
    x, labels = load_fashion("train")
    classes = ordinal_classes(load_file(scores)["scores"], BINS, labels)
    train, held = split(classes, labels, seed)

    def loss(training: Training[RarityClassifier]) -> Tensor:
        generator = training.generator
        index = train[torch.randint(len(train), (batch,), generator=generator)]
        dropped = torch.rand(batch, generator=generator) < 0.1
        given = labels[index].masked_fill(dropped, NULL_CLASS)
        rho = noise_levels(batch, generator)
        noise = torch.randn(batch, 1, 28, 28, generator=generator)
        noisy = to_signed(x[index]) + rho[:, None, None, None] * noise
        with torch.autocast("cpu", torch.bfloat16):
            logits = training.compiled(noisy, rho, given)
        return F.cross_entropy(logits.float(), classes[index])

    training = Training(RarityClassifier, seed=seed, batch=batch, peak_rate=PEAK_RATE, decay=DECAY)
    with safe_open(scores, "pt") as file:
        facts = {f"score_{name}": value for name, value in (file.metadata() or {}).items()}

    def figures(model: RarityClassifier) -> dict[str, Any]:
        return validation_figures(model, x[held], labels[held], classes[held]) | facts

    training.train(images, loss, figures, run, out)


if __name__ == "__main__":
    app()
