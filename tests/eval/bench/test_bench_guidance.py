"""The guidance axis of the benchmark: costs, references, and what is said where there is none."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fewstep.eval.bench.jobs import Batch, make_jobs, make_peer_jobs
from fewstep.eval.bench.peers import peers_for
from fewstep.eval.bench.runner import run_bench
from fewstep.eval.bench.setup import Bench
from fewstep.eval.common.keys import reference_key, stable
from fewstep.eval.problems import Problem, load_problem, rmse
from fewstep.eval.problems.fine_solution import CountingDenoiser, fine_reference
from fewstep.eval.problems.guides import Meter, read_guidance, split_guidance
from fewstep.eval.reports.report import markdown
from fewstep.eval.reports.results import Results, Row
from fewstep.eval.reports.tables import equal_rows_table
from fewstep.guidance import CFG, GFCG, ICG, Every, Interval, Project, ScaleSchedule, SelfMinority
from fewstep.models.bundled import bundled_weak_denoiser
from fewstep.models.ode import level_at, reference_solution
from fewstep.types import Level

WEIGHTS = Path(__file__).parents[3] / "models/weights"
needs_weights = pytest.mark.skipif(
    not all((WEIGHTS / f"{name}.safetensors").exists() for name in ("fashion", "fashion_weak")),
    reason="no bundled weights",
)
EXACT = Bench(problem="fashion-exact", samplers=("ddim",), nfe=(6,), n=4)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def exact() -> Problem:
    return load_problem("fashion-exact")


def test_texts_split_at_semicolons_only() -> None:
    assert split_guidance("none") == ["none"]
    written = ["cfg:3|interval:0.2,2; none", "(icg:1.4|every:2)+cfg:2", "none;"]
    assert split_guidance(written) == ["cfg:3|interval:0.2,2", "none", "(icg:1.4|every:2)+cfg:2"]


# Costs


@pytest.mark.parametrize(
    ("text", "calls", "rows", "backward", "classifier"),
    [
        ("none", 6, 6, 0, 0),
        ("cfg:3", 6, 12, 0, 0),
        ("cfg:3+icg:1.4", 6, 18, 0, 0),
        ("cfg:3|every:2", 6, 9, 0, 0),
        ("classifier:1", 6, 6, 0, 6),
        # x0, and again from its noised copy, the first with its graph.
        ("selfminority:0.2|every:3", 8, 8, 2, 0),
    ],
)
def test_costs_are_counted(
    text: str, calls: int, rows: int, backward: int, classifier: int
) -> None:
    (row,) = run_bench(replace(EXACT, guidance=text)).rows
    assert (row.calls, row.rows) == (calls, rows)
    assert (row.backward_rows, row.classifier_rows) == (backward, classifier)


def test_gfcg_asks_twice_for_the_samples_that_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU all samples are asked twice: which need it is not read from the device."""
    monkeypatch.setattr("fewstep.eval.bench.units.fine_reference", lambda *args: args[1])
    (row,) = run_bench(replace(EXACT, guidance="gfcg:3", device="cpu")).rows
    assert row.classifier_rows == 6
    # A row more for each sample that the classifier is unsure of, in a second call.
    assert 6 < row.rows < 12
    assert 6 < row.calls <= 12


def test_costs_do_not_depend_on_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewstep.eval.bench.units.fine_reference", lambda *args: args[1])
    setup = replace(EXACT, guidance=("cfg:3", "gfcg:3"), n=5)
    whole = run_bench(setup)
    monkeypatch.setattr("fewstep.eval.bench.units.BATCH_ELEMENTS", 2 * 256)
    for one, other in zip(whole.rows, run_bench(setup).rows, strict=True):
        assert (other.rows, other.classifier_rows) == (one.rows, one.classifier_rows)


def test_the_meter_agrees_with_a_counter_inside(exact: Problem) -> None:
    counter = CountingDenoiser(exact.denoiser)
    guidance = read_guidance("cfg:3|interval:0.2,2", exact).expression
    noise, labels = exact.initial_noise(3, dtype=torch.float64), exact.labels(3)
    meter, batch = Meter(guidance), Batch(noise, labels, range(3))
    make_jobs(["unipc"], exact.process, [8], guidance)[0].run(
        replace(exact, denoiser=counter), batch, meter
    )
    assert (meter.counters.rows, meter.counters.calls) == (counter.rows, counter.calls)
    assert 24 < counter.rows < 48


@needs_weights
def test_rows_of_a_weak_model_count() -> None:
    problem = load_problem("fashion")
    guidance = read_guidance("autoguidance:2", problem).expression
    meter, counter = Meter(guidance), CountingDenoiser(problem.denoiser)
    batch = Batch(problem.initial_noise(2), problem.labels(2), range(2))
    make_jobs(["ddim"], problem.process, [3], guidance)[0].run(
        replace(problem, denoiser=counter), batch, meter
    )
    assert (meter.counters.rows, meter.counters.calls) == (12, 6)
    assert (counter.rows, counter.calls) == (6, 3)


# Runs


