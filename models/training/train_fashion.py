"""Trains the bundled Fashion-MNIST models; the weights in ``models/weights`` came from here.

    python -m fewstep.models.training.train_fashion denoiser --images 1500000
    python -m fewstep.models.training.train_fashion weak
    python -m fewstep.models.training.train_fashion classifier

The denoiser follows EDM (Karras et al. 2022, arXiv:2206.00364, section 5): log-normal noise
levels, the loss weighted so that the raw network's target has unit variance, labels dropped with
probability 0.1 for classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598). Adam with a
warm-up and a linear decay to zero, an exponential moving average of the weights, bfloat16 matrix
products. A run that was stopped goes on from ``--run`` where it was. The weak denoiser for
autoguidance (Karras et al. 2024, arXiv:2406.02507) is trained in the same way, but is smaller and
sees a twelfth of the images.
"""

import math
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from torch.nn import functional as F

from fewstep.models.classifier import FashionClassifier
from fewstep.models.data import load_fashion, to_signed
from fewstep.models.fashion import NULL_CLASS, SIGMA_DATA, FashionEDM, weak_edm
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
    save_weights,
)

app = typer.Typer(add_completion=False, help=__doc__)
DENOISER, CLASSIFIER = WEIGHTS / "fashion.safetensors", WEIGHTS / "classifier.safetensors"
WEAK = WEIGHTS / "fashion_weak.safetensors"
P_MEAN, P_STD = -0.9, 1.3  # of ln(sigma)
PEAK_RATE = 1.5e-3  # of learning


def noise_levels(n: int, generator: torch.Generator) -> Tensor:
    """Log-normal levels, stratified: one draw in each of n equally likely bins, shuffled."""
    u = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    normal = math.sqrt(2) * torch.erfinv((2 * u - 1).clamp(-0.99999, 0.99999))
    return (P_MEAN + P_STD * normal[torch.randperm(n, generator=generator)]).exp()


def edm_loss(model: Any, x0: Tensor, labels: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """EDM eq. 2 and 8: mean of (sigma^2 + s^2) / (sigma s)^2 * ||D(x0 + sigma noise) - x0||^2."""
    column = sigma[:, None, None, None]
    weight = (column.square() + SIGMA_DATA**2) / (column * SIGMA_DATA).square()
    with torch.autocast("cpu", torch.bfloat16):
        denoised: Tensor = model(x0 + column * noise, sigma, labels)
    return (weight * (denoised.float() - x0).square()).mean()


@torch.no_grad()
def validation_loss(model: FashionEDM, images: Tensor, labels: Tensor) -> float:
    """The loss on 2,000 test images with fixed levels and noise."""
    generator = torch.Generator().manual_seed(0)
    model.eval()
    losses = []
    for x0, label in zip(images[:2000].split(500), labels[:2000].split(500), strict=True):
        sigma = noise_levels(len(x0), generator)
        noise = torch.randn(x0.shape, generator=generator)
        losses.append(edm_loss(model, to_signed(x0), label, sigma, noise).item())
    return sum(losses) / len(losses)


def train_denoiser(training: Training[FashionEDM], total: int, run: Path, out: Path) -> None:
    (images, labels), (test, test_labels) = load_fashion("train"), load_fashion("test")

    def loss(training: Training[FashionEDM]) -> Tensor:
        n, generator = training.batch, training.generator
        index = torch.randint(len(images), (n,), generator=generator)
        dropped = torch.rand(n, generator=generator) < 0.1
        classes = labels[index].masked_fill(dropped, NULL_CLASS)
        sigma = noise_levels(n, generator)
        noise = torch.randn(n, 1, 28, 28, generator=generator)
        return edm_loss(training.compiled, to_signed(images[index]), classes, sigma, noise)

    def figures(model: FashionEDM) -> dict[str, float]:
        return {"validation_loss": round(validation_loss(model, test, test_labels), 5)}

    training.train(total, loss, figures, run, out)


@app.command()
def denoiser(
    images: Images = 1_500_000, batch: Batch = 128, seed: Seed = 0, threads: Threads = 2,
    run: Run = Path("runs/fashion"), out: Out = DENOISER,
) -> None:  # fmt: skip
    """Trains the class-conditional denoiser."""
    torch.set_num_threads(threads)
    training = Training(FashionEDM, seed=seed, batch=batch, peak_rate=PEAK_RATE)
    train_denoiser(training, images, run, out)


@app.command()
def weak(
    images: Images = 125_000, batch: Batch = 128, seed: Seed = 1, threads: Threads = 2,
    run: Run = Path("runs/fashion_weak"), out: Out = WEAK,
) -> None:  # fmt: skip
    """Trains the weak denoiser that autoguidance leads away from."""
    torch.set_num_threads(threads)
    training = Training(weak_edm, seed=seed, batch=batch, peak_rate=PEAK_RATE)
    train_denoiser(training, images, run, out)


@app.command()
def classifier(
    epochs: Annotated[int, typer.Option(help="passes over the training split")] = 12,
    seed: Annotated[int, typer.Option(help="of weights and batches")] = 0,
    threads: Threads = 2,
    out: Out = CLASSIFIER,
) -> None:
    """Trains the small classifier whose features and accuracy the benchmark uses."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    train, train_labels = load_fashion("train")
    test, test_labels = load_fashion("test")
    model = FashionClassifier().to(memory_format=torch.channels_last)
    steps = epochs * (len(train) // 128)
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for epoch in range(epochs):
        model.train()
        for index in torch.randperm(len(train)).split(128)[: len(train) // 128]:
            x, y = to_signed(train[index]), train_labels[index]
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(model(x), y, label_smoothing=0.05)
            loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            schedule.step()
        model.eval()
        with torch.no_grad():
            guess = torch.cat([model(to_signed(x)).argmax(1) for x in test.split(1000)])
        accuracy = (guess == test_labels).float().mean().item()
        console.print(f"epoch {epoch + 1}: loss {loss.item():.3f}, test accuracy {accuracy:.4f}")
    card = {"epochs": epochs, "seed": seed, "test_accuracy": round(accuracy, 4)}
    save_weights(model, out, card)


if __name__ == "__main__":
    app()
