"""What ``fewstep sample`` does: images of the bundled model, drawn into one PNG."""

from dataclasses import dataclass
from pathlib import Path

import torch

from fewstep.eval.cli.next_steps import command, next_line
from fewstep.eval.common.folders import all_or_nothing, check_writable
from fewstep.eval.common.limits import MAX_PICTURE, check_seed
from fewstep.eval.common.processes import resolve_device
from fewstep.eval.problems import load_problem
from fewstep.eval.problems.guided_plans import guided_plan
from fewstep.eval.problems.guides import Meter, read_guidance
from fewstep.eval.problems.tuned_plans import warn_other_model
from fewstep.models import data
from fewstep.progress import Progress
from fewstep.samplers import sample as draw_samples
from fewstep.samplers.gaussian.class_gaussians import load_start
from fewstep.samplers.gaussian.warm import start_hooks
from fewstep.samplers.sampling.diverged import refused
from fewstep.samplers.solvers.registry import names_file
from fewstep.schedules.limits import at_most

DEFAULT_CALLS = 10  # of a spec in `fewstep sample`


@dataclass(frozen=True)
class Drawing:
    """What ``fewstep sample`` draws; the fields are its options."""

    classes: tuple[int, ...]
    n: int
    seed: int
    sampler: str
    nfe: int | None  # None: 10, or those of a saved plan
    guidance: str
    device: str

    def __post_init__(self) -> None:
        if bad := [c for c in self.classes if not 0 <= c <= 9]:
            raise ValueError(f"classes are 0 to 9, got {bad[0]}; names: {_class_names()}")
        if self.n < 1:
            raise ValueError(f"n must be at least 1 image, got {self.n}")
        at_most("n, the images of one picture,", self.n, MAX_PICTURE)
        check_seed(self.seed)


def _class_names() -> str:
    return ", ".join(f"{i} {name}" for i, name in enumerate(data.CLASS_NAMES))


def draw(drawing: Drawing, out: Path, progress: Progress) -> None:
    """Samples the bundled model into one PNG, written whole or not at all."""
    if out.is_dir() or out.suffix.lower() != ".png":
        raise ValueError(f"--out must name a .png file, got {out}")
    check_writable(out.parent)
    device = resolve_device(drawing.device)
    problem = load_problem("fashion", device)
    guidance = read_guidance(drawing.guidance, problem).expression
    nfe = drawing.nfe
    if nfe is None and not names_file(drawing.sampler):
        nfe = DEFAULT_CALLS
    plan = guided_plan(drawing.sampler, problem.process, nfe, guidance)
    warn_other_model(plan, problem.fingerprint, drawing.guidance)
    fit = load_start(drawing.sampler)
    across, rows_made = len(drawing.classes), 0
    chosen = torch.tensor(drawing.classes, device=device)
    noise, images = problem.initial_noise(drawing.n, drawing.seed), []
    for start in range(0, drawing.n, 128):
        progress.at(start, drawing.n)
        rows, meter = noise[start : start + 128], Meter(guidance)
        labels = chosen[torch.arange(start, start + len(rows), device=device) % across]
        seeds = [drawing.seed * 2**32 + 2**24 + start + i for i in range(len(rows))]
        with torch.no_grad(), refused():
            x = draw_samples(
                problem.denoiser, plan, plan.calls, noise=rows, cond=labels, guidance=meter,
                seeds=seeds, hooks=start_hooks(plan, problem.process, fit, labels),
            )  # fmt: skip
        images.append(x.cpu())
        rows_made += meter.counters.rows
    progress.at(drawing.n, drawing.n)
    _write_columns(torch.cat(images), drawing, plan.calls, out)
    progress.close()
    cost = f"{plan.calls} calls, {rows_made / drawing.n:g} network evaluations an image"
    print(f"{out}: {drawing.n} images, {plan.name}, {cost}")
    guided = () if drawing.guidance == "none" else ("-g", drawing.guidance)
    many = ("gen", "-s", drawing.sampler, "--nfe", plan.calls, *guided, "--seeds", "0-999")
    print(next_line(f"{command('fewstep', *many, '-o', 'runs/samples')} for many, to be scored"))


def _write_columns(images: torch.Tensor, drawing: Drawing, calls: int, out: Path) -> None:
    from fewstep.eval.reports.figures import draw_images

    across = min(len(drawing.classes), len(images))
    # White tiles fill the last line.
    missing = torch.ones(-len(images) % across, *images.shape[1:])
    lines = torch.cat([images, missing]).split(across)
    names = [data.CLASS_NAMES[c] for c in drawing.classes[:across]]
    guided = "" if drawing.guidance == "none" else f", {drawing.guidance}"
    title = f"{drawing.sampler}, {calls} calls, seed {drawing.seed}{guided}"
    with all_or_nothing(out.parent) as folder:
        rows = {" " * i: line for i, line in enumerate(lines)}
        draw_images(folder / out.name, rows, title=title, columns=names)
