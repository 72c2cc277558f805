"""Gradient-free classifier guidance on classes that a blurred model confuses."""

from typing import Any

import pytest
import torch
from guidance_problems import (
    LEVEL,
    Blurred,
    Watched,
    accuracy,
    clean_logits,
    draw,
    noise,
    ring,
)
from torch import Tensor

from fewstep.guidance import CFG, GFCG, Autoguidance, guide
from fewstep.schedules import ContinuousVP
from fewstep.types import Level

RING = ring(2.77)
MODEL = Blurred(RING)  # 35 % towards the unconditional model
CLASSIFIER = clean_logits(RING)
N, NFE, SPEC = 2400, 40, "dpmpp:order=2,grid=karras"
LABELS = torch.arange(N) % 8
X = noise(8, 2)


class Recording(GFCG):
    """Keeps the mean scale of each evaluation."""

    def _choose(self, *args: Any) -> tuple[Tensor, Tensor]:
        reference, strength = super()._choose(*args)
        SCALES.append(1 + float(strength.mean()))
        return reference, strength


SCALES: list[float] = []


def accuracy_under(guidance: Any) -> float:
    got = draw(MODEL, SPEC, NFE, N, cond=LABELS, guidance=guidance)
    return accuracy(RING, got, LABELS)


def test_guidance_beats_cfg_of_the_same_mean_scale_on_a_confused_model() -> None:
    SCALES.clear()
    guided = accuracy_under(Recording(CLASSIFIER, 3.0))
    scale = sum(SCALES) / len(SCALES)
    assert accuracy_under(None) == pytest.approx(0.44, abs=0.03)
    assert guided >= 0.90
    assert guided >= accuracy_under(CFG(scale)) + 0.1
    # What the classifier is shown a step late decides the same.
    assert accuracy_under(GFCG(CLASSIFIER, 3.0, lagged=True)) == pytest.approx(guided, abs=0.01)


def by_hand(x: Tensor, labels: Tensor, weak: Any, w_max: float, power: float) -> Tensor:
    c = MODEL(x, LEVEL, labels)
    p = CLASSIFIER(c).softmax(1)
    own = p.gather(1, labels[:, None])[:, 0]
    reference = p.scatter(1, labels[:, None], -1).argmax(1)
    strength = (w_max - 1) * (1 - own) ** power
    return c + strength[:, None] * (c - weak(x, LEVEL, reference))


@pytest.mark.parametrize("power", [1.0, 2.5])
@pytest.mark.parametrize("weak", [None, RING])
def test_guidance_is_its_formula(power: float, weak: Any) -> None:
    labels = torch.arange(8)
    got = guide(MODEL, GFCG(CLASSIFIER, 3.0, power=power, weak=weak))(X, LEVEL, labels)
    expected = by_hand(X, labels, weak or MODEL, 3.0, power)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)  # p is taken in float32


def test_samples_without_confusion_cost_no_row() -> None:
    watched, labels = Watched(MODEL), torch.arange(8)
    sure = torch.tensor([0.0, 1e-5, 1e-5, 0.0, 0.0, 1e-5, 0.0, 1e-5])  # shares of other classes

    def classifier(x: Tensor) -> Tensor:
        p = torch.where(sure[:, None] > 0, torch.full((8, 8), 1 / 8), torch.eye(8).clamp_min(1e-7))
        return p.log()

    guided = guide(watched, GFCG(classifier, 2.0))
    got = guided(X, LEVEL, labels)
    assert watched.rows == [8, 4]
    assert guided.counters.rows == 12
    untouched = sure == 0
    assert torch.equal(got[untouched], MODEL(X, LEVEL, labels)[untouched])
    assert not torch.equal(got[~untouched], MODEL(X, LEVEL, labels)[~untouched])


def test_with_autoguidance_it_costs_what_that_costs() -> None:
    counts = []
    for part in (Autoguidance(RING, 2.0), GFCG(CLASSIFIER, 2.0, weak=RING)):
        guided = guide(MODEL, part)
        guided(X, LEVEL, torch.arange(8))
        counts.append((guided.counters.rows, guided.counters.calls))
    assert counts[0] == counts[1] == (16, 2)


@pytest.mark.parametrize("lagged", [False, True])
def test_no_graph_is_built(lagged: bool) -> None:
    net = torch.nn.Linear(2, 8).double()
    saved = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    guided = guide(MODEL, GFCG(net, 3.0, lagged=lagged))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        for step in range(2):
            at = Level(LEVEL.time, 0.6, 0.8, step, step=step)
            got = guided(X, at, torch.arange(8))
    assert not saved
    assert not got.requires_grad


def test_lagged_takes_one_call_a_step() -> None:
    watched = Watched(MODEL)
    draw(watched, "euler", 6, 8, cond=torch.arange(8), guidance=GFCG(CLASSIFIER, 3.0, lagged=True))
    assert len(watched.rows) == 6
    assert watched.rows[0] == 8
    assert 8 < max(watched.rows) <= 16


def test_it_joins_cfg() -> None:
    model, labels = Blurred(ring(2.77, process=ContinuousVP())), torch.arange(8)
    both = guide(model, CFG(1.5) + GFCG(CLASSIFIER, 3.0))(X, LEVEL, labels)
    apart = [guide(model, part)(X, LEVEL, labels) for part in (CFG(1.5), GFCG(CLASSIFIER, 3.0))]
    expected = apart[0] + apart[1] - model(X, LEVEL, labels)
    torch.testing.assert_close(both, expected, rtol=1e-12, atol=1e-12)
