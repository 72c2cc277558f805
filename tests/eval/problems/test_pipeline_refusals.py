"""Pipelines that are there and cannot be problems: one line each, with what to do."""

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import tiny_pipelines

from fewstep.eval.problems import load_problem


def saved(pipe: Any, folder: Path, **index: Any) -> str:
    pipe.save_pretrained(folder)
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **index}))
    return str(folder)


def refused(name: str, prompts: Path | None = None, **kwargs: Any) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load_problem(name, prompts=prompts, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def plain_config(network: Any) -> dict[str, Any]:
    """Without what diffusers notes of defaults, which it would restore."""
    return {key: value for key, value in network.config.items() if not key.startswith("_")}


@pytest.fixture
def sd(tmp_path: Path) -> str:
    return saved(tiny_pipelines.stable_diffusion(), tmp_path / "sd")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_refusals_of_prompts(sd: str, tmp_path: Path) -> None:
    assert refused(sd) == (
        f"{sd} is a StableDiffusionPipeline, which takes text: give prompts, a text file with one "
        "a line (--prompts FILE)"
    )
    path = tmp_path / "prompts.txt"
    assert refused(sd, path) == f"no prompts at {path}; give a text file with one prompt a line"
    path.write_text(" \n\n")
    assert refused(sd, path) == f"{path} holds no prompt; write one a line"
    path.write_bytes(b"caf\xe9\n")
    assert f"{path} is not UTF-8 text" in refused(sd, path)
    ddpm = saved(tiny_pipelines.ddpm(), tmp_path / "ddpm")
    assert refused(ddpm, path) == (
        f"{ddpm} is a DDPMPipeline, which takes no text; leave the prompts out"
    )
    assert refused(ddpm, dtype="int8") == (
        "dtype must be one of float32, float16, bfloat16, got 'int8'"
    )


def test_refusals_of_pipelines(tmp_path: Path) -> None:
    flux = saved(tiny_pipelines.flux(), tmp_path / "flux")
    assert refused(flux).startswith(
        f"{flux} is a FluxPipeline, which fewstep cannot take apart; it knows DDPMPipeline, "
    )
    assert "module:attribute" in refused(flux)
    strange = saved(tiny_pipelines.ddpm(), tmp_path / "strange", _class_name=["a", "b"])
    assert "which fewstep cannot take apart" in refused(strange)
    damaged = saved(tiny_pipelines.ddpm(), tmp_path / "damaged")
    (weights,) = Path(damaged, "unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    assert refused(damaged).startswith(f"the pipeline in {damaged} cannot be read (")
    Path(damaged, "model_index.json").write_text("{")
    assert refused(damaged).startswith(f"the pipeline in {damaged} cannot be read (")


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [
        (diffusers.EDMEulerScheduler(), "its scheduler scales the network's input and output"),
        (diffusers.IPNDMScheduler(), "IPNDMScheduler has no fewstep noise process"),
        (diffusers.ScoreSdeVeScheduler(), "does not tell what its network predicts"),
    ],
)
def test_schedulers_that_tell_of_no_denoiser(scheduler: Any, reason: str, tmp_path: Path) -> None:
    pipe = tiny_pipelines.ddpm()
    pipe.scheduler = scheduler
    line = refused(saved(pipe, tmp_path / "pipe"))
    assert line.startswith(f"cannot take {tmp_path / 'pipe'} for a problem: ")
    assert reason in line
    assert line.endswith("write it as a function that returns a Problem, and name it "
                         "module:attribute")  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"sample_size": None}, "does not tell its sample_size"),
        ({"out_channels": 5}, "sees 3 channels and predicts 5"),
        ({"class_embed_type": "timestep"}, "takes class embeddings of type 'timestep'"),
    ],
)
def test_networks_that_are_no_denoiser(
    settings: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    config = {**plain_config(tiny_pipelines.ddpm().unet), **settings}
    pipe = diffusers.DDPMPipeline(
        diffusers.UNet2DModel.from_config(config), diffusers.DDPMScheduler()
    )
    assert reason in refused(saved(pipe, tmp_path / "pipe"))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_distilled_network_is_refused(tmp_path: Path) -> None:
    pipe = tiny_pipelines.stable_diffusion()
    config = {**plain_config(pipe.unet), "time_cond_proj_dim": 8}
    pipe = tiny_pipelines.stable_diffusion(unet=type(pipe.unet).from_config(config))
    (tmp_path / "prompts.txt").write_text("a\n")
    line = refused(saved(pipe, tmp_path / "pipe"), tmp_path / "prompts.txt")
    assert "is told the guidance scale (a distilled model)" in line
