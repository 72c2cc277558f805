"""Plans from files are refused unless they make sense: types, names, levels, times, noise, size."""

import copy
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import call, tree
from refusals import attempt

from fewstep.json_values import MAX_BYTES
from fewstep.samplers import Plan, build_plan
from fewstep.samplers.adapter.files import save_tuned
from fewstep.samplers.adapter.process_config import scheduler_config
from fewstep.samplers.adapter.schedulers import PlanScheduler
from fewstep.samplers.core.plan import load_plans
from fewstep.samplers.gaussian.warm import warm_plan
from fewstep.samplers.solvers.registry import check_process
from fewstep.schedules import VE, ContinuousVP, Flow, NoiseProcess, discrete_vp
from fewstep.schedules.limits import MAX_CALLS
from fewstep.schedules.told import ToldFlow

LINEAR, OTHER = discrete_vp("linear"), discrete_vp("sigmoid", num_train_timesteps=40, beta_end=0.1)
MADE: dict[str, tuple[Callable[[], Plan], NoiseProcess]] = {
    "corrected": (lambda: build_plan("unipc", LINEAR, 4), LINEAR),
    "of a table not named": (lambda: build_plan("deis", OTHER, 4), OTHER),
    "noisy, in stages": (lambda: build_plan("singlestep:tau=1", Flow(), 5), Flow()),
    "with churn": (lambda: build_plan("edm", VE(time_is="log"), 6), VE(time_is="log")),
    "called twice": (lambda: build_plan("sa:evaluate=pece", ContinuousVP(), 6), ContinuousVP()),
    "landed": (lambda: warm_plan("dpmpp", LINEAR, 3, 3.0), LINEAR),
}
NUMBERS = (
    True,
    "x",
    None,
    [],
    {},
    float("nan"),
    float("inf"),
    -float("inf"),
    10**400,
    1e39,
    -1e300,
)
TEXTS = ("nope", "", 3, None, True, [])
LISTS = ({}, "x", None, 5, True)
OBJECTS = ([], "x", None, 5, [{}])
# Of the rows; a change by a hundredth is no rounding.
WRONG: dict[str, Callable[[float], float]] = {
    "time": lambda t: t + 700 if t < 100 else t - 80,
    "alpha": lambda a: a * 1.01 + 0.01,
    "sigma": lambda s: s * 1.01,
}


