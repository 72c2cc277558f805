"""PlanScheduler: stored plans behind the interface of diffusers."""

import json
import re

import pytest
import torch
from helpers import CONFIGS, drive

from fewstep.samplers import SAMPLERS, Plan, build_plan
from fewstep.samplers.adapter import schedulers
from fewstep.samplers.core.ops import Evaluation, Op

SPECS = ["unipc", "sa:tau=0.8", "singlestep:order=2,tau=1", "restart:intervals=[[3,2,0.4,1.5]]",
         "heun", "edm", "deis:variable=rho"]  # fmt: skip


def start() -> torch.Tensor:
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def plan_of(spec: str, n: int, config: str = "vp-scaled") -> Plan:
    process = schedulers.DDIM(**CONFIGS[config]).process
    return build_plan(f"{spec}{',' if ':' in spec else ':'}grid=karras", process, n)


@pytest.mark.parametrize("config", CONFIGS)
def test_without_plans_it_is_ipndm(config: str) -> None:
    a, b = schedulers.PlanScheduler(**CONFIGS[config]), schedulers.IPNDM(**CONFIGS[config])
    for n in (1, 5, 12):
        assert torch.equal(drive(a, start(), n), drive(b, start(), n))
        assert a.grid_reason == b.grid_reason
    for arguments in ({"timesteps": [900, 500, 100]}, {"order": 4}):
        if "order" in arguments:
            a, b = (cls(**CONFIGS[config], **arguments)
                    for cls in (schedulers.PlanScheduler, schedulers.IPNDM))  # fmt: skip
            assert torch.equal(drive(a, start(), 7), drive(b, start(), 7))
        elif config != "edm":
            a.set_timesteps(**arguments)
            b.set_timesteps(**arguments)
            assert a.plan.evaluations == b.plan.evaluations


@pytest.mark.parametrize("as_tables", [False, True])
@pytest.mark.parametrize("spec", SPECS)
def test_it_runs_the_stored_plan(spec: str, as_tables: bool) -> None:
    plans = [plan_of(spec, n) for n in (12, 13)]
    given = [plan.table() for plan in plans] if as_tables else plans
    scheduler = schedulers.PlanScheduler(**CONFIGS["vp-scaled"], plans=given)
    name, _, rest = spec.partition(":")
    for plan in plans:
        scheduler.set_timesteps(plan.nfe)
        assert scheduler.plan == plan
        assert scheduler.timesteps.tolist() == pytest.approx([r.time for r in plan.evaluations])
        assert scheduler.grid_reason == f"the stored plan {plan.name!r}"
    direct = getattr(schedulers, SAMPLERS[name].scheduler)(
        **CONFIGS["vp-scaled"], grid="karras", **options_of(rest)
    )
    runs = [drive(s, start(), 12, generator=seeded()) for s in (scheduler, direct)]
    assert torch.equal(*runs)


def options_of(text: str) -> dict:
    pairs = re.findall(r"(\w+)=(\[.*\]|[^,]+)", text)
    return {key: json.loads(value) if value[0] in "[0123456789" else value for key, value in pairs}


@pytest.mark.parametrize("config", ["vp-scaled", "edm", "flow"])
def test_save_load_and_adopt(config: str, tmp_path) -> None:
    """Every number of every plan survives, and so does what it makes."""
    plans = [plan_of(spec, n, config) for spec, n in (("unipc", 5), ("restart", 20), ("sa", 9))]
    scheduler = schedulers.PlanScheduler(**CONFIGS[config], plans=plans)
    scheduler.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert [Plan.from_table(table) for table in saved["plans"]] == plans
    others = (
        schedulers.PlanScheduler.from_pretrained(tmp_path),
        schedulers.PlanScheduler.from_config(scheduler.config),
        schedulers.PlanScheduler.from_config(saved),
        scheduler.clone(),
    )
    for n in (5, 9, 20):
        expected = drive(scheduler, start(), n, generator=seeded())
        for other in others:
            assert torch.equal(drive(other, start(), n, generator=seeded()), expected)
            assert other.plan == scheduler.plan


def test_refused() -> None:
    plans = [plan_of("unipc", n) for n in (8, 5)]
    scheduler = schedulers.PlanScheduler(**CONFIGS["vp-scaled"], plans=plans)
    held = re.escape("this PlanScheduler holds plans of 5, 8 calls, with levels of their own")
    requests = ({"num_inference_steps": 6}, {"timesteps": [900, 500]}, {"sigmas": [9.0, 1.0]},
                {"num_inference_steps": 5, "sigmas": [9.0, 1.0]}, {})  # fmt: skip
    scheduler.set_timesteps(8)
    for arguments in requests:
        with pytest.raises(ValueError, match=held) as raised:
            scheduler.set_timesteps(**arguments)
        assert "\n" not in str(raised.value)
        assert scheduler.plan == plans[0]
    for config in ("vp-linear", "edm", "flow"):
        stranger = schedulers.PlanScheduler(**CONFIGS[config], plans=plans)
        with pytest.raises(ValueError, match="was made for another noise process"):
            stranger.set_timesteps(5)
    with pytest.raises(ValueError, match="this file is not a fewstep plan"):
        schedulers.PlanScheduler(plans=[{"a": 1}]).set_timesteps(5)


@pytest.mark.parametrize("spec", SPECS)
def test_table_round_trip(spec: str) -> None:
    plan = plan_of(spec, 12)
    assert Plan.from_table(plan.table()) == plan
    assert Plan.from_table(json.loads(json.dumps(plan.table()))) == plan
    assert Plan.from_json(plan.to_json()) == plan
    assert json.loads(plan.to_json()) == json.loads(json.dumps(plan.table()))


def test_a_table_is_checked() -> None:
    table = plan_of("unipc", 3).table()
    broken = json.loads(json.dumps(table))
    broken["evaluations"][1]["ops"][0]["c_x"] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        Plan.from_table(broken)
    with pytest.raises(ValueError, match="update it"):
        Plan.from_table({**table, "schema": 99})
    for other in ({}, [], {**table, "kind": "other"}):
        with pytest.raises(ValueError, match="no 'kind'"):
            Plan.from_table(other)


def test_a_plan_from_elsewhere() -> None:
    """A table that no solver of ours made."""
    process = schedulers.DDIM().process
    rows = []
    for time in (900.0, 400.0, 20.0):
        alpha, sigma = (float(c) for c in process.alpha_sigma(time))
        rows.append(Evaluation(time, alpha, sigma, (Op("x", w=(1.0,)),)))
    plan = Plan(tuple(rows), (1.0, 0.0), process.identity(), "last output")
    scheduler = schedulers.PlanScheduler(plans=[plan], prediction_type="sample")
    x = drive(scheduler, start(), 3, lambda x, t: torch.full_like(x, float(t)))
    assert torch.equal(x, torch.full_like(x, 20.0))
