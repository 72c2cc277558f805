"""Trains the bundled Fashion-MNIST models; the weights in ``models/weights`` came from here.

    python -m fewstep.models.train_fashion denoiser --images 1500000
    python -m fewstep.models.train_fashion classifier

The denoiser follows EDM (Karras et al. 2022, arXiv:2206.00364, section 5): log-normal noise
levels, the loss weighted so that the raw network's target has unit variance, labels dropped with
probability 0.1 for classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598). Adam with a
warm-up and a linear decay to zero, an exponential moving average of the weights, bfloat16 matrix
products. A run that was stopped goes on from ``--run`` where it was.
"""

import json
import math
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from fewstep.models.classifier import FashionClassifier
from fewstep.models.data import load_fashion, to_signed
from fewstep.models.fashion import NULL_CLASS, SIGMA_DATA, FashionEDM

app = typer.Typer(add_completion=False, help=__doc__)
console = Console()
WEIGHTS = Path(__file__).parent / "weights"
DENOISER, CLASSIFIER = WEIGHTS / "fashion.safetensors", WEIGHTS / "classifier.safetensors"
P_MEAN, P_STD = -0.9, 1.3  # of ln(sigma)
PEAK_RATE = 1.5e-3  # of learning
WARMUP_IMAGES = 25_000


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


def save_weights(model: torch.nn.Module, path: Path, card: dict[str, Any]) -> None:
    """Half-precision safetensors, with the figures of the run as metadata and as a JSON beside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.half().contiguous() for name, t in model.state_dict().items()}
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata={name: str(value) for name, value in card.items()})
    part.chmod(0o644)
    part.replace(path)
    path.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")


def learning_rate(peak: float, seen: int, total: int) -> float:
    return peak * min(1.0, (seen + 1) / WARMUP_IMAGES) * max(0.0, 1 - seen / total)


class Training:
    """The state of a run: network, average, optimiser, draws, and how far it is."""

    def __init__(self, seed: int, batch: int, peak_rate: float) -> None:
        torch.manual_seed(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.seed, self.batch, self.peak_rate = seed, batch, peak_rate
        self.model = FashionEDM().to(memory_format=torch.channels_last)
        self.ema = FashionEDM().to(memory_format=torch.channels_last)
        self.ema.load_state_dict(self.model.state_dict())
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), peak_rate, betas=(0.9, 0.99), weight_decay=0
        )
        self.compiled = torch.compile(self.model)
        self.seen, self.seconds = 0, 0.0

    def step(self, images: Tensor, labels: Tensor, total: int) -> float:
        """Shows one batch; returns its loss."""
        self.model.train()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.peak_rate, self.seen, total)
        index = torch.randint(len(images), (self.batch,), generator=self.generator)
        dropped = torch.rand(self.batch, generator=self.generator) < 0.1
        classes = labels[index].masked_fill(dropped, NULL_CLASS)
        sigma = noise_levels(self.batch, self.generator)
        noise = torch.randn(self.batch, 1, 28, 28, generator=self.generator)
        loss = edm_loss(self.compiled, to_signed(images[index]), classes, sigma, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.seen += self.batch
        # The average spans about a tenth of the images seen, at most 60,000 of them.
        decay = 0.5 ** (self.batch / min(0.05 * self.seen, 30_000))
        with torch.no_grad():
            averaged, current = list(self.ema.parameters()), list(self.model.parameters())
            torch._foreach_lerp_(averaged, current, 1 - decay)  # type: ignore[arg-type]
        return loss.item()

    def save(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(), "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(), "generator": self.generator.get_state(),
            "seen": self.seen, "seconds": self.seconds,
        }  # fmt: skip
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        for name in ("model", "ema", "optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"])
        self.seen, self.seconds = state["seen"], state["seconds"]
        console.print(f"going on from {path}: {self.seen:,} images seen")


@app.command()
def denoiser(
    images: Annotated[int, typer.Option(help="training images, repeats counted")] = 1_500_000,
    batch: Annotated[int, typer.Option(help="images a step")] = 128,
    seed: Annotated[int, typer.Option(help="of weights, batches and noise")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads")] = 2,
    run: Annotated[Path, typer.Option(help="folder of its checkpoint")] = Path("runs/fashion"),
    out: Annotated[Path, typer.Option(help="where the weights go")] = DENOISER,
) -> None:
    """Trains the class-conditional denoiser."""
    torch.set_num_threads(threads)
    (train, train_labels), (test, test_labels) = load_fashion("train"), load_fashion("test")
    training, checkpoint = Training(seed, batch, PEAK_RATE), run / "checkpoint.pt"
    run.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        training.load(checkpoint)
    started, losses = time.monotonic() - training.seconds, []
    columns = (*Progress.get_default_columns()[:-1], TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=images, completed=training.seen)
        while training.seen < images:
            losses.append(training.step(train, train_labels, images))
            mean = sum(losses) / len(losses)
            progress.update(task, completed=training.seen, description=f"loss {mean:.4f}")
            if len(losses) < 400 and training.seen < images:
                continue
            training.seconds = time.monotonic() - started
            card = {
                "images": training.seen, "planned": images, "batch": batch, "seed": seed,
                "minutes": round(training.seconds / 60, 1), "loss": round(mean, 5),
                "validation_loss": round(validation_loss(training.ema, test, test_labels), 5),
            }  # fmt: skip
            console.print(json.dumps(card))
            with (run / "log.jsonl").open("a") as log:
                log.write(json.dumps(card) + "\n")
            training.save(checkpoint)
            save_weights(training.ema, out, card)
            losses.clear()


@app.command()
def classifier(
    epochs: Annotated[int, typer.Option(help="passes over the training split")] = 12,
    seed: Annotated[int, typer.Option(help="of weights and batches")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads")] = 2,
    out: Annotated[Path, typer.Option(help="where the weights go")] = CLASSIFIER,
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