def test_random_guidance_has_no_rmse_and_the_report_says_why(tmp_path: Path) -> None:
    results = run_bench(replace(EXACT, guidance=("none", "icg:1.4")), tmp_path)
    plain, random = results.rows
    assert "rmse" in plain.metrics
    assert random.metrics == {}
    assert list(results.reference_images) == ["none"]
    text = (tmp_path / "report.md").read_text()
    assert "No RMSE under `icg:1.4`: it draws at random" in text
    assert "| *network evaluations per sample* | 6 |" in text
    for name in ("rmse-0-none.png", "samples-nfe06-1-icg-1.4.png"):
        assert f"({name})" in text
        assert (tmp_path / name).exists()
    again = run_bench(replace(EXACT, guidance="icg:1.4"))
    assert torch.equal(
        again.images["icg:1.4", "ddim", 6, ""], results.images["icg:1.4", "ddim", 6, ""]
    )


def test_peers_are_told_where_in_the_run_they_are(exact: Problem) -> None:
    seen: list[Level] = []

    class Spy(CountingDenoiser):
        def __call__(self, x: Tensor, level: Level, cond: object = None) -> Tensor:
            seen.append(level)
            return super().__call__(x, level, cond)

    problem = replace(exact, denoiser=Spy(exact.denoiser))
    noise = torch.zeros(1, *exact.shape, dtype=torch.float64)
    peers = {str(peer): peer for peer in peers_for(exact.process)}
    peers["diffusers:ddim:grid=trailing"].sample(problem, 4, noise, exact.labels(1))
    assert [(level.index, level.step) for level in seen] == [(i, i) for i in range(4)]
    assert all(a.next_rho == b.rho for a, b in pairwise(seen))
    assert seen[-1].next_sigma == 0
    seen.clear()
    peers["diffusers:heun:grid=trailing"].sample(problem, 5, noise, exact.labels(1))
    assert [level.step for level in seen] == [0, 0, 1, 1, 2]
    assert seen[1].gate_rho == seen[0].rho > seen[1].rho == seen[2].gate_rho


def test_peers_that_do_not_fit_are_left_out(exact: Problem) -> None:
    guidance = read_guidance("cfg:2|cfgpp:0.6", exact).expression
    names = {job.sampler.split(":")[1] for job in make_peer_jobs(exact.process, [5], guidance)}
    assert names == {"ddim", "euler"}
    problem = replace(exact, denoiser=CountingDenoiser(exact.denoiser))
    batch = Batch(exact.initial_noise(2, dtype=torch.float64), exact.labels(2), range(2))
    job = make_peer_jobs(exact.process, [5], read_guidance("icg:1.4", exact).expression)[0]
    meter = Meter(ICG(1.4))
    assert job.run(problem, batch, meter).isfinite().all()
    assert meter.counters.rows == 20


# References


def test_dopri5_and_the_reference_agree_under_an_interval(exact: Problem) -> None:
    guidance = read_guidance("cfg:3|interval:0.2,2", exact).expression
    noise, labels = exact.initial_noise(4, dtype=torch.float64), exact.labels(4)
    assert labels is not None
    found = fine_reference(exact, noise, labels, guidance)
    assert guidance is not None
    finer, _ = reference_solution(
        guidance.wrap(exact.denoiser), noise, labels, method="dopri5", tolerance=1e-10,
        rho_end=1e-5, breakpoints=guidance.breakpoints(),
    )  # fmt: skip
    assert rmse(finer, found) < 1e-6
    job = make_jobs(["dopri5:tol=1e-6"], exact.process, [5], guidance)[0]
    # It ends at the least trained level: 2e-4.
    assert rmse(job.run(exact, Batch(noise, labels, range(4)), Meter(guidance)), found) < 1e-3


@needs_weights
def test_the_networks_reference_is_fine_under_an_interval() -> None:
    problem, guidance = load_problem("fashion"), CFG(3.0) | Interval(0.2, 2.0)
    noise, labels = problem.initial_noise(2), problem.labels(2)
    assert labels is not None
    found = fine_reference(problem, noise, labels, guidance)
    finer = make_jobs(["unipc:order=3,grid=logsnr"], problem.process, [250], guidance)[0]
    other = finer.run(problem, Batch(noise, labels, range(2)), Meter(guidance))
    # 2e-4 on these; one solver that crossed the edges unawares would be off by 1e-2.
    assert rmse(other, found) < 6e-4


@pytest.mark.parametrize("guidance", [ICG(1.4), SelfMinority(0.2), CFG(2.0) | Every(2)])
def test_guidance_by_steps_is_refused_a_reference(exact: Problem, guidance: CFG) -> None:
    noise, labels = exact.initial_noise(1, dtype=torch.float64), exact.labels(1)
    with pytest.raises(ValueError, match="there is no reference under"):
        exact.reference(noise, labels, guidance)


def test_fields_are_told_from_the_rest(exact: Problem) -> None:
    posterior = exact.models["classifier"]()
    for field in (CFG(2.0), GFCG(posterior), (CFG(2.0) | Project()) + GFCG(posterior)):
        assert field.is_field
    for other in (GFCG(posterior, lagged=True), CFG(2.0) | Project(beta=-0.5), CFG(2.0) + ICG(1.4)):
        assert not other.is_field


