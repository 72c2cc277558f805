"""What was saved when the modules had other names loads, and does the same."""

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import tiny_pipelines
import torch

import fewstep
from fewstep.eval.bench.sweeps import read_sweep
from fewstep.eval.reports.lines import read_runs
from fewstep.samplers import Plan, build_plan, sample
from fewstep.samplers.gaussian.class_gaussians import load_start
from fewstep.samplers.gaussian.gaussian import GaussianFit
from fewstep.schedules import discrete_vp

SAVED = Path(__file__).resolve().parents[1] / "support" / "saved"
SCHEDULERS: dict[str, Any] = json.loads((SAVED / "schedulers.json").read_text())


@pytest.mark.parametrize("name", SCHEDULERS)
def test_configs_of_schedulers(name: str, tmp_path: Path) -> None:
    cls, saved = getattr(fewstep, name), SCHEDULERS[name]
    for kind in ("own", "taken over"):
        (tmp_path / "scheduler_config.json").write_text(json.dumps(saved[kind]))
        scheduler = cls.from_pretrained(tmp_path)
        assert json.loads(scheduler.to_json_string()) == saved[kind]
    scheduler.set_timesteps(18)
    # float32 in the file's text, and float64 to one rounding of it
    np.testing.assert_allclose(scheduler.timesteps.numpy(), saved["timesteps"], rtol=1e-6)


def test_a_plan() -> None:
    assert Plan.load(SAVED / "unipc-5.json") == build_plan("unipc", discrete_vp("scaled_linear"), 5)


def test_a_tuned_folder_with_a_start() -> None:
    fit = load_start(SAVED / "tuned")
    assert isinstance(fit, GaussianFit)
    plan = Plan.load(SAVED / "tuned")
    assert (plan.calls, plan.history, plan.provenance["landing"]) == (5, 2, 3.0)
    process = discrete_vp("scaled_linear")

    class Mean:
        """A model of data of one point, where every run ends."""

        def __init__(self) -> None:
            self.process = process

        def __call__(self, x: torch.Tensor, level: Any, cond: Any = None) -> torch.Tensor:
            return torch.full_like(x, 0.25)

    x = sample(Mean(), SAVED / "tuned", noise=torch.randn(2, 2, 2, 2).double())
    torch.testing.assert_close(x, torch.full_like(x, 0.25), rtol=1e-6, atol=0)


def test_runs_of_a_benchmark() -> None:
    (results,) = read_runs(SAVED / "bench" / "results.jsonl")
    assert {row.sampler for row in results.rows} == {"unipc", "ipndm", "euler"}
    assert read_sweep(SAVED / "bench" / "sweep.yaml")


@pytest.mark.parametrize("name", ["UniPC", "Restart"])
def test_a_pipeline(name: str, tmp_path: Path) -> None:
    pipe, _ = tiny_pipelines.with_scheduler("sd", getattr(fewstep, name))
    pipe.save_pretrained(tmp_path)
    config = tmp_path / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(SCHEDULERS[name]["taken over"]))
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["scheduler"] == ["fewstep", name]  # as it always was
    again = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path)
    assert isinstance(again.scheduler, getattr(fewstep, name))
