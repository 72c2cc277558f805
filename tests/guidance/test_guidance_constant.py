"""Predictions that are constant, zero or equal: no ratio of norms or deviations may break on them.

Samples of every such kind stand in one batch beside ordinary ones, and every registered source is
combined with every registered modifier.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewstep.guidance import (
    CFG,
    GFCG,
    ICG,
    TSG,
    Autoguidance,
    CFGpp,
    ClassifierGuidance,
    EnergyGuidance,
    Every,
    Expression,
    FKSteering,
    Interval,
    Minority,
    Modifier,
    Project,
    Rescale,
    ScaleSchedule,
    SelfMinority,
    ZeroStar,
    guide,
)
from fewstep.guidance.modifiers.shaping import DynamicThreshold
from fewstep.guidance.parse import MODIFIERS, SOURCES
from fewstep.guidance.pipelines.levels import facts_of, training_of
from fewstep.guidance.sizes import deviation, norm, ratio, share
from fewstep.guidance.sources.contrast import Contrast
from fewstep.models import DiffusersDenoiser
from fewstep.models.ode import level_at
from fewstep.samplers.adapter.threshold import DynamicThreshold as Clamp
from fewstep.schedules import Flow, NoiseProcess, discrete_vp
from fewstep.types import Level

HALVES = (torch.float16, torch.bfloat16)
ORDINARY = 4  # labels below it, and half of the batch
# What the network returns under the label and without it: a number everywhere, or "gain k" of x.
KINDS: dict[int, tuple[float | str, float | str]] = {
    4: (0.0, 0.0),
    5: (0.3, 0.3),
    6: (0.3, -0.2),
    7: (0.3, "1"),
    8: ("1", 0.0),
    9: ("2", "2"),
}
CLASSES = ORDINARY + len(KINDS)
LABELS = torch.tensor([0, *KINDS, 1, 3])
PLAIN = LABELS < ORDINARY


class Network(nn.Module):
    """By label: a constant, whatever it sees, or a smooth function of it."""

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        self.time_embedding, self.offset = nn.Linear(1, 4), offset
        with torch.no_grad():
            self.time_embedding.weight.fill_(1e-3)
            self.time_embedding.bias.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor) -> tuple[Tensor]:
        told = self.time_embedding(timestep.to(sample.dtype)[:, None] / 1000).sum(1)
        rows = [self._row(*row) for row in zip(sample, told, class_labels.tolist(), strict=True)]
        return (torch.stack(rows) + self.offset,)

    def _row(self, x: Tensor, told: Tensor, label: int) -> Tensor:
        null, label = divmod(label, CLASSES)
        kind = KINDS[label][null] if label >= ORDINARY else "5" if null else str(label)
        if isinstance(kind, str):
            return torch.tanh((1 + 0.3 * int(kind)) * x.flip(0) + told)
        return kind + 0 * x


class Denoiser(DiffusersDenoiser):
    """Without a condition a sample is still of its kind."""

    def null_cond(self, cond: Any) -> Any:
        return cond + CLASSES


def denoiser(process: NoiseProcess, dtype: torch.dtype, offset: float = 0.0) -> Denoiser:
    kind = "flow_prediction" if isinstance(process, Flow) else "epsilon"
    network = Network(offset).eval().to(dtype)
    return Denoiser(network, process, prediction_type=kind, num_classes=CLASSES)  # type: ignore


def logits(x: Tensor) -> Tensor:
    """(n, 10) of a classifier that has no opinion on two samples of the batch, nor any slope."""
    flat = x.flatten(1)[:, :1] * torch.linspace(-1, 1, CLASSES, dtype=x.dtype)
    return flat * (torch.arange(len(x)) % 4 > 0)[:, None]


def timed(x: Tensor, t: Tensor) -> Tensor:
    return logits(x)


def sources(weak: Any) -> dict[str, Expression]:
    return {
        "cfg": CFG(5), "icg": ICG(2), "tsg": TSG(3), "autoguidance": Autoguidance(weak, 2),
        "gfcg": GFCG(logits, 3), "classifier": ClassifierGuidance(timed, 2),
        "minority": Minority(timed, 2), "selfminority": SelfMinority(0.4),
        "energy": EnergyGuidance(lambda x: x.flatten(1).square().sum(1), 1, clean=True),
    }  # fmt: skip


MODIFIED: dict[str, Modifier] = {
    "interval": Interval(0, math.inf), "every": Every(1), "schedule": ScaleSchedule("linear"),
    "cfgpp": CFGpp(), "project": Project(0, r=0.5), "rescale": Rescale(0.7),
    "zerostar": ZeroStar(0), "threshold": DynamicThreshold(0.9),
}  # fmt: skip


def modified(source: Expression, process: NoiseProcess) -> dict[str, Expression]:
    """The source under every modifier that it can have."""
    found = {"": source}
    for name, modifier in MODIFIED.items():
        if name in ("cfgpp", "zerostar") and not isinstance(source, Contrast | Autoguidance):
            continue
        if name != "zerostar" or isinstance(process, Flow):
            found[name] = source | modifier
    if isinstance(process, Flow):
        found["rescale of velocities"] = source | Rescale(0.7, "velocity")
    return found | {"rescale of data": source | Rescale(0.7, "data")}


def states(dtype: torch.dtype, shape: tuple[int, ...] = (3, 4, 4)) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn((len(LABELS), *shape), generator=generator).to(dtype)


def levels(process: NoiseProcess) -> list[Level]:
    return [level_at(process, rho) for rho in (8.0, 1.0, 0.2)]


def test_no_source_and_no_modifier_is_left_out() -> None:
    assert set(sources(None)) - {"energy"} == set(SOURCES)
    assert set(MODIFIED) == set(MODIFIERS)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("process", [discrete_vp("linear"), Flow()], ids=["vp", "flow"])
@pytest.mark.parametrize("name", list(sources(None)))
def test_constant_samples_are_finite_and_leave_the_others_alone(
    name: str, process: NoiseProcess, dtype: torch.dtype
) -> None:
    model, x = denoiser(process, dtype), states(dtype)
    seeds = torch.arange(len(x))
    if name in ("classifier", "minority", "gfcg"):  # whose function knows a sample by its place
        rows = torch.arange(len(x)) % 4 == torch.arange(len(x))
    else:
        rows = PLAIN
    for guidance in modified(sources(denoiser(process, dtype, 0.1))[name], process).values():
        for level in levels(process):
            whole = guide(model, guidance, seeds.tolist())(x, level, LABELS)
            assert whole.isfinite().all(), (str(guidance), level)
            alone = guide(model, guidance, seeds[rows].tolist())(x[rows], level, LABELS[rows])
            torch.testing.assert_close(whole[rows], alone, msg=lambda m: f"{guidance}: {m}")  # noqa: B023


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("process", [discrete_vp("linear"), Flow()], ids=["vp", "flow"])
def test_the_ratio_of_what_has_no_size_is_one(process: NoiseProcess, dtype: torch.dtype) -> None:
    """Rescaling leaves constant samples as they are, and so does CFG-Zero* where u is 0."""
    model, x = denoiser(process, dtype), states(dtype)
    space = "velocity" if isinstance(process, Flow) else "noise"
    constant = torch.isin(LABELS, torch.tensor([4, 5, 6, 7]))
    zero = torch.isin(LABELS, torch.tensor([4, 8]))
    parts = [(Rescale(1.0, space), constant)]  # type: ignore[arg-type]
    if isinstance(process, Flow):
        parts.append((ZeroStar(0), zero))
    for level in levels(process):
        plain = guide(model, CFG(5))(x, level, LABELS)
        # Both are computed in float32, where the way through the noise costs some roundings of x,
        # and are rounded to the dtype once.
        bound = {"rtol": torch.finfo(dtype).eps, "atol": 1e-5 * max(1.0, level.rho)}
        for modifier, rows in parts:
            got = guide(model, CFG(5) | modifier)(x, level, LABELS)
            torch.testing.assert_close(got[rows], plain[rows], **bound)
            apart = (got - plain)[~rows].float().flatten(1).abs().amax(dim=1)
            assert (apart > 0.01).sum() >= 2  # the others are changed


@pytest.mark.parametrize("shaped", ["project", "rescale", "zerostar", "threshold"])
def test_gradients_through_guidance_are_finite(shaped: str) -> None:
    process = Flow()
    x = states(torch.float32).requires_grad_()
    guided = guide(denoiser(process, torch.float32), CFG(5) | MODIFIED[shaped])
    (found,) = torch.autograd.grad(guided(x, level_at(process, 1.0), LABELS).square().sum(), x)
    assert found.isfinite().all()


@pytest.mark.parametrize("name", list(sources(None)))
def test_samples_of_one_element(name: str) -> None:
    """Their deviation is 0; with Bessel's correction it would be 0 / 0."""
    process = Flow()
    model, x = denoiser(process, torch.float32), states(torch.float32, (1,))
    for guidance in modified(
        sources(denoiser(process, torch.float32, 0.1))[name], process
    ).values():
        assert guide(model, guidance)(x, level_at(process, 1.0), LABELS).isfinite().all()


