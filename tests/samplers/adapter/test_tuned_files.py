"""Files of plans: one that is plan and config at once, and a folder with a Gaussian."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gaussians import randn
from teleports import diagonal_fit

from fewstep.eval.bench.jobs import make_jobs, split_specs
from fewstep.eval.bench.runner import prepare, run_bench
from fewstep.eval.bench.setup import Bench
from fewstep.eval.generate.units import Generation
from fewstep.eval.problems import load_problem, rmse
from fewstep.eval.problems.tuned_plans import warn_other_model
from fewstep.samplers import Plan, build_plan, sample
from fewstep.samplers.adapter import schedulers
from fewstep.samplers.adapter.files import save_tuned
from fewstep.samplers.adapter.process_config import scheduler_config
from fewstep.samplers.core.plan import load_plan, load_plans
from fewstep.samplers.gaussian.class_gaussians import load_start
from fewstep.samplers.gaussian.fit import fit_gaussian
from fewstep.samplers.gaussian.warm import WarmTeleport, warm_plan
from fewstep.samplers.solvers.registry import names_file
from fewstep.samplers.tuning.flatten import flatten
from fewstep.schedules import VE, ContinuousVP, Flow, NoiseProcess, discrete_vp

PROCESSES: dict[str, NoiseProcess] = {
    "linear": discrete_vp("linear"),
    "scaled": discrete_vp("scaled_linear", beta_start=0.00085, beta_end=0.012),
    "cosine": discrete_vp("squaredcos_cap_v2"),
    "zero-snr": discrete_vp("linear", zero_terminal_snr=True),
    "4000 steps": discrete_vp("sigmoid", num_train_timesteps=4000, beta_end=0.01),
    "silent table": discrete_vp("laplace", zero_terminal_snr=True),
    "continuous": ContinuousVP(0.2, 15.0, 1e-4),
    "ve": VE(0.01, 50.0),
    "edm": VE(0.002, 80.0, "log"),
    "atan": VE(0.3, 500.0, "atan"),
    "flow": Flow(),
    "flow of 500": Flow(500),
}
KINDS = ("epsilon", "sample", "v_prediction", "flow_prediction")


def tuned(process: NoiseProcess, n: int, **about: Any) -> Plan:
    """A flat plan, with a provenance as tuning writes it."""
    plan = flatten(build_plan("unipc:order=2", process, n), process).plan(f"tuned {n}")
    return replace(plan, provenance={**plan.provenance, "tuned": {"problem": "p", **about}})


def landed(process: NoiseProcess, n: int, history: int = 2) -> Plan:
    return flatten(warm_plan("dpmpp", process, n, 3.0, history), process).plan(f"landed {n}")


def config_of(process: NoiseProcess) -> dict[str, Any]:
    return scheduler_config(process, "flow_prediction" if isinstance(process, Flow) else "sample")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_has_the_config_that_has_the_process(name: str, kind: str) -> None:
    process = PROCESSES[name]
    if kind == "flow_prediction" and not isinstance(process, Flow):
        with pytest.raises(ValueError, match="no scheduler config has the noise process"):
            scheduler_config(process, kind)
        return
    config = scheduler_config(process, kind)
    assert json.loads(json.dumps(config)) == config
    scheduler = schedulers.PlanScheduler.from_config(config)
    assert scheduler.process.identity() == process.identity()
    assert scheduler.config.prediction_type == kind


def test_what_no_config_has() -> None:
    with pytest.raises(ValueError, match="save the plan alone") as raised:
        scheduler_config(ContinuousVP(time_scale=999.0), "epsilon")
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="prediction_type must be one of"):
        scheduler_config(PROCESSES["ve"], "score")


@pytest.mark.parametrize("name", PROCESSES)
def test_one_file_is_plan_and_config(name: str, tmp_path: Path) -> None:
    process, path = PROCESSES[name], tmp_path / "deep" / "m5.json"
    plan = tuned(process, 5)
    save_tuned(path, [plan], config_of(process))
    assert names(path.parent) == ["m5.json"]
    assert Plan.load(path) == build_plan(path, process, 5) == plan  # bit for bit
    table = json.loads(path.read_text())
    assert (table["_class_name"], len(table["plans"])) == ("PlanScheduler", 1)
    scheduler = schedulers.PlanScheduler.from_pretrained(path)
    for one in (scheduler, schedulers.PlanScheduler.from_config(table)):
        one.set_timesteps(5)
        assert one.plan == plan
    scheduler.save_pretrained(tmp_path / "again")
    assert Plan.load(tmp_path / "again") == plan
    assert names(tmp_path / "again") == ["scheduler_config.json"]


def test_several_plans(tmp_path: Path) -> None:
    process = PROCESSES["linear"]
    plans = [tuned(process, n) for n in (8, 4, 5)]
    for path in (tmp_path / "all.json", tmp_path / "all"):
        save_tuned(path, plans, config_of(process))
        assert [plan.calls for plan in load_plans(path)] == [4, 5, 8]
        assert build_plan(str(path), process, 8) == load_plan(path, 8) == plans[0]
        with pytest.raises(ValueError, match="holds plans of 4, 5, 8 calls, say which"):
            Plan.load(path)
        with pytest.raises(ValueError, match="holds plans of 4, 5, 8 calls, not of 6"):
            build_plan(path, process, 6)
    plans[2].save(tmp_path / "one.json")
    with pytest.raises(ValueError, match="makes 5 calls, not 6"):
        build_plan(tmp_path / "one.json", process, 6)


@pytest.mark.parametrize("history", [0, 2])
def test_a_folder_keeps_the_gaussian(history: int, tmp_path: Path) -> None:
    """Which starts the run, with nothing but the path: as by a hook with the same numbers."""
    process, fit = PROCESSES["scaled"], diagonal_fit()
    plan = landed(process, 5, history)
    save_tuned(tmp_path / "m", [plan], config_of(process), fit)
    assert names(tmp_path / "m") == ["scheduler_config.json", "start.safetensors"]

    class Counting:
        calls = 0

        def __init__(self) -> None:
            self.process = process

        def __call__(self, x, level, cond=None):
            Counting.calls += 1
            return torch.tanh(x)

    noise = randn(3, 6, seed=1)
    hook = WarmTeleport(plan, process, fit)
    wanted = sample(Counting(), plan, 5, noise=noise, hooks=[hook])
    assert Counting.calls == 5
    for path in (tmp_path / "m", str(tmp_path / "m")):
        # To rounding, as the Gaussian from a file lies at another address.
        torch.testing.assert_close(sample(Counting(), path, 5, noise=noise), wanted)
    with pytest.raises(ValueError, match="starts from a Gaussian at sigma/alpha = 3: give the"):
        sample(Counting(), plan, 5, noise=noise)
    with pytest.raises(ValueError, match="makes 5 calls, not 7"):
        sample(Counting(), tmp_path / "m", 7, noise=noise)


def test_a_plan_without_a_start_takes_its_place(tmp_path: Path) -> None:
    process = PROCESSES["scaled"]
    (tmp_path / "fewstep.py").write_text("# a shim, not ours to touch")
    save_tuned(tmp_path, [landed(process, 5)], config_of(process), diagonal_fit())
    save_tuned(tmp_path, [tuned(process, 5)], config_of(process))
    assert names(tmp_path) == ["fewstep.py", "scheduler_config.json"]
    assert load_start(tmp_path) is None
    assert Plan.load(tmp_path).name == "tuned 5"


def test_refused(tmp_path: Path) -> None:
    process, other, fit = PROCESSES["scaled"], PROCESSES["cosine"], diagonal_fit()
    config, plan, late = config_of(process), tuned(process, 5), landed(process, 5)
    nan = replace(plan, provenance={"error": float("nan")})
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").write_text("")
    cases = {
        "needs a folder, for start.safetensors": ("m.json", [late], config, fit),
        "starts from a Gaussian: pass gaussian=": ("m", [late], config, None),
        "none of these plans starts from a Gaussian": ("m", [plan], config, fit),
        "another noise process": ("m", [plan], config_of(other), None),
        "was tuned for prediction_type 'epsilon'": (
            "m.json", [tuned(process, 5, prediction_type="epsilon")], config, None),
        "JSON has no NaN": ("m.json", [nan], config, None),
        "plans of different numbers of calls": ("m", [plan, plan], config, None),
        "at least one": ("m", [], config, None),
        "is a folder: choose": ("folder.json", [plan], config, None),
        "is a file: choose": ("file", [plan], config, None),
    }  # fmt: skip
    for message, (name, plans, settings, gaussian) in cases.items():
        with pytest.raises(ValueError, match=message) as raised:
            save_tuned(tmp_path / name, plans, settings, gaussian)
        assert "\n" not in str(raised.value)
    assert names(tmp_path) == ["file", "folder.json"]


def test_what_is_no_plan(tmp_path: Path) -> None:
    schedulers.DDIM().save_pretrained(tmp_path / "ddim")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "text.json").write_text("no")
    for name in ("ddim", "list.json", "text.json"):
        with pytest.raises(ValueError, match="this file is not a fewstep plan"):
            Plan.load(tmp_path / name)
    (tmp_path / "empty").mkdir()
    for name, message in (("gone.json", "no plan at"), ("empty", "no scheduler_config.json in")):
        with pytest.raises(FileNotFoundError, match=message):
            build_plan(tmp_path / name, PROCESSES["linear"], 5)
    plan = tuned(PROCESSES["linear"], 5)
    plan.save(tmp_path / "plan.json")
    with pytest.raises(ValueError, match="is a plan alone: use PlanScheduler"):
        schedulers.PlanScheduler.from_pretrained(tmp_path / "plan.json")


def test_an_unfinished_write_leaves_what_was_there(tmp_path: Path, monkeypatch) -> None:
    process = PROCESSES["scaled"]
    save_tuned(tmp_path, [landed(process, 5)], config_of(process), diagonal_fit())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write = Path.write_bytes

    def fail(path: Path, content: bytes) -> int:
        if "scheduler_config" in path.name:
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        save_tuned(tmp_path, [landed(process, 4)], config_of(process), diagonal_fit())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_named_as_a_solver(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ddim", "mine"):
        save_tuned(name, [tuned(PROCESSES["linear"], 5)], config_of(PROCESSES["linear"]))
    assert [names_file(n) for n in ("ddim", "./ddim", "mine", "ddim:eta=1", "x" * 5000)] == [
        False, True, True, False, False,
    ]  # fmt: skip
    assert build_plan("ddim", PROCESSES["linear"], 5).name == "ddim"
    assert build_plan("./ddim", PROCESSES["linear"], 5).name == "tuned 5"


def test_another_model_warns(tmp_path: Path) -> None:
    problem, path = load_problem("mix8"), tmp_path / "m.json"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_other_model(tuned(problem.process, 3, model=problem.fingerprint), problem.fingerprint)
        warn_other_model(build_plan("ddim", problem.process, 3), problem.fingerprint)
        own = tuned(problem.process, 3, model=problem.fingerprint, guidance="none")
        warn_other_model(own, problem.fingerprint, "none")
        warn_other_model(own, problem.fingerprint)
    with pytest.warns(UserWarning, match="tuned under guidance 'none' and runs under 'cfg:3'"):
        warn_other_model(own, problem.fingerprint, "cfg:3")
    plan = tuned(problem.process, 3, model="0123456789", problem="a model")
    save_tuned(path, [plan], config_of(problem.process))
    wanted = r"tuned on another model \(a model, 01234567\)"
    with pytest.warns(UserWarning, match=wanted):
        prepare(Bench(problem="mix8", samplers=(str(path),), n=4), "cpu")
    with pytest.warns(UserWarning, match=wanted):
        _ = Generation(problem, str(path), 3, range(4), keep="images").plan


def test_the_benchmark_runs_what_a_folder_holds(tmp_path: Path) -> None:
    """At every number of calls that it has plans for, or those that are asked for."""
    problem = load_problem("fashion-exact")
    process, fit = problem.process, diagonal_fit()
    plans, folder = [landed(process, n) for n in (3, 4)], tmp_path / "m"
    save_tuned(folder, plans, config_of(process), fit)
    jobs = make_jobs(split_specs([f"{folder}"]), process, None)
    assert [(job.sampler, job.nfe) for job in jobs] == [("m", 3), ("m", 4)]
    assert [job.nfe for job in make_jobs([str(folder)], process, [4, 7])] == [4]
    with pytest.raises(ValueError, match=r"m makes 3, 4 calls, and nfe asks for 7: leave nfe out"):
        make_jobs([str(folder)], process, [7])
    shifted = replace(fit, mean=fit.mean + 1)
    save_tuned(folder, plans, config_of(process), shifted)
    again = make_jobs([str(folder)], process, None)
    assert all(a.identity != b.identity for a, b in zip(jobs, again, strict=True))
    (folder / "start.safetensors").unlink()
    with pytest.raises(ValueError, match="starts from a Gaussian"):
        make_jobs([str(folder)], process, None)
    with pytest.raises(ValueError, match="a run's settings cannot keep"):
        Generation(problem, plans[0], 3, range(4))


def test_a_benchmark_of_landed_plans(tmp_path: Path) -> None:
    """On mix8: as many calls as they make, and the error of ``sample`` on the same starts."""
    problem, path = load_problem("mix8"), tmp_path / "m"
    fit = fit_gaussian(problem.denoiser.sample_data(256, torch.Generator().manual_seed(0)))
    save_tuned(path, [landed(problem.process, 4)], config_of(problem.process), fit)
    results = run_bench(Bench(problem="mix8", samplers=(str(path), "ddim"), nfe=(4,), n=8))
    (row,) = [row for row in results.rows if row.sampler == "m"]
    noise = problem.initial_noise(8, row.seed, problem.dtype)
    made = sample(problem.denoiser, path, 4, noise=noise / problem.start_scale)
    assert row.metrics["rmse"] == pytest.approx(rmse(made, problem.reference(noise)), rel=1e-9)
    assert row.nfe == row.calls == 4
