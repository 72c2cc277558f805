"""The tied family: tables, flattening of plans, numbers and their derivatives."""

import numpy as np
import pytest
import torch

from fewstep.eval.problems import load_problem
from fewstep.models.exact import GaussianDenoiser, MixtureDenoiser
from fewstep.samplers import Plan, build_plan, sample
from fewstep.samplers.core.run import levels
from fewstep.samplers.tuning.family import Family
from fewstep.samplers.tuning.flatten import flatten
from fewstep.samplers.tuning.optimise import solver_on
from fewstep.samplers.tuning.pairs import Pairs
from fewstep.samplers.tuning.rollout import Calls, jacobian, run_table, tile
from fewstep.samplers.tuning.tied import Tied
from fewstep.schedules import VE, Flow, NoiseProcess, discrete_vp

PROCESSES = {"vp": discrete_vp("scaled_linear"), "ve": VE(0.002, 80.0), "flow": Flow()}
SPECS = (
    "ddim", "euler", "unipc", "unipc:order=2", "unipc:order=4", "unipc:solver_type=bh1",
    "ipndm", "dpmpp:order=2", "dpmpp:order=3", "deis", "singlestep", "dc", "unipc:grid=logsnr",
    "unipc:final=sigma_min", "ipndm:grid=karras", "ipndm:final=sigma_min", "unipc:grid=leading",
)  # fmt: skip


def mix8(process: NoiseProcess) -> MixtureDenoiser:
    known = load_problem("mix8").denoiser
    assert isinstance(known, MixtureDenoiser)
    return MixtureDenoiser(process, known.means, known.stds, known.log_weights.exp())


def noises(n: int = 16, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 8, generator=generator, dtype=torch.float64)


def start_of(table: Tied, noise: torch.Tensor) -> Pairs:
    """Where a run of the table's plan starts; no ends."""
    first = levels(table.plan())[0]
    return Pairs(noise * (first.sigma if first.alpha == 1 else 1.0) / first.sigma, noise)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("nfe", [1, 2, 6])
