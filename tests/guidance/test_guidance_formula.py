"""Contrast guidance against its formula, and against the laws that it has on pairs of Gaussians."""

import math
from typing import Any

import pytest
import torch
from guidance_problems import F64, LEVEL, Blurred, Pair, Watched, draw, noise, ring
from torch import Tensor

from fewstep.guidance import CFG, GFCG, ICG, TSG, Autoguidance, Interval, Project, guide
from fewstep.models.adapters import DiffusersDenoiser, EDMDenoiser
from fewstep.models.ode import level_at
from fewstep.schedules import VE, ContinuousVP, discrete_vp
from fewstep.types import Level

MODEL = ring(process=ContinuousVP())
X = noise(8, 2)
LABELS = torch.arange(8)
TIGHT = {"rtol": 1e-12, "atol": 1e-12}  # some rounding of float64


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, 7.5])
@pytest.mark.filterwarnings("ignore:a scale of CFG between 0 and 1")
@pytest.mark.parametrize("view", ["x0", "eps", "v"])
def test_guidance_is_its_formula_in_every_view(scale: float, view: str) -> None:
    def seen(x0: Tensor) -> Tensor:
        eps = (X - LEVEL.alpha * x0) / LEVEL.sigma
        return {"x0": x0, "eps": eps, "v": LEVEL.alpha * eps - LEVEL.sigma * x0}[view]

    c, u = seen(MODEL(X, LEVEL, LABELS)), seen(MODEL(X, LEVEL))
    guided = seen(guide(MODEL, CFG(scale))(X, LEVEL, LABELS))
    torch.testing.assert_close(guided, u + scale * (c - u), **TIGHT)


def test_each_sample_is_guided_by_its_own_label() -> None:
    guided = guide(MODEL, CFG(3.0))
    whole = guided(X, LEVEL, LABELS)
    rows = [guided(X[i : i + 1], LEVEL, LABELS[i : i + 1]) for i in range(8)]
    # Matrix products of other sizes may add in another order.
    torch.testing.assert_close(torch.cat(rows), whole, rtol=1e-13, atol=1e-13)


class Watching(Watched):
    null_cond: Any


def test_a_denoiser_without_a_null_condition_is_called_twice() -> None:
    with_null, without = Watching(MODEL), Watching(MODEL)
    del without.null_cond
    a, b = (guide(d, CFG(2.0))(X, LEVEL, LABELS) for d in (with_null, without))
    assert (with_null.rows, without.rows) == ([16], [8, 8])
    torch.testing.assert_close(a, b, **TIGHT)


OFF = {
    "cfg": CFG(1.0),
    "icg": ICG(1.0),
    "tsg": TSG(1.0),
    "gfcg": GFCG(lambda x: x, 1.0),
    "auto": Autoguidance(Blurred(MODEL), 1.0),
    "interval": CFG(3.0) | Interval(1e5, 1e6),
    "interval below": (CFG(3.0) + ICG(2.0)) | Project() | Interval(0.0, 1e-4),
}


@pytest.mark.parametrize("name", OFF)
def test_off_is_bit_equal_to_unguided_and_costs_nothing(name: str) -> None:
    watched = Watched(MODEL)
    x = X.float()
    guided = guide(watched, OFF[name])
    assert torch.equal(guided(x, LEVEL, LABELS), MODEL(x, LEVEL, LABELS))
    assert watched.rows == [8]
    assert (guided.counters.rows, guided.counters.calls) == (8, 1)


def test_dict_conditions_are_batched_too() -> None:
    seen: list[dict[str, Tensor]] = []

    def net(sample: Tensor, timestep: Tensor, **cond: Tensor) -> tuple[Tensor]:
        seen.append(cond)
        return (sample * cond["a"][:, :1] + cond["b"][:, None],)

    cond = {"a": torch.full((8, 3), 2.0), "b": torch.arange(8.0)}
    null = {"a": torch.zeros(1, 3), "b": torch.tensor(-1.0)}
    vp = discrete_vp("linear")
    denoiser = DiffusersDenoiser(net, vp, prediction_type="sample", uncond=null)
    got = guide(denoiser, CFG(3.0))(X, LEVEL, cond)
    assert [entry["a"].shape for entry in seen] == [(16, 3)]
    uncond, with_cond = denoiser(X, LEVEL), denoiser(X, LEVEL, cond)
    torch.testing.assert_close(got, uncond + 3 * (with_cond - uncond))


def test_icg_replaces_the_labels_of_a_dict_condition() -> None:
    def net(sample: Tensor, timestep: Tensor, **cond: Tensor) -> tuple[Tensor]:
        return (cond["class_labels"].to(sample)[:, None] + cond["offset"][:, None] * sample,)

    denoiser = DiffusersDenoiser(net, MODEL.process, prediction_type="sample", num_classes=8)
    cond = {"class_labels": LABELS, "offset": torch.zeros(8)}
    watched = Watched(denoiser)
    got = guide(watched, ICG(2.0), range(8))(X, LEVEL, cond)
    drawn = watched.conds[0]["class_labels"][8:]
    assert torch.equal(watched.conds[0]["offset"], torch.zeros(16))
    torch.testing.assert_close(got, (2 * LABELS - drawn).to(F64)[:, None].expand(8, 2), **TIGHT)