def test_embeddings_of_one_number() -> None:
    model = denoiser(Flow(), torch.float32)
    model.network.time_embedding = nn.Linear(1, 1)  # type: ignore[union-attr]
    x, level = states(torch.float32), level_at(Flow(), 1.0)
    assert guide(model, TSG(3))(x, level, LABELS).isfinite().all()

    def of_embedding(sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        return sample * encoder_hidden_states.mean(1)[:, None, None, None]

    told = DiffusersDenoiser(of_embedding, Flow(), prediction_type="sample")
    for width in (1, 6):
        cond = torch.full((len(x), width), 0.5)
        assert guide(told, ICG(2, mode="gaussian"))(x, level, cond).isfinite().all()


@pytest.mark.parametrize("potential", ["max", "diff", "add"])
@pytest.mark.parametrize("reward", [0.0, -3.0, 1e4])
def test_equal_rewards_keep_every_particle(potential: Any, reward: float) -> None:
    steering = FKSteering(lambda x: torch.full((len(x),), reward), 4, potential=potential)
    steering._steps, x = 4, states(torch.float32)[:8]
    steering.start(x, x, Level(0.5, 1.0, 1.0))
    for step in range(4):
        kept = steering.after_step(x, x, Level(0.5, 1.0, 1.0, step, step=step), range(8))
        assert kept is None or kept.tolist() == list(range(8))
    for size in steering.effective_sizes:
        torch.testing.assert_close(size, torch.full((2,), 4.0))


@pytest.mark.parametrize("value", [0.0, 0.3, 60.0])
def test_thresholding_of_constant_data(value: float) -> None:
    for shape in ((3, 2, 2), ()):
        data = torch.full((2, *shape), value)
        torch.testing.assert_close(Clamp(0.9)(data), data / max(1.0, value))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES])