@needs_weights
def test_keys_are_the_same_for_equal_models_and_differ_for_others() -> None:
    problem, exact = load_problem("fashion"), load_problem("fashion-exact")

    def key(text: str, of: Problem) -> str:
        return stable(read_guidance(text, of).expression)

    assert key("autoguidance:2", problem) == key("autoguidance:2", load_problem("fashion"))
    other = bundled_weak_denoiser(problem.process)
    with torch.no_grad():
        next(other.net.parameters()).add_(1)  # type: ignore[attr-defined]
    models = {"weak model": lambda: other}
    assert key("autoguidance:2", problem) != key("autoguidance:2", replace(problem, models=models))
    assert key("gfcg:2", problem) != key("gfcg:2", exact)
    texts = ["gfcg:2", "gfcg:2,2", "cfg:2", "cfg:2|interval:0.2,2", "cfg:2|interval:0.2,3"]
    assert len({key(text, exact) for text in texts}) == len(texts)
    assert " at 0x" not in key("gfcg:2", exact) + key("gfcg:2", problem)


def test_functions_without_source_have_no_key_and_are_not_cached(exact: Problem) -> None:
    guidance = CFG(2.0) | ScaleSchedule(eval("lambda u: u"))
    assert reference_key(exact, guidance, by=reference_solution) is None
    noise, labels = exact.initial_noise(1, dtype=torch.float64), exact.labels(1)
    first = exact.reference(noise, labels, guidance)
    assert torch.equal(exact.reference(noise, labels, guidance), first)


def test_the_posterior_of_the_classes_is_exact(exact: Problem) -> None:
    classify, model = exact.models["noisy classifier"](), exact.denoiser
    x = exact.initial_noise(3, dtype=torch.float64)
    level = level_at(exact.process, 2.0)
    logits = classify(x, level)
    assert torch.allclose(logits.exp().sum(1), torch.ones(3, dtype=torch.float64))
    shares = model.posterior(x, level)  # type: ignore[attr-defined]
    for k in range(10):
        mine = shares[:, model.labels == k].sum(1)  # type: ignore[attr-defined]
        torch.testing.assert_close(logits[:, k].exp(), mine, rtol=1e-10, atol=1e-12)


# Results


def written(guidance: str, rows: float, value: float) -> Row:
    return Row("ddim", 5, 5, rows, 0, 8, "fashion", guidance, {"fd_fashion": value}, 1.0)


def test_equal_rows_stand_in_one_column() -> None:
    rows = [written("none", 10, 3.0), written("cfg:3", 10, 2.0), written("gfcg:2", 7.6, 2.5)]
    assert equal_rows_table(Results({}, rows), "fd_fashion") == [
        "| sampler | 8 evaluations | 10 evaluations |",
        "|:--|--:|--:|",
        "| `ddim`, `none` |  | 3.000 |",
        "| `ddim`, `cfg:3` |  | **2.000** |",
        "| `ddim`, `gfcg:2` | 2.500 |  |",  # on its own, and so the best of nothing
    ]
    env = {"fewstep": "0", "torch": "2", "device": "cpu", "threads": 1}
    assert "## FD-fashion-8 at equal network evaluations" in markdown(Results(env, rows), [])
    assert "at equal network evaluations" not in markdown(Results(env, rows[:1]), [])


def test_results_are_read_back() -> None:
    rows = [written("none", 5, 3.0), replace(written("gfcg:2", 7.6, 2.5), classifier_rows=5)]
    results = Results({"device": "cpu", "reference": {"none": {"accuracy": 0.9}}}, rows)
    again = Results.from_json(results.to_json())
    assert (again.rows, again.env) == (rows, results.env)
    assert again.metric("fd_fashion", "gfcg:2") == {"ddim": {5: 2.5}}
    assert again.metric("fd_fashion") == {"ddim": {5: 3.0}}
    assert results.to_csv().splitlines()[0].startswith("sampler,nfe,calls,rows,classifier_rows,")


@pytest.mark.parametrize(("guidance", "factor"), [("none", 1), ("cfg:3", 2), ("cfg:1", 1)])
def test_old_results_are_read_too(guidance: str, factor: int) -> None:
    row = {
        "sampler": "dopri5:tol=0.001", "nfe": 38, "calls": 38.5, "seed": 0, "n": 8,
        "problem": "fashion", "guidance": guidance, "metrics": {"rmse": 0.1}, "seconds": 2.0,
    }  # fmt: skip
    env = {"reference": {"accuracy": 0.9}, "floor": {"fd_fashion": 0.1}}
    found = Results.from_json(json.dumps({"schema": 1, "env": env, "rows": [row]}))
    assert math.isclose(found.rows[0].rows, 38.5 * factor)
    assert found.env["reference"] == {guidance: {"accuracy": 0.9}}
    with pytest.raises(ValueError, match="results of schema 3"):
        Results.from_json(json.dumps({"schema": 3, "env": {}, "rows": []}))