def test_edm_denoiser_uses_its_null_class() -> None:
    def net(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        return labels.to(x)[:, None].expand_as(x)

    got = guide(EDMDenoiser(net, VE(), null_class=10), CFG(2.0))(X, Level(1.0, 1.0, 1.0), LABELS)
    torch.testing.assert_close(got[:, 0], 10 + 2 * (LABELS.double() - 10))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_dtype_and_sums_in_float32(dtype: torch.dtype) -> None:
    seen = []

    class Spy(Project):
        def shape(self, base, direction, ctx):
            seen.extend([base.dtype, direction.total.dtype])
            return direction

    x = X.to(dtype)
    got = guide(MODEL, CFG(3.0) | Spy())(x, LEVEL, LABELS)
    assert seen == [torch.float32, torch.float32]
    assert got.dtype == dtype
    c, u = MODEL(x, LEVEL, LABELS).float(), MODEL(x, LEVEL).float()
    # One rounding of the result; the network sees both parts in one batch, and here in two.
    torch.testing.assert_close(
        got, (c + 2 * (c - u)).to(dtype), rtol=torch.finfo(dtype).eps, atol=0
    )


def test_autoguidance_by_a_weaker_model() -> None:
    strong, weak = Watched(MODEL), Watched(Blurred(MODEL))
    guided = guide(strong, Autoguidance(weak, 2.5))
    got = guided(X, LEVEL, LABELS)
    assert (strong.rows, weak.rows) == ([8], [8])
    assert (guided.counters.rows, guided.counters.calls) == (16, 2)
    expected = torch.lerp(weak.inner(X, LEVEL, LABELS), MODEL(X, LEVEL, LABELS), 2.5)
    torch.testing.assert_close(got, expected, **TIGHT)


def test_autoguidance_by_itself_is_unguided() -> None:
    got = guide(MODEL, Autoguidance(MODEL, 3.0))(X, LEVEL, LABELS)
    assert torch.equal(got, MODEL(X, LEVEL, LABELS))


def test_equal_variances_give_the_gaussian_of_the_extrapolated_mean() -> None:
    pair, n, v = Pair(-0.5, 0.49, 0.8, 0.49), 20_000, 0.49
    cond = torch.zeros(n, dtype=torch.long)
    spec = "dpmpp:order=2,grid=logsnr"
    got = draw(pair, spec, 100, n, shape=(n, 1), cond=cond, guidance=CFG(3.0))
    # Sampling starts from N(0, 1) instead of around alpha m; the flow carries that to the end.
    top, mean = level_at(pair.process, pair.process.rho_max), -0.5 + 3 * 1.3
    mean -= top.alpha * mean * math.sqrt(v / (top.alpha**2 * v + top.sigma**2))
    assert float(got.mean()) == pytest.approx(mean, abs=3 * math.sqrt(v / n))
    # The variance of a variance of n Gaussian numbers is 2 v^2 / n.
    assert float(got.var()) == pytest.approx(v, abs=3 * v * math.sqrt(2 / n))


V0, V1, W = 0.9, 0.3, 2.5


def unequal(sigma: float) -> float:
    """x(sigma) is proportional to this under guidance of N(0, V1) away from N(0, V0)."""
    return (V1 + sigma**2) ** (W / 2) * (V0 + sigma**2) ** ((1 - W) / 2)


def run_unequal(spec: str, nfe: int, process: VE, start: Tensor) -> Tensor:
    cond = torch.zeros(len(start), dtype=torch.long)
    pair = Pair(0.0, V0, 0.0, V1, process)
    return draw(pair, spec, nfe, 0, shape=None, noise=start, cond=cond, guidance=CFG(W))


@pytest.mark.parametrize(
    ("spec", "calls"), [("heun:", 2), ("dpmpp:order=2,lower_order_final=false,", 1)]
)
def test_unequal_variances_keep_the_order_of_the_solver(spec: str, calls: int) -> None:
    start = torch.tensor([[1.0], [-2.0]], dtype=F64)
    exact = start * 20 * unequal(0.02) / unequal(20.0)
    errors = []
    for steps in (128, 256):
        got = run_unequal(
            f"{spec}grid=logsnr,final=sigma_min", calls * steps, VE(0.02, 20.0), start
        )
        errors.append(float((got - exact).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.1)


def test_the_limit_variance_is_the_geometric_mean_and_not_the_tilted_one() -> None:
    end = run_unequal("dpmpp:order=2,grid=logsnr", 400, VE(), torch.ones(1, 1, dtype=F64))
    # The rest of the error is that of 400 steps, and of starting at a finite sigma.
    assert float(end) ** 2 == pytest.approx(V1**W * V0 ** (1 - W), rel=2e-3)
    tilted = 1 / (W / V1 + (1 - W) / V0)
    assert abs(float(end) ** 2 - tilted) > 0.05
