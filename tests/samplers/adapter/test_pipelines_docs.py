"""The recipes of ``docs/pipelines.md`` run, with small pipelines in place of the downloads."""

import builtins
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import tiny_pipelines as tiny
from PIL import Image
from watch import Watch

import fewstep
from fewstep.schedules.diffusers.config import REFUSED

PAGE = Path(__file__).resolve().parents[3] / "docs" / "pipelines.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
SMALL = {"height": 16, "width": 16, "max_sequence_length": 8}
BUILDERS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "DDPMPipeline": (tiny.ddpm, {}),
    "DiTPipeline": (tiny.dit, {}),
    "StableDiffusionPipeline": (tiny.stable_diffusion, {}),
    "StableDiffusionInpaintPipeline": (tiny.inpaint, {}),
    "StableDiffusionXLPipeline": (tiny.sdxl, {}),
    "StableDiffusionXLImg2ImgPipeline": (tiny.sdxl_img2img, {}),
    "StableDiffusion3Pipeline": (tiny.sd3, SMALL),
    "FluxPipeline": (tiny.flux, SMALL),
    "WanPipeline": (tiny.wan, {**SMALL, "num_frames": 5}),
}
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def stand_in(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``from_pretrained`` gives the small pipeline; sizes that a page leaves at 1024 are small."""
    build, sizes = BUILDERS[name]
    kind = getattr(diffusers, name)
    load, call = kind.from_pretrained, kind.__call__

    def from_pretrained(folder: str, **kwargs: Any) -> Any:
        return load(folder, **kwargs) if Path(folder).is_dir() else build()

    monkeypatch.setattr(kind, "from_pretrained", from_pretrained)
    if sizes:
        monkeypatch.setattr(kind, "__call__", lambda self, *a, **k: call(self, *a, **sizes, **k))


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in BUILDERS:
        stand_in(name, monkeypatch)
    picture = Image.fromarray(np.zeros((16, 16, 3), np.uint8))
    for file in ("photo.png", "mask.png"):
        picture.save(file)
    cache = "diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE"
    monkeypatch.setattr(cache, str(tmp_path / "modules"))
    return tmp_path


def test_every_block_runs(page: Path) -> None:
    """One after the other, as a reader would run them; each recipe plans the calls it asks for."""
    names: dict[str, Any] = {"__name__": "page"}
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"block {number}", "exec"), names)
        for pipe in (names[name] for name in ("pipe", "base", "refiner") if name in names):
            assert type(pipe.scheduler).__module__ == "fewstep"
        asked = re.search(r"\bpipe\(.*num_inference_steps=(\d+)", block)
        if asked:
            assert len(names["pipe"].scheduler.timesteps) == int(asked[1])
    assert (page / "lighthouse" / "scheduler" / "fewstep.py").exists()


def test_the_page_has_a_recipe_for_each_pipeline() -> None:
    text = "".join(BLOCKS)
    assert not [name for name in BUILDERS if f"{name}.from_pretrained" not in text]
    named = set(re.findall(r"`([A-Z]\w+)`", PAGE.read_text()))
    ours = {name for name in named if not hasattr(diffusers, name)}
    # REFUSED has classes of the newest diffusers, which an older one lacks.
    assert ours <= {*fewstep.__all__, *REFUSED, *dir(builtins)}


def test_strength_in_the_recipe_makes_six_calls(page: Path) -> None:
    recipe = next(block for block in BLOCKS if "ForImage2Image" in block)
    pipe = diffusers.AutoPipelineForImage2Image.from_pipe(tiny.stable_diffusion())
    with Watch(pipe) as seen:
        made = "AutoPipelineForImage2Image.from_pipe(pipe)"
        exec(recipe.replace(made, "pipe"), {"pipe": pipe, "fewstep": fewstep})
    assert seen.calls == 6