def mutants(plan: Plan) -> Iterator[tuple[str, Any]]:
    """The table with one entry of another kind, left out, or unknown, at each place in turn."""
    table = json.loads(plan.to_json())
    rows = {0, plan.nfe // 2, plan.nfe - 1}
    for place in places(table):
        if place[:1] == ("evaluations",) and len(place) > 1 and place[1] not in rows:
            continue
        value = at(table, place)
        told = "/".join(map(str, place))
        for other in kinds(value, place, bool(plan.draws)):
            yield f"{told} = {other!r:.30}", changed(table, place, other)
        if isinstance(value, dict) and place != ("provenance",):  # which takes anything else
            yield f"{told}/unknown", changed(table, (*place, "unknown"), 1)
        if place and isinstance(place[-1], str):
            yield f"without {told}", changed(table, place, None, drop=True)


def kinds(value: Any, place: tuple[Any, ...], noisy: bool) -> Iterator[Any]:
    if isinstance(value, bool | int | float):
        yield from NUMBERS
        if place[-1] in WRONG:
            yield WRONG[place[-1]](value)
        if place[-1] == "nu":
            yield -1.0
            if not noisy:  # where a step is noisy more noise may be meant
                yield 0.5
    elif isinstance(value, str):
        yield from (other for other in TEXTS if place != ("name",) or not isinstance(other, str))
    else:
        yield from LISTS if isinstance(value, list) else OBJECTS


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if above:
        yield above
    listed = dict(enumerate(value)) if isinstance(value, list) else value
    for key, one in listed.items() if isinstance(listed, dict) else ():
        yield from places(one, (*above, key))


def at(table: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        table = table[key]
    return table


def changed(table: Any, place: tuple[Any, ...], value: Any, drop: bool = False) -> Any:
    made = copy.deepcopy(table)
    holder = at(made, place[:-1])
    if drop:
        del holder[place[-1]]
    else:
        holder[place[-1]] = value
    return made


def read(table: Any, process: NoiseProcess) -> Plan:
    """As ``build_plan`` reads it from a file for a model."""
    plan = Plan.from_table(table)
    check_process(plan, process)
    return plan


@pytest.mark.parametrize("name", MADE)
def test_each_mutant_is_refused_or_is_the_same_plan(name: str) -> None:
    make, process = MADE[name]
    plan, tried = make(), 0
    assert Plan.from_json(plan.to_json()) == plan
    for told, table in mutants(plan):
        tried += 1
        found, refused = attempt(lambda table=table: read(table, process))
        assert "\n" not in refused, told
        assert refused or found == plan, told
    assert tried > 500


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (
            ("evaluations", 2, "ops", 0, "w", 1),
            "x",
            r"w\[1\] of op 0 of evaluation 2 must be a num",
        ),
        (("evaluations", 1, "time"), 1e3, "evaluation 1 .* tells the network time 1000"),
        (("evaluations", 1, "sigma"), 0.2, "evaluation 1 .* sigma 0.2, which process vp"),
        (("evaluations", 3, "ops", 0, "nu"), 0.1, "evaluation 3 .* adds noise"),
        (("evaluations", 0, "ops", 0, "reg"), "y", "evaluation 0 writes a register 'y'"),
        (("evaluations", 0, "more"), 1, "evaluation 0 has an unknown entry 'more'; known: time"),
        (("evaluations",), [{}] * (MAX_CALLS + 1), f"at most {MAX_CALLS:,} entries, got"),
        (("end",), [0.9, 0.1], "the end of the plan"),
    ],
)
def test_a_refusal_names_the_file_and_the_place(
    place: tuple[Any, ...], value: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "p.json"
    table = json.loads(build_plan("unipc:order=2", LINEAR, 4).to_json())
    path.write_text(json.dumps(changed(table, place, value)))
    for read in (Plan.load, lambda path: build_plan(path, LINEAR, 4)):
        with pytest.raises(ValueError, match=f"{path}: .*{message}"):
            read(path)
    config = {**scheduler_config(LINEAR, "epsilon"), "_class_name": "PlanScheduler"}
    path.write_text(json.dumps({**config, "plans": [table, changed(table, place, value)]}))
    with pytest.raises(ValueError, match=rf"{path}, plans\[1\]: .*{message}"):
        load_plans(path)


FILES: dict[str, bytes] = {
    "an empty file": b"",
    "bytes": bytes(range(256)),
    "a list": b"[1]",
    "a number": b"5",
    "a text": b'"fewstep.plan"',
    "brackets": b"[" * 100_000,
    "objects": b'{"a":' * 3000 + b"1" + b"}" * 3000,
    "two kinds": b'{"kind": "other", "kind": "fewstep.plan"}',
    "NaN": b'{"kind": NaN}',
    "beyond floats": b'{"kind": 1e400}',
    "thousands of digits": b'{"kind": ' + b"9" * 5000 + b"}",
    "a mark in front": "\ufeff{}".encode(),
    "no plans": b'{"plans": []}',
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_plan_is_named_in_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(FILES[name])
    before = tree(tmp_path)
    assert call("plan", path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert str(path) in line
    assert tree(tmp_path) == before


def test_a_large_file_is_refused_unread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.json"
    with path.open("wb") as file:
        file.truncate(136 * 2**20)
    tracemalloc.start()
    begun = time.perf_counter()
    assert call("plan", path) == 2
    seconds, (_, peak) = time.perf_counter() - begun, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert f"larger than {MAX_BYTES // 2**20} MiB, the limit" in capsys.readouterr().err
    assert seconds < 2  # a stat; other work on the machine gets the rest
    assert peak < 2**24  # an eighth of the file, and most of it what a command imports


def test_two_plans_of_as_many_calls(tmp_path: Path) -> None:
    """In a file of several, of which the last one used to win."""
    plans = [build_plan(spec, LINEAR, 4) for spec in ("ddim", "unipc")]
    save_tuned(tmp_path / "p.json", plans[:1], scheduler_config(LINEAR, "epsilon"))
    table = json.loads((tmp_path / "p.json").read_text())
    table["plans"].append(plans[1].table())
    (tmp_path / "p.json").write_text(json.dumps(table))
    with pytest.raises(ValueError, match=r"p\.json holds two plans of 4 calls: leave one out"):
        load_plans(tmp_path / "p.json")
    with pytest.raises(ValueError, match="holds two plans of 4 calls"):
        PlanScheduler(plans=plans).set_timesteps(4)


def test_times_of_a_plan_that_has_its_own(tmp_path: Path) -> None:
    """CogView4 tells its network times apart from the levels, and such a plan says so."""
    process = ToldFlow(1000, 1e-3, rhos=(9.0, 1.0, 0.1), told=(950.0, 700.0, 200.0))
    plan = build_plan("ddim", process, 5)
    plan.save(tmp_path / "p.json")
    assert Plan.load(tmp_path / "p.json") == plan
    silent = changed(json.loads(plan.to_json()), ("provenance",), {})
    with pytest.raises(ValueError, match="tells the network time"):
        Plan.from_table(silent)


@pytest.mark.parametrize("process", [LINEAR, OTHER, Flow(), VE(time_is="log"), ContinuousVP()])
@pytest.mark.parametrize(
    "spec",
    ["ddim:eta=1e-8", "ddim:eta=1", "euler_a", "dpmpp:tau=2", "singlestep:tau=0.5", "heun",
     "edm:churn=90,noise_scale=3", "sa:mode=more_steps,evaluate=pece,tau=2", "restart", "rho_rk",
     "restart:intervals=[[3,3,0.2,0.4]],noise_scale=2", "deis:order=4,final=sigma_min"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_no_plan_of_ours_is_refused(spec: str, process: NoiseProcess) -> None:
    for n in (1, 2, 9, 30):
        try:
            plan = build_plan(spec, process, n)
        except ValueError:
            continue  # too few calls for the intervals
        assert Plan.from_table(plan.table()) == plan
