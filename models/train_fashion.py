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
P_MEAN, P_STD = -0.9, 1.3  # of ln(sigma)
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


@app.command()
def denoiser(
    images: Annotated[
        int, typer.Option(help="training images to show, repeats counted")
    ] = 1_500_000,
    batch: Annotated[int, typer.Option(help="images a step")] = 128,
    peak_rate: Annotated[float, typer.Option(help="largest learning rate")] = 1.5e-3,
    seed: Annotated[int, typer.Option(help="of weights, batches and noise")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads")] = 2,
    run: Annotated[Path, typer.Option(help="folder of the run's checkpoint")] = Path(
        "runs/fashion"
    ),
    out: Annotated[Path, typer.Option(help="where the weights go")] = WEIGHTS
    / "fashion.safetensors",
) -> None:
    """Trains the class-conditional denoiser."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    train, train_labels = load_fashion("train")
    test, test_labels = load_fashion("test")
    model = FashionEDM().to(memory_format=torch.channels_last)
    ema = FashionEDM().to(memory_format=torch.channels_last)
    ema.load_state_dict(model.state_dict())
    optimiser = torch.optim.AdamW(model.parameters(), peak_rate, betas=(0.9, 0.99), weight_decay=0)
    seen, seconds, checkpoint = 0, 0.0, run / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
        generator.set_state(state["generator"])
        seen, seconds = state["seen"], state["seconds"]
        console.print(f"going on from {checkpoint}: {seen:,} images seen")
    run.mkdir(parents=True, exist_ok=True)
    compiled = torch.compile(model)
    started, running, steps = time.monotonic() - seconds, 0.0, 0
    columns = (*Progress.get_default_columns()[:-1], TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=images, completed=seen)
        while seen < images:
            model.train()
            rate = learning_rate(peak_rate, seen, images)
            for group in optimiser.param_groups:
                group["lr"] = rate
            index = torch.randint(len(train), (batch,), generator=generator)
            dropped = torch.rand(batch, generator=generator) < 0.1
            labels = train_labels[index].masked_fill(dropped, NULL_CLASS)
            sigma = noise_levels(batch, generator)
            noise = torch.randn(batch, 1, 28, 28, generator=generator)
            loss = edm_loss(compiled, to_signed(train[index]), labels, sigma, noise)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            seen += batch
            # The average spans about a tenth of the images seen, at most 60,000 of them.
            decay = 0.5 ** (batch / min(0.05 * seen, 30_000))
            with torch.no_grad():
                torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)
            running += loss.item()
            steps += 1
            progress.update(task, completed=seen, description=f"loss {running / steps:.4f}")
            if steps % 400 == 0 or seen >= images:
                seconds = time.monotonic() - started
                card = {
                    "images": seen, "planned": images, "batch": batch, "seed": seed,
                    "minutes": round(seconds / 60, 1), "loss": round(running / steps, 5),
                    "validation_loss": round(validation_loss(ema, test, test_labels), 5),
                }  # fmt: skip
                console.print(json.dumps(card))
                with (run / "log.jsonl").open("a") as log:
                    log.write(json.dumps(card) + "\n")
                torch.save(
                    {
                        "model": model.state_dict(), "ema": ema.state_dict(),
                        "optimiser": optimiser.state_dict(), "generator": generator.get_state(),
                        "seen": seen, "seconds": seconds,
                    },
                    checkpoint.with_suffix(".new"),
                )  # fmt: skip
                checkpoint.with_suffix(".new").replace(checkpoint)
                save_weights(ema, out, card)
                running, steps = 0.0, 0


@app.command()
def classifier(
    epochs: Annotated[int, typer.Option(help="passes over the training split")] = 12,
    seed: Annotated[int, typer.Option(help="of weights and batches")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads")] = 2,
    out: Annotated[Path, typer.Option(help="where the weights go")] = WEIGHTS
    / "classifier.safetensors",
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
