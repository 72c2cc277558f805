"""Pipelines with our schedulers: saved, loaded in a new process, with and without the shim."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.pipeline_loading_utils import load_sub_model
from helpers import scheduler_classes
from tiny_pipelines import PIPELINES, ddpm, with_scheduler
from watch import run

import fewstep
from fewstep.samplers.adapter.shim import MARK, NAME

CLASSES = scheduler_classes()
# Older versions ask before they run the code of a download, not that of a folder.
ASKS_FOR_FOLDERS = "trust_remote_code" in inspect.signature(load_sub_model).parameters

# Weights from a file lie at other addresses than those they were saved from, and where they start
# decides which kernels run on some processors. So predictions differ by rounding, 1e-6 through
# the layers, which is divided by the first alpha, 0.006. Measured: 4e-5.
ROUNDING = 1e-3
CASES = [case for case in PIPELINES if case not in ("dit", "inpaint", "inpaint9")]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

LOAD = """
import sys
{before}
import numpy as np, torch, diffusers
{after}
diffusers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)
pipe = diffusers.DiffusionPipeline.from_pretrained({folder!r}, **{options!r})
image = pipe(num_inference_steps=4, generator=torch.Generator().manual_seed(1), output_type="np")
np.save({folder!r} + "/image.npy", image.images)
print(type(pipe.scheduler).__module__, type(pipe.scheduler).__name__)
"""


def saved(name: str, folder: Path) -> diffusers.DDPMPipeline:
    pipe = ddpm()
    pipe.scheduler = getattr(fewstep, name).from_config(pipe.scheduler.config)
    pipe.save_pretrained(folder)
    return pipe


def load(folder: Path, before: str = "", after: str = "", **options) -> subprocess.CompletedProcess:
    """Loads and runs the pipeline in a new process."""
    program = LOAD.format(folder=str(folder), before=before, after=after, options=options)
    modules = {"HF_MODULES_CACHE": str(folder / "modules")}  # where diffusers copies shims
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, **modules}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def assert_same_images(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING)  # in [0, 1]


def assert_same_weights(found: diffusers.DiffusionPipeline, expected: object) -> None:
    """Of every network, to the bit: a file holds what it was given."""
    networks = {
        name: part for name, part in found.components.items() if isinstance(part, torch.nn.Module)
    }
    assert networks
    for name, part in networks.items():
        weights, others = part.state_dict(), getattr(expected, name).state_dict()
        assert weights.keys() == others.keys()
        assert all(torch.equal(weights[key], others[key]) for key in others)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "order"), [("UniPC", "before"), ("Heun", "after")])
def test_saved_and_loaded_in_a_new_process(name: str, order: str, tmp_path: Path) -> None:
    """``import fewstep`` is all it takes, before or after diffusers."""
    pipe = saved(name, tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["scheduler"] == ["fewstep", name]
    done = load(tmp_path, **{order: "import fewstep"})
    assert done.stdout.split() == ["fewstep", name], done.stderr
    assert_same_images(np.load(tmp_path / "image.npy"), run(pipe, 4))


@pytest.mark.slow
def test_the_shim_loads_without_the_import(tmp_path: Path) -> None:
    pipe = saved("UniPC", tmp_path)
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    index = (tmp_path / "model_index.json").read_bytes()
    shim = fewstep.write_shim(tmp_path)
    assert shim == tmp_path / "scheduler" / "fewstep.py"
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == files | {shim}
    assert (tmp_path / "model_index.json").read_bytes() == index
    text = shim.read_bytes()
    assert fewstep.write_shim(str(tmp_path)) == shim  # again
    assert shim.read_bytes() == text
    done = load(tmp_path, trust_remote_code=True)
    assert done.stdout.split() == ["fewstep", "UniPC"], done.stderr
    assert_same_images(np.load(tmp_path / "image.npy"), run(pipe, 4))


def test_code_is_not_run_without_leave(tmp_path: Path) -> None:
    """A shim makes diffusers ask for trust_remote_code even where fewstep was imported."""
    saved("UniPC", tmp_path)
    fewstep.write_shim(tmp_path)
    if ASKS_FOR_FOLDERS:
        with pytest.raises(ValueError, match="trust_remote_code=True"):
            diffusers.DiffusionPipeline.from_pretrained(tmp_path)
    other = fewstep.DEIS.from_pretrained(tmp_path, subfolder="scheduler")
    pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path, scheduler=other)
    assert pipe.scheduler is other


@pytest.mark.slow
def test_the_shim_says_what_to_install(tmp_path: Path) -> None:
    saved("UniPC", tmp_path)
    fewstep.write_shim(tmp_path)
    done = load(tmp_path, "sys.modules['fewstep'] = None", trust_remote_code=True)
    assert done.returncode == 1
    assert "pip install fewstep" in done.stderr.splitlines()[-1]


def test_two_shims_in_one_process_that_has_imported_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """diffusers copies all of them to one file of its cache."""
    cache = "diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE"
    monkeypatch.setattr(cache, str(tmp_path / "modules"))
    for name in ("UniPC", "Heun"):
        saved(name, tmp_path / name)
        fewstep.write_shim(tmp_path / name)
    for name in ("UniPC", "Heun", "UniPC"):
        pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path / name, trust_remote_code=True)
        assert type(pipe.scheduler) is getattr(fewstep, name)
    pipe.save_pretrained(tmp_path / "again")  # which has no shim, and is loaded as ours
    assert not (tmp_path / "again" / "scheduler" / NAME).exists()
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "again")
    assert type(again.scheduler) is fewstep.UniPC


def test_the_hub_needs_the_shim(tmp_path: Path) -> None:
    """diffusers refuses, before it downloads, an index that names a module without a file."""
    from diffusers.pipelines.pipeline_loading_utils import _get_custom_components_and_folders

    saved("UniPC", tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    with pytest.raises(ValueError, match=r"scheduler/fewstep\.py"):
        _get_custom_components_and_folders("name", index, [])
    shim = fewstep.write_shim(tmp_path)
    files = [shim.relative_to(tmp_path).as_posix()]
    found, _ = _get_custom_components_and_folders("name", index, files)
    assert found == {"scheduler": "fewstep"}


def test_write_shim_refuses(tmp_path: Path) -> None:
    def refused(folder: Path, reason: str) -> None:
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        with pytest.raises(ValueError, match=reason) as error:
            fewstep.write_shim(folder)
        assert "\n" not in str(error.value)
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    refused(tmp_path, r"not a saved pipeline.*save_pretrained")
    (tmp_path / "model_index.json").write_text("[1, 2")
    refused(tmp_path, r"not a saved pipeline.*save_pretrained")
    peer = tmp_path / "peer"
    ddpm().save_pretrained(peer)
    refused(peer, r"is diffusers\.DDPMScheduler, not one of fewstep: set pipe\.scheduler")
    ours = tmp_path / "ours"
    saved("UniPC", ours)
    (ours / "scheduler" / NAME).write_text("# mine")
    refused(ours, "not a shim of ours: move it away")
    (ours / "scheduler" / NAME).write_text(MARK + ", of an older version")
    assert fewstep.write_shim(ours).read_text() != MARK + ", of an older version"


def test_a_failed_write_leaves_the_old_shim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved("UniPC", tmp_path)
    shim = fewstep.write_shim(tmp_path)
    old = MARK + ", of an older version"
    shim.write_text(old)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        fewstep.write_shim(tmp_path)
    assert shim.read_text() == old
    assert not list(shim.parent.glob(".*"))


@pytest.mark.parametrize("case", CASES)
def test_whole_pipelines_come_back(case: str, tmp_path: Path) -> None:
    """Options of the solver and of the process included."""
    if case == "wan":
        pytest.importorskip("accelerate", reason="diffusers needs it to load Wan")
    pipe, inputs = with_scheduler(case, fewstep.DPMSolverPP, order=2, grid="logsnr")
    pipe.save_pretrained(tmp_path)
    again = type(pipe).from_pretrained(tmp_path)
    assert type(again.scheduler) is fewstep.DPMSolverPP
    ours, theirs = (run(each, 3, **inputs) for each in (pipe, again))
    assert again.scheduler.plan == pipe.scheduler.plan
    assert_same_weights(again, pipe)
    assert_same_images(theirs, ours)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_comes_back(cls: type, tmp_path: Path) -> None:
    pipe, _ = with_scheduler("ddpm", cls)
    pipe.save_pretrained(tmp_path)
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path)
    assert type(again.scheduler) is cls
    assert_same_images(run(again, 4), run(pipe, 4))
    assert again.scheduler.plan == pipe.scheduler.plan
    assert_same_weights(again, pipe)
    # Names with an underscore say where a config has been: nothing in a file is a mere default.
    ours, theirs = (
        {key: value for key, value in each.scheduler.config.items() if not key.startswith("_")}
        for each in (pipe, again)
    )
    assert ours == theirs


def test_a_scheduler_can_be_passed_or_loaded_on_its_own(tmp_path: Path) -> None:
    pipe = ddpm()
    pipe.scheduler = fewstep.DPMSolverPP.from_config(pipe.scheduler.config, order=3)
    pipe.save_pretrained(tmp_path)
    alone = fewstep.DPMSolverPP.from_pretrained(tmp_path, subfolder="scheduler")
    assert alone.config.order == 3
    other = fewstep.UniPC.from_pretrained(tmp_path, subfolder="scheduler", order=2)
    again = diffusers.DDPMPipeline.from_pretrained(tmp_path, scheduler=other)
    assert again.scheduler is other
    back = diffusers.DDPMScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    assert back.config.beta_end == 0.02
