"""Folders of tiny pipelines, as problems are loaded from."""

import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import tiny_pipelines
import torch
from safetensors.torch import load_file, save_file

from fewstep.eval.problems import Problem, load_problem

PROMPTS = ["a b c", "d e", "f g h i"]
_ROOT = tempfile.TemporaryDirectory()  # until the tests end


def ddpm() -> Any:
    """Of v: random networks that predict noise draw nothing but white and black pixels."""
    scheduler = diffusers.DDPMScheduler(prediction_type="v_prediction")
    return diffusers.DDPMPipeline(unet=tiny_pipelines.ddpm().unet, scheduler=scheduler)


def ldm() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vqvae = diffusers.VQModel(
            block_out_channels=(8, 16), norm_num_groups=4, latent_channels=3,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        ).eval()  # fmt: skip
    scheduler = diffusers.DDIMScheduler(prediction_type="sample", beta_schedule="scaled_linear")
    return diffusers.LDMPipeline(
        unet=tiny_pipelines.ddpm().unet, vqvae=vqvae, scheduler=scheduler
    )  # fmt: skip


BUILDERS: dict[str, Callable[[], Any]] = {
    **{name: build for name, (build, _) in tiny_pipelines.PIPELINES.items()},
    "ddpm": ddpm,
    "ldm": ldm,
}
TEXT = ("sd", "sdxl", "sd3")


@functools.cache
def saved(case: str) -> Path:
    """The folder of a pipeline."""
    folder = Path(_ROOT.name) / case
    BUILDERS[case]().save_pretrained(folder)
    return folder


def prompt_file(folder: Path) -> Path:
    path = folder / "prompts.txt"
    path.write_text("\n".join(PROMPTS) + "\n\n")
    return path


def loaded(case: str, prompts: Path, **kwargs: Any) -> Problem:
    return load_problem(str(saved(case)), prompts=prompts if case in TEXT else None, **kwargs)


def changed(folder: Path, part: str, into: Path) -> Path:
    """A copy of a pipeline in which one weight of one component is another."""
    shutil.copytree(folder, into)
    (path,) = (into / part).glob("*.safetensors")
    weights = load_file(path)
    key = sorted(weights)[len(weights) // 2]
    weights[key].view(-1)[-1] += 0.25
    save_file(weights, path, {"format": "pt"})
    return into
