"""What the training commands share: the state of a run, its loop, and the file of weights.

Adam with a warm-up and a linear decay to zero, and an exponential moving average of the weights.
A run that was stopped goes on from its folder where it was.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import torch
import typer
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn

from fewstep.progress import Progress

console = Console()
WEIGHTS = Path(__file__).parents[1] / "weights"
WARMUP_IMAGES = 25_000
STEPS_A_SAVE = 400
CHECKPOINT = "checkpoint.pt"

# Options of the commands.
Seed = Annotated[int, typer.Option(help="of weights, batches and noise")]
Threads = Annotated[int, typer.Option(help="CPU threads")]
Images = Annotated[int, typer.Option(help="training images, repeats counted")]
Batch = Annotated[int, typer.Option(help="images a step")]
Run = Annotated[Path, typer.Option(help="folder of its checkpoint")]
Out = Annotated[Path, typer.Option(help="where the weights go")]


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


Net = TypeVar("Net", bound=nn.Module)


class Training(Generic[Net]):
    """The state of a run: network, average, optimiser, draws, and how far it is.

    Args:
        make: makes the network.
        seed: of weights, batches and noise.
        batch: images a step.
        peak_rate: the highest learning rate.
        decay: AdamW's weight decay.
    """

    def __init__(
        self, make: Callable[[], Net], *, seed: int, batch: int, peak_rate: float, decay: float = 0
    ) -> None:
        torch.manual_seed(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.seed, self.batch, self.peak_rate = seed, batch, peak_rate
        self.model = make().to(memory_format=torch.channels_last)
        self.ema = make().to(memory_format=torch.channels_last)
        self.ema.load_state_dict(self.model.state_dict())
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), peak_rate, betas=(0.9, 0.99), weight_decay=decay
        )
        self.compiled = torch.compile(self.model)
        self.seen, self.seconds = 0, 0.0

    def update(self, loss: Tensor, total: int) -> float:
        """Learns from the loss of one batch; returns it."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.peak_rate, self.seen, total)
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

    def train(
        self,
        total: int,
        loss: Callable[["Training[Net]"], Tensor],
        figures: Callable[[Net], dict[str, Any]],
        run: Path,
        out: Path,
    ) -> None:
        """Goes on until ``total`` images were seen.

        Every 400 steps, and at the end, the checkpoint, the log and the weights are written.

        Args:
            total: images, repeats counted.
            loss: draws a batch of the run and returns its loss.
            figures: what the averaged network reaches, for the log.
            run: folder of checkpoint and log.
            out: where the weights go.
        """
        run.mkdir(parents=True, exist_ok=True)
        if (run / CHECKPOINT).exists():
            self.load(run / CHECKPOINT)
        started, losses = time.monotonic() - self.seconds, []
        with Progress.shown("training", "images") as progress:
            while self.seen < total:
                self.model.train()
                losses.append(self.update(loss(self), total))
                mean = sum(losses) / len(losses)
                progress.at(self.seen, total, f"loss {mean:.4f}")
                if len(losses) < STEPS_A_SAVE and self.seen < total:
                    continue
                self.seconds = time.monotonic() - started
                progress.say(self._record(total, mean, figures(self.ema.eval()), run, out))
                losses.clear()

    def _record(
        self, total: int, loss: float, figures: dict[str, Any], run: Path, out: Path
    ) -> str:
        """Writes checkpoint, log and weights; the line of the log."""
        card = {
            "images": self.seen, "planned": total, "batch": self.batch, "seed": self.seed,
            "minutes": round(self.seconds / 60, 1), "loss": round(loss, 5), **figures,
        }  # fmt: skip
        with (run / "log.jsonl").open("a") as log:
            log.write(json.dumps(card) + "\n")
        self.save(run / CHECKPOINT)
        save_weights(self.ema, out, card)
        return json.dumps(card)

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
