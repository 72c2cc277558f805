"""DC-Solver's ratios: where they come from, their regression, and the scheduler that keeps them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CONFIGS, drive

from fewstep import DCSolver, UniPC, build_plan
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.solvers.cascade import CLAMP, CascadePolynomial
from fewstep.samplers.solvers.compensation import dc
from fewstep.samplers.solvers.ratios import Compensation
from fewstep.schedules import VE, ContinuousVP, Flow, discrete_vp, make_grid

PROCESSES = {
    "vp": discrete_vp(), "vp-zero-snr": discrete_vp(zero_terminal_snr=True), "ve": VE(),
    "edm": VE(time_is="log"), "continuous": ContinuousVP(), "flow": Flow(),
}  # fmt: skip

SEARCH = Compensation((1.0, 1.2, 0.9, 1.0, 1.4), "unipc", (0.0,) * 5, 3.0, 0.2, 0.1, 10)


def search_for(plan: Plan) -> Compensation:
    return replace(SEARCH, times=tuple(row.time for row in plan.evaluations))


def test_ratios_from_everywhere(tmp_path: Path) -> None:
    grid = make_grid(PROCESSES["vp"], 5)
    search = search_for(dc(grid))
    expected = dc(grid, compensation=list(search.ratios))
    path = tmp_path / "ratios.json"
    search.save(path)
    assert Compensation.load(path) == search
    assert Compensation.from_json(search.to_json()) == search
    table = {"5": list(search.ratios), "8": [1.0] * 8}
    (tmp_path / "table.json").write_text(json.dumps(table))
    for value in (str(path), search.table(), table, str(tmp_path / "table.json")):
        assert dc(grid, compensation=value) == expected
    spec = "dc:compensation=[1,1.2,0.9,1,1.4],grid=karras"
    plan = build_plan(spec, PROCESSES["vp"], 5)
    assert plan.evaluations == expected.evaluations
    assert build_plan(plan.name, PROCESSES["vp"], 5) == plan


def test_missing_ratios_are_errors(tmp_path: Path) -> None:
    grid = make_grid(PROCESSES["vp"], 5)
    (tmp_path / "bad.json").write_text("{")
    for value, error, message in [
        ({"8": [1.0] * 8}, ValueError, "no ratios for 5 calls, only for 8"),
        ({}, ValueError, "only for none"),
        ([1.0] * 8, ValueError, "8 ratios for 5 calls"),
        ({"5": 1.0}, ValueError, "list of numbers"),
        (7, ValueError, "list of numbers"),
        ({"kind": "fewstep.compensation", "ratios": [1]}, ValueError, "needs 'kind' and exactly"),
        ({"kind": "other"}, ValueError, "needs 'kind'"),
        (str(tmp_path / "no.json"), FileNotFoundError, "no ratios at"),
        (str(tmp_path / "bad.json"), ValueError, "is not JSON"),
    ]:
        with pytest.raises(error, match=message):
            dc(grid, compensation=value)
    assert dc(make_grid(PROCESSES["vp"], 1), compensation=[1.0] * 8).nfe == 1


def test_ratios_of_another_solver_or_grid_warn() -> None:
    grid = make_grid(PROCESSES["vp"], 5)
    search = search_for(dc(grid))
    for other in ({"grid": make_grid(PROCESSES["vp"], 5, "trailing")},
                  {"grid": grid, "multistep": "unipc:order=2"}):  # fmt: skip
        with pytest.warns(UserWarning, match="fit them anew"):
            dc(**other, compensation=search.table())
    dc(grid, multistep="unipc:order=3", compensation=search.table())  # the same, spelled out


# The regression


def smooth_ratios(nfe: int, scale: float) -> list[float]:
    u = np.arange(1, nfe + 1) / nfe
    ratio = 1.1 - 0.3 * u + 0.2 * u**3 + 0.1 * scale / 12 * u + 0.4 * (nfe / 50) ** 2 * u**2
    return [1.0, *map(float, ratio[1:])]


def test_regression_gives_back_what_it_has_the_terms_for(tmp_path: Path) -> None:
    searches = [(n, g, smooth_ratios(n, g)) for n in (5, 8, 12, 20) for g in (1.0, 3.0, 7.5, 9.0)]
    fitted = CascadePolynomial.fit(searches)
    for nfe, scale in [(5, 1.0), (10, 5.0), (20, 9.0)]:
        np.testing.assert_allclose(fitted.ratios(nfe, scale), smooth_ratios(nfe, scale), atol=1e-8)
    assert CascadePolynomial.from_json(fitted.to_json()) == fitted
    fitted.save(tmp_path / "cascade.json")
    grid = make_grid(PROCESSES["vp"], 10)
    plan = dc(grid, compensation=str(tmp_path / "cascade.json"), guidance_scale=5.0)
    assert plan == dc(grid, compensation=fitted.ratios(10, 5.0))
    assert fitted.ratios(5, 1.0)[0] == 1.0


def test_regression_with_few_searches_passes_through_them() -> None:
    fitted = CascadePolynomial.fit([(5, 3.0, SEARCH.ratios)])
    np.testing.assert_allclose(fitted.ratios(5, 3.0), SEARCH.ratios, atol=1e-9)


def test_regression_is_clamped_and_warns_outside_its_box() -> None:
    fitted = CascadePolynomial.fit([(5, 1.0, [1, 0.5, 1.4, 0.9, 1.2]), (8, 3.0, [1.0] * 8)])
    with pytest.warns(UserWarning, match="nfe 50 are extrapolated: the searches cover 5 to 8"):
        far = fitted.ratios(50, 1.0)
    assert CLAMP[0] <= min(far) < max(far) <= CLAMP[1]
    with pytest.warns(UserWarning, match="guidance scale 9"):
        fitted.ratios(5, 9.0)
    first = CascadePolynomial.fit([(5, 1.0, [1, 1, 1.2, 0.9, 1.2])], first=3)
    assert first.ratios(5)[:2] == [1.0, 1.0]


def test_bad_regressions() -> None:
    with pytest.raises(ValueError, match="nothing to fit"):
        CascadePolynomial.fit([])
    with pytest.raises(ValueError, match="5 ratios for 6 calls"):
        CascadePolynomial.fit([(6, 1.0, [1.0] * 5)])
    with pytest.raises(ValueError, match="36 finite coefficients"):
        CascadePolynomial((1.0,), (5, 8), (1.0, 3.0))
    with pytest.raises(ValueError, match="at least 2"):
        CascadePolynomial((1.0,) * 36, (5, 8), (1.0, 3.0), first=1)


# The scheduler


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("what", ["list", "table", "search"])
def test_config_round_trip(what: str, config: str, tmp_path: Path) -> None:
    ratios = list(SEARCH.ratios)
    value = {"list": ratios, "table": {"5": ratios}, "search": SEARCH.table()}[what]
    if what == "search":
        plain = UniPC(**CONFIGS[config])
        plain.set_timesteps(5)
        value = search_for(plain.plan).table()
    scheduler = DCSolver(**CONFIGS[config], compensation=value)
    scheduler.set_timesteps(5)
    scheduler.save_pretrained(tmp_path)
    again = DCSolver.from_pretrained(tmp_path)
    again.set_timesteps(5)
    assert again.plan == scheduler.plan
    assert again.config.compensation == value
    x = torch.linspace(-1, 1, 12).reshape(3, 4)
    assert torch.equal(drive(again, x, 5), drive(scheduler, x, 5))
    result = drive(UniPC(**CONFIGS[config]), x, 5)
    assert not torch.equal(result, drive(again, x, 5))
    assert torch.equal(result, drive(DCSolver(**CONFIGS[config]), x, 5))


def test_late_start_is_the_plain_solver() -> None:
    outputs = []
    for scheduler in (DCSolver(compensation={"5": list(SEARCH.ratios)}), UniPC()):
        scheduler.set_timesteps(5)
        scheduler.set_begin_index(2)
        x = torch.linspace(-1, 1, 12).reshape(3, 4)
        for t in scheduler.timesteps[2:]:
            x = scheduler.step(torch.tanh(x), t, x).prev_sample
        outputs.append(x)
    assert torch.equal(*outputs)


def test_no_ratios_for_the_count_is_an_error_that_changes_nothing() -> None:
    scheduler = DCSolver(compensation={"5": list(SEARCH.ratios)})
    scheduler.set_timesteps(5)
    plan = scheduler.plan
    with pytest.raises(ValueError, match="no ratios for 6 calls, only for 5"):
        scheduler.set_timesteps(6)
    assert scheduler.plan is plan
    assert len(scheduler.timesteps) == 5