def test_flattened_plan_gives_the_samples_of_the_plan(spec: str, name: str, nfe: int) -> None:
    process = PROCESSES[name]
    denoiser, noise = mix8(process), noises()
    plan = build_plan(spec, process, nfe)
    table = flatten(plan, process)
    ours, theirs = (sample(denoiser, p, nfe, noise=noise) for p in (table.plan(), plan))
    # Both are float64 sums of about n terms; measured below 5e-14.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    again = run_table(Calls(denoiser), table, start_of(table, noise)).end
    torch.testing.assert_close(again, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", PROCESSES)
def test_compensated_plan_flattens(name: str) -> None:
    process = PROCESSES[name]
    plan = build_plan("dc:compensation=[1.0,1.1,0.9,1.05,1.0]", process, 5)
    results = [
        sample(mix8(process), p, 5, noise=noises()) for p in (plan, flatten(plan, process).plan())
    ]
    torch.testing.assert_close(*results, rtol=0, atol=1e-10)


def test_plan_survives_json_and_flattens_to_the_same_table() -> None:
    process = PROCESSES["vp"]
    table = flatten(build_plan("unipc", process, 6), process)
    again = flatten(Plan.from_json(table.plan().to_json()), process)
    np.testing.assert_allclose(again.weights(), table.weights(), atol=1e-12)
    np.testing.assert_allclose(again.rho, table.rho, rtol=1e-12)


@pytest.mark.parametrize("name", PROCESSES)
def test_constant_data_are_exact_whatever_the_coefficients(name: str) -> None:
    process = PROCESSES[name]
    base = flatten(build_plan("unipc", process, 5), process)
    wild = Tied.from_matrix(process, base.rho, 3 * np.random.default_rng(0).normal(size=(5, 5)))
    result = sample(GaussianDenoiser(process, 0.7, 0.0), wild.plan(), 5, noise=noises())
    # Weights of order 10 cancel to 1: rounding is 1e-15 times that.
    torch.testing.assert_close(result, torch.full_like(result, 0.7), rtol=0, atol=1e-12)


REFUSED = [
    ("heun", "calls twice at a level"), ("restart:intervals=[[3,1,0.5,2]]", "or climbs"),
    ("ddim:eta=1", "adds noise"), ("sa", "adds noise"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "message"), REFUSED)
def test_plans_without_a_tied_form_are_refused(spec: str, message: str) -> None:
    process = PROCESSES["vp"]
    with pytest.raises(ValueError, match=message):
        flatten(build_plan(spec, process, 30), process)


def test_other_refusals() -> None:
    process = PROCESSES["vp"]
    plan = build_plan("ddim", process, 3)
    with pytest.raises(ValueError, match="another noise process"):
        flatten(plan, Flow())
    table = plan.table()
    table["evaluations"][1]["time"] += 5
    with pytest.raises(ValueError, match=r"evaluation 1 .* tells the network time"):
        flatten(Plan.from_table(table), process)
    table = plan.table()
    (op,) = table["evaluations"][1]["ops"]
    op["w"] = (1.01 * op["w"][0], *op["w"][1:])
    with pytest.raises(ValueError, match=r"step 1 .* not exact for constant data"):
        flatten(Plan.from_table(table), process)


@pytest.mark.parametrize(
    ("rho", "c", "message"),
    [((1.0, 2.0), ((),), "fall strictly"), ((1.0,), (), "at least 2 ratios"),
     ((1.0, 0.5, 0.0), ((), ()), "row i of c needs"),
     ((1.0, 0.5, 0.0), ((), (float("nan"),)), "must be finite"),
     ((1.0, -0.5), ((),), "fall strictly to 0")],
)  # fmt: skip
def test_bad_tables(rho: tuple, c: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tied(PROCESSES["vp"], rho, c)


# Families


def family_of(name: str, kind: str, end: str = "zero") -> Family:
    process = PROCESSES[name]
    spec = f"unipc:final={end}"
    base = flatten(build_plan(spec, process, 6), process)
    if kind == "solver":
        return Family(base, "grid", rebuild=solver_on(spec, process))
    return Family(base, "both", band=2) if kind == "band" else Family(base, kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize(
    ("kind", "size"), [("both", 20), ("grid", 5), ("coefficients", 15), ("band", 14), ("solver", 5)]
)
def test_numbers_go_back_and_forth(name: str, kind: str, size: int) -> None:
    family = family_of(name, kind)
    vector = family.vector(family.base)
    assert family.size == size == len(vector)
    table = family.table(vector)
    np.testing.assert_allclose(table.rho, family.base.rho, rtol=1e-12)
    if kind != "band":
        np.testing.assert_allclose(table.weights(), family.base.weights(), atol=1e-9)
    far = vector + np.random.default_rng(0).normal(size=size)
    np.testing.assert_allclose(family.vector(family.table(far)), far, rtol=1e-9)


def test_nodes_fall_and_stay_within_whatever_the_numbers() -> None:
    family = family_of("vp", "grid")
    rng = np.random.default_rng(1)
    for _ in range(50):
        rho = np.array(family.table(4 * rng.normal(size=5)).rho)
        assert np.all(np.diff(rho) < 0)
        assert rho[-2] > PROCESSES["vp"].rho_min


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("kind", ["both", "grid", "coefficients", "band", "solver"])
@pytest.mark.parametrize("end", ["zero", "sigma_min"])
def test_jacobian_is_that_of_central_differences(name: str, kind: str, end: str) -> None:
    family, denoiser = family_of(name, kind, end), Calls(mix8(PROCESSES[name]))
    vector = family.vector(family.base)
    start = start_of(family.base, noises(8))
    _, columns = jacobian(denoiser, family, vector, start)
    h = 1e-5
    for k, step in enumerate(h * np.eye(family.size)):
        ends = [run_table(denoiser, family.table(vector + s * step), start).end for s in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * h)
        # One-sided differences with a relative step of 5e-7 along strongly bent directions.
        error = (slope - columns[k]).abs().max() / slope.abs().max()
        assert error < 1e-3, (k, float(error))


def test_conditions_are_repeated_with_the_samples() -> None:
    cond = torch.arange(3)
    assert tile(cond, 2).tolist() == [0, 1, 2, 0, 1, 2]
    assert tile({"y": cond, "z": None}, 2)["y"].shape == (6,)
    assert tile((cond,), 2)[0].shape == (6,)
    with pytest.raises(TypeError, match="conditions to tune with"):
        tile("a cat", 2)


def test_bad_families() -> None:
    base = family_of("vp", "both").base
    with pytest.raises(ValueError, match="free must be"):
        Family(base, "all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="band must be"):
        Family(base, band=-1)
    with pytest.raises(ValueError, match="sets the coefficients of free='grid'"):
        Family(base, rebuild=lambda rho: base)
