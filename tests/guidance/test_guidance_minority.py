"""Guidance to rare samples of a mixture with a mode of 5 %; broken samples are counted beside."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from guidance_problems import Judge, draw, generator, rare_mode
from torch import Tensor, nn
from torch.nn import functional as F

from fewstep.guidance import Every, Minority, SelfMinority
from fewstep.models.minority import minority_score, ordinal_classes
from fewstep.models.ode import level_at
from fewstep.types import Level

MODEL, BINS, N = rare_mode(), 10, 2000
Report = Callable[[str, Any], dict[str, float]]


class RarityNet(nn.Module):
    """Logits of the ordinal classes from noisy points and their level."""

    num_classes = BINS

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(4, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, BINS)
        )

    def noisy(self, y: Tensor, rho: Tensor) -> Tensor:
        told = rho.log() / 2
        return self.body(torch.cat([y / (1 + rho.square()).sqrt(), told, told.sin()], dim=1))

    def forward(self, x: Tensor, level: Level) -> Tensor:
        rho = torch.full((len(x), 1), level.rho)
        return self.noisy((x / level.alpha).float(), rho).to(x.dtype)


@pytest.fixture(scope="module")
def classifier() -> RarityNet:
    """Trained for about two seconds."""
    torch.manual_seed(0)
    clean = MODEL.sample_data(8000, generator(1))
    level = level_at(MODEL.process, 1.0)
    scores = minority_score(MODEL, clean, level, draws=1, clip=None, batch=8000)
    classes, points, g = ordinal_classes(scores, BINS), clean.float(), generator(2)
    net = RarityNet()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, 500)
    for _ in range(500):
        pick = torch.randint(len(points), (1024,), generator=g)
        rho = (8.7 * torch.rand(1024, 1, generator=g) - 4.6).exp()  # .01 to 60
        noisy = points[pick] + rho * torch.randn(1024, 2, generator=g)
        loss = F.cross_entropy(net.noisy(noisy, rho), classes[pick])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
    return net.eval()


@pytest.fixture(scope="module")
def report() -> Report:
    judge, known = Judge(MODEL), dict[str, dict[str, float]]()

    def made(spec: str, guidance: Any) -> dict[str, float]:
        key = f"{spec} {guidance!r}"
        if key not in known:
            known[key] = judge(draw(MODEL, spec, 50, N, guidance=guidance))
        return known[key]

    return made


@pytest.mark.parametrize("spec", ["euler", "euler_a"])
def test_the_top_bin_is_rare_and_on_the_support(
    spec: str, classifier: RarityNet, report: Report
) -> None:
    plain, guided = report(spec, None), report(spec, Minority(classifier, 2.0))
    assert plain["low"] == pytest.approx(0.1, abs=0.03)
    assert guided["low"] >= 0.30
    assert guided["rare"] > 4 * plain["rare"]
    # An ODE sampler carries what the small network does off the support to the end.
    assert guided["off"] <= (0.02 if spec == "euler_a" else 0.04)


def test_scale_and_bin_order_the_share_of_rare_samples(
    classifier: RarityNet, report: Report
) -> None:
    by_scale = [report("euler_a", Minority(classifier, w)) for w in (0.0, 1.0, 2.0, 4.0)]
    by_bin = [report("euler_a", Minority(classifier, 2.0, bin=b)) for b in (0, 5, 7, 9)]
    for found in (by_scale, by_bin):
        low = [shares["low"] for shares in found]
        assert low == sorted(low)
    assert by_scale[-1]["rare"] >= 0.5
    assert report("euler_a", Minority(classifier, 1.0, bin=0))["low"] <= 0.03
    last = report("euler_a", Minority(classifier, 2.0, bin=BINS - 1))
    assert last == report("euler_a", Minority(classifier, 2.0))


def test_self_guidance_finds_tails_and_not_the_rare_mode(report: Report) -> None:
    """Its step has a size of its own, so what a scale does depends on the width of the data."""
    found = [report("euler_a", part) for part in (None, *map(SelfMinority, (0.2, 0.4, 0.8)))]
    low = [shares["low"] for shares in found]
    assert low == sorted(low)
    assert found[2]["low"] >= 1.25 * found[0]["low"]
    assert found[3]["low"] >= 0.18
    assert found[3]["rare"] < found[0]["rare"]
    assert max(shares["off"] for shares in found) <= 0.02


def test_self_guidance_every_fifth_of_fifty_steps_does_next_to_nothing(report: Report) -> None:
    """The authors' rule is for 250 steps."""
    plain, guided = (report("euler_a", p) for p in (None, SelfMinority(0.4) | Every(5)))
    assert guided["low"] == pytest.approx(plain["low"], abs=0.01)
