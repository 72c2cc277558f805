"""What guidance costs, and that its draws depend on nothing but sample, step and site."""

from typing import Any

import pytest
import torch
from guidance_problems import (
    F64,
    LEVEL,
    Blurred,
    Timed,
    Watched,
    clean_logits,
    draw,
    noise,
    ring,
)
from torch import Tensor

from fewstep.guidance import (
    CFG,
    GFCG,
    ICG,
    TSG,
    Autoguidance,
    ClassifierGuidance,
    EnergyGuidance,
    Every,
    Interval,
    Project,
    SelfMinority,
    guide,
)
from fewstep.guidance.context import Draws
from fewstep.models.ode import level_at
from fewstep.samplers import sample
from fewstep.types import Level

MODEL = ring()
CLASSIFIER = clean_logits(MODEL)
LABELS = torch.arange(8)
X = noise(8, 2)
CONFUSED = GFCG(lambda x: torch.zeros(len(x), 8, dtype=x.dtype), 3.0)  # guides every sample


def costs(guidance: Any, **options: Any) -> list[int]:
    """Rows for each sample and calls of six Euler steps at these levels."""
    guided = guide(Watched(MODEL), guidance, **options)
    for index, rho in enumerate((20.0, 8.0, 3.0, 1.0, 0.5, 0.1)):
        level = level_at(MODEL.process, rho)
        guided(rho * X, Level(level.time, 1.0, rho, index, step=index), LABELS)
    counted = guided.counters
    assert sum(guided.denoiser.rows) == counted.rows
    assert len(guided.denoiser.rows) == counted.calls
    return [counted.rows // 8, counted.calls]


FOUR = Interval(0.3, 10.0)  # four of the six levels


@pytest.mark.parametrize(
    ("guidance", "expected"),
    [
        (CFG(3.0), [12, 6]),
        (CFG(3.0) | FOUR, [10, 6]),
        ((ICG(1.4) | FOUR) + CFG(3.0), [16, 6]),
        (CONFUSED, [12, 12]),
        ((CFG(3.0) + CONFUSED) | Project(), [18, 12]),
        (CFG(3.0) + CFG(2.0, site="second"), [12, 6]),  # one row serves both
        (CFG(3.0) + ICG(1.4) + ICG(1.2, site="second"), [24, 6]),
        (ICG(1.4) | Every(2), [9, 6]),
        (CFG(3.0) + SelfMinority(0.1), [18, 18]),
    ],
)
def test_rows_and_calls_of_six_steps(guidance: Any, expected: list[int]) -> None:
    assert costs(guidance) == expected


def test_rows_that_are_differentiated_are_counted() -> None:
    guided = guide(MODEL, SelfMinority(0.1))
    guided(X, LEVEL, LABELS)
    counted = guided.counters
    assert (counted.rows, counted.backward_rows, counted.calls) == (16, 8, 2)
    guided = guide(MODEL, ClassifierGuidance(lambda x, level: CLASSIFIER(x), 1.0))
    guided(X, LEVEL, LABELS)
    counted = guided.counters
    assert (counted.rows, counted.backward_rows, counted.classifier_rows) == (8, 0, 8)


def test_two_sources_differentiate_one_prediction() -> None:
    parts = (SelfMinority(0.1), EnergyGuidance(lambda x0: x0.square().sum(1), 0.2, clean=True))
    guided = guide(MODEL, parts[0] + parts[1])
    both = guided(X, LEVEL, LABELS)
    base = MODEL(X, LEVEL, LABELS)
    apart = [guide(MODEL, part)(X, LEVEL, LABELS) - base for part in parts]
    torch.testing.assert_close(both, base + apart[0] + apart[1], rtol=1e-12, atol=1e-12)
    assert (guided.counters.rows, guided.counters.backward_rows) == (16, 16)


@pytest.mark.parametrize("guidance", [CFG(3.0) + ICG(1.4), SelfMinority(0.1), CONFUSED])
def test_max_rows_splits_calls_and_changes_nothing(guidance: Any) -> None:
    watched = Watched(MODEL)
    guided = guide(watched, guidance, max_rows=5)
    got = guided(X, LEVEL, LABELS)
    assert max(watched.rows) <= 5
    assert guided.counters.calls == len(watched.rows)
    whole = guide(MODEL, guidance)(X, LEVEL, LABELS)
    torch.testing.assert_close(got, whole, rtol=1e-12, atol=1e-12)


def test_max_rows_splits_time_noise_too() -> None:
    level = level_at(Timed.process, 0.9)
    x = noise(8, 1)
    got = guide(Timed(), TSG(), max_rows=3)(x, level)
    torch.testing.assert_close(got, guide(Timed(), TSG())(x, level), rtol=1e-12, atol=1e-12)


class Rowwise:
    """The mixture a row at a time: BLAS rounds products of 3 rows and of 8 differently."""

    process, num_classes, null_cond = MODEL.process, 8, MODEL.null_cond

    def __init__(self, inner: Any = MODEL) -> None:
        self.inner = inner

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        rows = [slice(i, i + 1) for i in range(len(x))]
        # Copies start where tensors do, and rows of a batch anywhere, which can decide last bits.
        return torch.cat(
            [self.inner(x[i].clone(), level, None if cond is None else cond[i]) for i in rows]
        )


SPECS = ("euler", "heun:grid=karras", "dpmpp:order=2", "ddim:eta=1")
SPLIT: dict[str, Any] = {
    "icg": ICG(1.5),
    "chain": (ICG(1.5) | Interval(0.3, 5.0)) + CFG(2.0) + ICG(1.2, site="second"),
    "apg": (CFG(3.0) + ICG(1.5)) | Project(0.2, r=2.0, beta=-0.5),
    "gfcg": GFCG(CLASSIFIER, 3.0, lagged=True),
    "auto": Autoguidance(Rowwise(Blurred(MODEL)), 2.0),
    "self": SelfMinority(0.1) | Every(2),
}


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", SPLIT)
def test_samples_do_not_depend_on_their_batch(name: str, spec: str) -> None:
    seeds = torch.arange(8) * 7 + 3

    def run(which: Tensor) -> Tensor:
        options = {"cond": LABELS[which], "guidance": SPLIT[name], "seeds": seeds[which].tolist()}
        return draw(Rowwise(), spec, 8, len(which), **options)

    whole = run(torch.arange(8))
    assert torch.equal(run(torch.arange(8)), whole)
    split = torch.cat([run(torch.arange(3)), run(torch.arange(3, 8))])
    assert torch.equal(split, whole)
    order = torch.tensor([5, 0, 7, 2, 1, 6, 3, 4])
    assert torch.equal(run(order), whole[order])


@pytest.mark.parametrize("model", [MODEL, Timed()], ids=["icg", "tsg"])
def test_guidance_leaves_the_noise_of_the_sampler_alone(model: Any) -> None:
    """A scale that is off but for rounding moves samples by rounding, through all their noise."""
    # The second draws as much as the first, but its direction is next to nothing.
    timed = isinstance(model, Timed)
    shape, cond = ((8, 1), None) if timed else ((8, 2), LABELS)
    tiny = TSG(1 + 1e-12) if timed else ICG(1 + 1e-12)
    plain, guided = (
        draw(model, "ddim:eta=1", 10, 8, shape=shape, cond=cond, guidance=part)
        for part in (None, tiny)
    )
    assert not torch.equal(plain, guided)
    torch.testing.assert_close(plain, guided, rtol=1e-9, atol=1e-9)


def test_the_global_generator_is_not_touched() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    draw(MODEL, "ddim:eta=1", 4, 8, cond=LABELS, guidance=ICG(2.0) + SelfMinority(0.1))
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_are_keyed_by_sample_step_and_site() -> None:
    whole = Draws([4, 9, 2]).normal((5,), 3, "a")
    assert torch.equal(Draws([2, 4]).normal((5,), 3, "a"), whole[[2, 0]])
    others = [
        Draws([4, 9, 2]).normal((5,), 4, "a"),
        Draws([4, 9, 2]).normal((5,), 3, "b"),
        Draws([3, 8, 1]).normal((5,), 4, "a"),
    ]
    for other in others:
        assert not torch.isclose(other, whole).any()
    many = torch.cat([Draws(range(400)).normal((8,), step, "a") for step in range(5)])
    assert float(many.std()) == pytest.approx(1, abs=0.02)
    pairs = torch.corrcoef(many[:, 0].view(5, 400))  # independent from step to step
    assert (pairs - torch.eye(5)).abs().max() < 4.5 / 20


def test_both_calls_of_a_heun_step_share_a_draw() -> None:
    watched = Watched(MODEL)
    draw(watched, "heun:grid=karras", 9, 8, cond=LABELS, guidance=ICG(2.0))
    drawn = [cond[8:] for cond in watched.conds]
    for index in range(1, 9):
        same = watched.levels[index].step == watched.levels[index - 1].step
        assert torch.equal(drawn[index], drawn[index - 1]) == same


def test_a_second_run_of_one_guided_denoiser_is_the_first_again() -> None:
    guided = guide(MODEL, CFG(3.0) | Project(0.0, beta=0.5))
    with torch.no_grad():
        runs = [sample(guided, "euler", 5, noise=X.to(F64), cond=LABELS) for _ in range(2)]
    assert torch.equal(*runs)
