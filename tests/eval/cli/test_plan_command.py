"""``fewstep plan`` of saved and tuned plans, and the command line with them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import call, tree
from PIL import Image

from fewstep.eval.bench.jobs import DEFAULT_CALLS, make_jobs
from fewstep.eval.bench.sweeps import read_sweep
from fewstep.eval.problems import load_problem
from fewstep.eval.reports.plan_numbers import nodes, step_weights
from fewstep.samplers import DEFAULT_SPECS, Plan, build_plan
from fewstep.samplers.adapter.files import save_tuned
from fewstep.samplers.adapter.process_config import scheduler_config
from fewstep.samplers.gaussian.class_gaussians import ClassGaussians
from fewstep.samplers.gaussian.fit import fit_gaussian
from fewstep.samplers.gaussian.warm import warm_plan
from fewstep.samplers.tuning.flatten import flatten
from fewstep.schedules import Flow, discrete_vp

PROCESS = discrete_vp("linear")
WEIGHTS = Path(__file__).parents[3] / "models/weights/fashion.safetensors"


def about(start: Plan | None, **changes: Any) -> dict[str, Any]:
    """A provenance as tuning writes it."""
    return {"tuned": {
        "version": "0.9", "model": "0123456789abcdef", "prediction_type": "epsilon",
        "problem": "fashion", "guidance": "cfg:3", "nfe": 5, "family": "tied",
        "objective": {"match": "samples"}, "seeds": {"tune": 11, "select": 12, "report": 13},
        "noises": {"tune": 64, "select": 65, "report": 66},
        "start": {} if start is None else {"spec": start.name, "plan": start.table()},
        "error": {"tune": 0.0811, "select": 0.0822, "report": 0.0833, "select_before": 0.1544,
                  "report_before": 0.1555, "teacher": 0.00166},
        "curve": [[0.15, 0.1544], [0.0811, 0.0822]], "calls": 310.0, "seconds": 123.4,
        "fixed": {"unipc": {"5": 0.1555, "10": 0.0477}, "deis": {"5": 0.1666, "10": 0.0488}},
        **changes,
    }}  # fmt: skip


def tuned(folder: Path, landed: bool = False) -> tuple[Path, Plan, Plan]:
    """A file, or with a start a folder; its plan, and the plan that came before."""
    start = build_plan("unipc", PROCESS, 5)
    early = warm_plan("dpmpp", PROCESS, 5, 3.0) if landed else build_plan("deis", PROCESS, 5)
    plan = flatten(early, PROCESS).plan("tied 5")
    plan = replace(plan, provenance={**plan.provenance, **about(start)})
    path = folder / ("m5" if landed else "m5.json")
    fit = fit_gaussian(torch.randn(32, 3, generator=torch.Generator().manual_seed(0)))
    save_tuned(path, [plan], scheduler_config(PROCESS, "epsilon"), fit if landed else None)
    return path, plan, start


@pytest.mark.parametrize("landed", [False, True])
def test_a_tuned_plan_beside_its_start(landed: bool, tmp_path: Path, capsys) -> None:
    """Every figure of the provenance, the levels of both and the weights of both are printed."""
    path, plan, start = tuned(tmp_path, landed)
    before = tree(tmp_path)
    assert call("plan", path) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.startswith(f"{plan}\n")
    for wanted in (
        "tuned for fashion (model 01234567), guidance cfg:3, 5 calls: family tied",
        "predicts epsilon", "fewstep 0.9", "objective: match samples", "tuned in 123 s",
        "64 to tune (seed 11), 65 to select (seed 12), 66 to report (seed 13)",
        "0.0833 to report, 0.155 before", "0.0822 to select, 0.154 before", "0.0811 to tune",
        "0.00166 of the teacher", "5 calls: 0.155, unipc", "10 calls: 0.0477, unipc",
        "--plot PATH.png draws both",
    ):  # fmt: skip
        assert wanted in printed.out
    assert ("starts from a Gaussian at sigma/alpha = 3, after 2 rows" in printed.out) == landed
    words = printed.out.split()
    for one in (plan, start):
        assert all(f"{node.rho:.4g}" in words for node in nodes(one))
        assert all(f"{node.time:.4g}" in words for node in nodes(one))
        # What is to the right of the diagonal is 0, and left out.
        assert all(f"{w:.3f}" in words for w in step_weights(one).flatten() if w)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("landed", [False, True])
def test_the_picture(landed: bool, tmp_path: Path, capsys) -> None:
    path, _, _ = tuned(tmp_path, landed)
    out = tmp_path / "deep" / "m5.png"
    assert call("plan", path, "--plot", out) == 0
    assert f"picture: {out}" in capsys.readouterr().out
    with Image.open(out) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) > 300
    # Blue and orange for the plans, red and blue for their weights, on white.
    assert (pixels.max(2) - pixels.min(2) > 60).mean() > 0.02
    assert (pixels == 255).all(2).mean() > 0.3
    assert [one.name for one in out.parent.iterdir()] == ["m5.png"]


@pytest.mark.parametrize("provenance", [about(None), {"tuned": {"family": "tied"}}])
def test_a_provenance_with_gaps(provenance: dict[str, Any], tmp_path: Path, capsys) -> None:
    plan = replace(build_plan("ipndm", PROCESS, 4), provenance=provenance)
    plan.save(tmp_path / "p.json")
    assert call("plan", tmp_path / "p.json", "--plot", tmp_path / "p.png") == 0
    printed = capsys.readouterr().out
    assert "family tied" in printed
    assert "weights of the data predictions, tuned" in printed


def test_a_plan_without_weights_is_printed_all_the_same(tmp_path: Path, capsys) -> None:
    provenance = about(build_plan("unipc", PROCESS, 4))
    replace(build_plan("sa", PROCESS, 4), provenance=provenance).save(tmp_path / "p.json")
    assert call("plan", tmp_path / "p.json") == 0
    printed = capsys.readouterr()
    assert "adds noise" in printed.out
    assert "start unipc" in printed.out
    assert call("plan", tmp_path / "p.json", "--plot", tmp_path / "p.png") == 2
    assert "adds noise" in capsys.readouterr().err
    assert not (tmp_path / "p.png").exists()


@pytest.mark.parametrize("process", [PROCESS, Flow()], ids=["vp", "flow"])
@pytest.mark.parametrize("spec", [*DEFAULT_SPECS[:-1], "singlestep", "dpmpp:order=3"])
def test_step_weights_are_those_of_the_tied_form(spec: str, process) -> None:
    plan = build_plan(spec, process, 5)
    weights = step_weights(plan)
    np.testing.assert_allclose(weights, flatten(plan, process).weights(), rtol=0, atol=1e-9)
    late = warm_plan("dpmpp", process, 5, 3.0)
    table = flatten(late, process)
    np.testing.assert_allclose(step_weights(late), table.weights(), rtol=0, atol=1e-9)
    assert [node.name for node in nodes(late)] == ["-2", "-1", "0", "1", "2", "3", "4"]


def test_specs_and_files_are_checked_as_they_should(tmp_path: Path, capsys) -> None:
    path, _, _ = tuned(tmp_path)
    several = [flatten(build_plan("deis", PROCESS, n), PROCESS).plan() for n in (4, 6)]
    save_tuned(tmp_path / "two.json", several, scheduler_config(PROCESS, "epsilon"))
    refused = {
        ("plan", path, "--nfe", "4"): "makes 5 calls, not 4",
        ("plan", path, "--process", "flow"): "another noise process",
        ("plan", tmp_path / "two.json"): "holds plans of 4, 6 calls, say which",
        ("plan", path, "--plot", tmp_path / "a.pdf"): "--plot must name a .png file",
        ("plan", path, "--save", tmp_path / "a.txt"): "--save must name a .json file",
        ("plan", tmp_path / "gone.json"): "no plan at",
    }
    for arguments, message in refused.items():
        assert call(*arguments) == 2
        printed = capsys.readouterr()
        assert (printed.out, printed.err.count("\n")) == ("", 1)
        assert message in printed.err
    assert call("plan", tmp_path / "two.json", "--nfe", "6", "--save", tmp_path / "6.json") == 0
    assert Plan.load(tmp_path / "6.json") == several[1]
    assert call("plan", path, "--problem", "mix8-linear") == 0
    assert "tuned on another model (fashion, 01234567)" in capsys.readouterr().err
    assert call("plan", "ipndm") == 0
    assert capsys.readouterr().out == f"{build_plan('ipndm', PROCESS, 10)}\n"
    assert call("plan", "ipndm", "--nfe", "4", "--plot", tmp_path / "ipndm.png") == 0
    assert (tmp_path / "ipndm.png").is_file()


@pytest.mark.skipif(not WEIGHTS.exists(), reason="no bundled weights")
def test_sample_and_gen_take_tuned_plans(tmp_path: Path, capsys) -> None:
    """``sample`` jumps by class; ``gen``, whose settings keep plans alone, refuses a Gaussian."""
    images = torch.randn(20, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    fits = ClassGaussians((fit_gaussian(images),) * 10)
    plan = flatten(warm_plan("dpmpp", load_problem("fashion").process, 3, 3.0), PROCESS).plan()
    config = scheduler_config(PROCESS, "sample")
    save_tuned(tmp_path / "m", [plan], config, fits)
    out = tmp_path / "s.png"
    asked = ("sample", "--sampler", tmp_path / "m", "--n", "2", "--out", out)
    assert call(*asked, "--nfe", "3") == 0
    assert "3 calls, 3 network evaluations an image" in capsys.readouterr().out
    assert call(*asked, "--nfe", "5") == 2
    assert "makes 3 calls, not 5" in capsys.readouterr().err
    assert call("gen", "-s", tmp_path / "m", "-o", tmp_path / "run", "--seeds", "0-3") == 2
    assert "a run's settings cannot keep" in capsys.readouterr().err
    save_tuned(tmp_path / "usual.json", [flatten(build_plan("deis", PROCESS, 3), PROCESS).plan()],
               config)  # fmt: skip
    assert call("gen", "-s", tmp_path / "usual.json", "-o", tmp_path / "run", "--seeds", "0-3") == 0
    assert "4 samples" in capsys.readouterr().out


@pytest.mark.skipif(not WEIGHTS.exists(), reason="no bundled weights")
def test_commands_take_the_number_of_calls_of_a_plan(tmp_path: Path, capsys) -> None:
    """Without ``--nfe``; with another one they refuse, in a line that names the file."""
    path, folder = tmp_path / "m3.json", tmp_path / "m"
    plans = [build_plan("ddim", PROCESS, n) for n in (2, 3)]
    plans[1].save(path)
    save_tuned(folder, plans, scheduler_config(PROCESS, "epsilon"))
    bench = ("bench", "--problem", "fashion", "-s", path, "--n", "2", "--out", tmp_path / "b")
    commands = {
        "sample": ("sample", "--sampler", path, "--n", "1", "--out", tmp_path / "s.png"),
        "gen": ("gen", "-s", path, "--seeds", "0-1", "-o", tmp_path / "g"),
        "bench": (*bench, "-s", "euler"),
    }
    for name, command in commands.items():
        assert call(*command, "--nfe", "4") == 2
        printed = capsys.readouterr()
        (line,) = [line for line in printed.err.splitlines() if not line.startswith("warning: ")]
        assert line.startswith(f"error: {path}")
        assert "3 calls" in line
        assert "leave nfe out" in line
        assert name == "bench" or not printed.out
    assert call(*commands["sample"]) == 0
    assert "1 images, ddim, 3 calls" in capsys.readouterr().out
    assert call(*commands["gen"], "--quiet") == 0
    assert json.loads((tmp_path / "g" / "config.json").read_text())["config"]["nfe"] == 3
    settings = read_sweep(None, {"samplers": [str(path), "euler"]})
    jobs = make_jobs(settings.samplers, PROCESS, settings.nfe)
    assert [job.nfe for job in jobs] == [3, *DEFAULT_CALLS]
    jobs = make_jobs([str(folder), "euler"], PROCESS, [3, 4])
    assert [(job.sampler, job.nfe) for job in jobs] == [("m", 3), ("euler", 3), ("euler", 4)]