def test_sizes_are_those_of_the_formulas_and_ratios_of_nothing_are_one(dtype: torch.dtype) -> None:
    value = states(dtype)[:2]
    value[1] = 0
    for size in (norm, deviation):
        got = ratio(3.0, size(value))
        torch.testing.assert_close(
            got[0].double(), 3 / size(value[:1].double())[0], rtol=1e-6, atol=0
        )
        assert got[1] == 1
        assert ratio(size(value), torch.full((2,), 2.0))[1] == 1
    assert share(value + 1, value)[1] == 1
    # Squares of halves would overflow, and those of small ones vanish.
    for scale in (3e4, 1e-4):
        flat = torch.full((1, 64), scale).to(dtype)
        torch.testing.assert_close(norm(flat).double(), 8 * flat[:, 0].double(), rtol=1e-6, atol=0)
        torch.testing.assert_close(share(flat, flat).double(), torch.ones(1, dtype=torch.float64))


def test_gradients_of_sizes_at_zero_are_zero() -> None:
    x = torch.zeros(2, 5, requires_grad=True)
    total = ratio(norm(x), deviation(x)) + ratio(1.0, norm(x)) + share(x, x)
    (found,) = torch.autograd.grad(total.sum(), x)
    assert torch.equal(found, torch.zeros_like(x))


def test_cfgpp_at_a_step_that_goes_nowhere_and_behind_heun_of_diffusers() -> None:
    model, x = denoiser(discrete_vp("linear"), torch.float32), states(torch.float32)
    level = Level(500.0, 0.6, 0.8, next_sigma=0.8, next_alpha=0.6)
    torch.testing.assert_close(
        guide(model, CFG(3) | CFGpp(0.6))(x, level, LABELS), guide(model, CFG(3))(x, level, LABELS)
    )
    from diffusers import HeunDiscreteScheduler

    heun = HeunDiscreteScheduler()
    heun.set_timesteps(4)
    with pytest.raises(ValueError, match="first order"):
        (CFG(3) | CFGpp(0.6)).check(facts_of(heun, training_of(heun).process, 0))
