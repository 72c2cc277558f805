"""Classifier-free guidance against its formula, batched and not."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fewstep.guidance import CFG, parse_guidance
from fewstep.models.adapters import DiffusersDenoiser, EDMDenoiser
from fewstep.models.exact import MixtureDenoiser
from fewstep.schedules import VE, NoiseProcess, discrete_vp
from fewstep.types import Level

VP = discrete_vp("linear")
LEVEL = Level(400.0, 0.6, 0.8)
X = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def mixture() -> MixtureDenoiser:
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0], [0.3, 0.8]])
    return MixtureDenoiser(VP, means, 0.4, labels=torch.tensor([0, 1, 2, 0]))


class Counting:
    """A denoiser without a null condition that records the rows of its calls."""

    def __init__(self) -> None:
        self.inner, self.rows = mixture(), list[int]()

    @property
    def process(self) -> NoiseProcess:
        return self.inner.process

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        self.rows.append(len(x))
        return self.inner(x, level, cond)


class Batching(Counting):
    def null_cond(self, cond: Tensor) -> Tensor:
        return self.inner.null_cond(cond)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0, -1.0])
@pytest.mark.parametrize("kind", [Counting, Batching])
def test_guidance_is_its_formula(kind: type[Counting], scale: float) -> None:
    model = mixture()
    uncond, cond = model(X, LEVEL), model(X, LEVEL, LABELS)
    got = CFG(scale).wrap(kind())(X, LEVEL, LABELS)
    torch.testing.assert_close(got, uncond + scale * (cond - uncond), rtol=1e-12, atol=1e-12)


def test_one_call_of_twice_the_rows_where_there_is_a_null_condition() -> None:
    single, batched = Counting(), Batching()
    CFG(2.0).wrap(single)(X, LEVEL, LABELS)
    CFG(2.0).wrap(batched)(X, LEVEL, LABELS)
    assert single.rows == [6, 6]
    assert batched.rows == [12]


def test_scale_one_is_the_denoiser_itself() -> None:
    denoiser = Batching()
    assert CFG(1.0).wrap(denoiser) is denoiser


def test_without_a_condition_there_is_nothing_to_guide() -> None:
    denoiser = Batching()
    assert torch.equal(CFG(5.0).wrap(denoiser)(X, LEVEL), mixture()(X, LEVEL))
    assert denoiser.rows == [6]


def test_each_sample_is_guided_by_its_own_label() -> None:
    guided = CFG(3.0).wrap(mixture())
    whole = guided(X, LEVEL, LABELS)
    rows = [guided(X[i : i + 1], LEVEL, LABELS[i : i + 1]) for i in range(len(X))]
    # Matrix products of other sizes may add in another order.
    torch.testing.assert_close(torch.cat(rows), whole, rtol=1e-13, atol=1e-13)


def test_guiding_x0_is_guiding_epsilon() -> None:
    model = mixture()

    def eps(x0: Tensor) -> Tensor:
        return (X - LEVEL.alpha * x0) / LEVEL.sigma

    uncond, cond = eps(model(X, LEVEL)), eps(model(X, LEVEL, LABELS))
    got = eps(CFG(4.0).wrap(model)(X, LEVEL, LABELS))
    torch.testing.assert_close(got, uncond + 4 * (cond - uncond), rtol=1e-12, atol=1e-12)


def test_dict_conditions_are_batched_too() -> None:
    seen: list[dict[str, Tensor]] = []

    def net(sample: Tensor, timestep: Tensor, **cond: Tensor) -> tuple[Tensor]:
        seen.append(cond)
        return (sample * cond["a"][:, :1] + cond["b"][:, None],)

    cond = {"a": torch.full((6, 3), 2.0), "b": torch.arange(6.0)}
    null = {"a": torch.zeros(1, 3), "b": torch.tensor(-1.0)}
    denoiser = DiffusersDenoiser(net, VP, prediction_type="sample", uncond=null)
    got = CFG(3.0).wrap(denoiser)(X, LEVEL, cond)
    assert [entry["a"].shape for entry in seen] == [(12, 3)]
    uncond, with_cond = denoiser(X, LEVEL), denoiser(X, LEVEL, cond)
    torch.testing.assert_close(got, uncond + 3 * (with_cond - uncond))


def test_edm_denoiser_uses_its_null_class() -> None:
    def net(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        return labels.to(x)[:, None].expand_as(x)

    got = CFG(2.0).wrap(EDMDenoiser(net, VE(), null_class=10))(X, Level(1.0, 1.0, 1.0), LABELS)
    torch.testing.assert_close(got[:, 0], 10 + 2 * (LABELS.double() - 10))


def test_written_form() -> None:
    assert parse_guidance("cfg:3") == CFG(3.0)
    assert parse_guidance("cfg:1.5") == CFG(1.5)
    assert parse_guidance("none") is None
    assert parse_guidance(None) is None


@pytest.mark.parametrize("text", ["cfg", "cfg:", "cfg:x", "cfg:inf", "apg:3", "", "cfg:3:4"])
def test_written_form_errors_name_the_remedy(text: str) -> None:
    with pytest.raises(ValueError, match="write none or cfg:SCALE"):
        parse_guidance(text)


def test_scale_must_be_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        CFG(float("nan"))
