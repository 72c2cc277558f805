"""The language of guidance: what may be combined, and what is refused."""

import math
from typing import Any

import pytest
import torch
from guidance_problems import LEVEL, Images, Timed, draw, noise, ring
from torch import nn

from fewstep.guidance import (
    CFG,
    GFCG,
    ICG,
    TSG,
    Autoguidance,
    BoostAndSkip,
    CFGpp,
    ClassifierGuidance,
    DynamicThreshold,
    EnergyGuidance,
    Every,
    FKSteering,
    Interval,
    Minority,
    Project,
    Rescale,
    ScaleSchedule,
    SelfMinority,
    ZeroStar,
    guide,
)
from fewstep.models.exact import GaussianDenoiser
from fewstep.schedules import VE, ContinuousVP
from fewstep.types import Level

MODEL, X, LABELS = ring(process=ContinuousVP()), noise(8, 2), torch.arange(8)
A, B, ON = CFG(3.0), ICG(1.4), Interval(0.28, 2.9)


def test_sums_and_pipes_are_trees_of_sources_in_order() -> None:
    three = A + (B | ON) + TSG()
    assert [source.name for source in three.sources()] == ["CFG", "ICG", "TSG"]
    assert str(three) == "CFG(3) + (ICG(1.4) | Interval(0.28, 2.9)) + TSG(2.5)"
    assert str(ICG(3.0, mode="text", site="b")) == "ICG(3, site='b', mode='text')"
    assert str((A + B) | ON) == "(CFG(3) + ICG(1.4)) | Interval(0.28, 2.9)"
    assert (A + B) + TSG() == A + (B + TSG())
    both = (A | ON) + (B | ON)
    assert both.breakpoints() == (2.9, 0.28)
    assert (A | ON | Every(2)).breakpoints() == (2.9, 0.28)


def test_a_sum_of_three_adds_their_directions() -> None:
    parts = [A, B, ICG(2.0, site="b")]
    base = MODEL(X, LEVEL, LABELS)
    total = base + sum(guide(MODEL, part)(X, LEVEL, LABELS) - base for part in parts)
    got = guide(MODEL, parts[0] + parts[1] + parts[2])(X, LEVEL, LABELS)
    torch.testing.assert_close(got, total, rtol=1e-12, atol=1e-12)


HOOK, STEER = BoostAndSkip(), FKSteering(lambda x: x.sum(1))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda: A | ON + B, r"write \(source \| Interval\(...\)\) \+ other"),
        (lambda: A | B, r"add sources with \+"),
        (lambda: A | ON | B, r"add sources with \+"),
        (lambda: A | Interval, "the class Interval"),
        (lambda: A + ON, r"write source \| Interval"),
        (lambda: A + HOOK, r"sample\(hooks=\["),
        (lambda: A + STEER, r"sample\(hooks=\["),
        (lambda: guide(MODEL, HOOK), r"sample\(hooks=\["),
        (lambda: guide(MODEL, ON), r"write source \| Interval"),
        (lambda: guide(MODEL, 3), r"sources such as CFG\(3\)"),
        (lambda: A + 3, r"sources such as CFG\(3\)"),
    ],
)
def test_what_cannot_be_combined_is_a_type_error(write: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        write()


NET = nn.Linear(2, 8).double()


def with_time(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return NET(x)


def run(guidance: Any, model: Any = MODEL, cond: Any = LABELS, x: Any = X) -> Any:
    return lambda: guide(model, guidance)(x, LEVEL, cond)


def sampled(guidance: Any, spec: str = "dpmpp:order=2") -> Any:
    return lambda: draw(MODEL, spec, 8, 8, cond=LABELS, guidance=guidance)


class Narrow(Images):
    def __call__(self, x: Any, level: Level, cond: Any = None) -> torch.Tensor:
        return x[:, :1]


class Latent(Images):
    latent = True


IMAGES = noise(8, 3, 4, 4)
REFUSED: dict[str, tuple[Any, str]] = {
    "negative scale": (lambda: CFG(-1.0), "finite number >= 0"),
    "nan scale": (lambda: ICG(math.nan), "1 is off"),
    "infinite scale": (lambda: Autoguidance(MODEL, math.inf), "1 is off"),
    "negative weight": (lambda: Minority(with_time, -1.0), "0 is off"),
    "w_max below one": (lambda: GFCG(NET, 0.5), "1 is off"),
    "lambda of CFG++": (lambda: A | CFGpp(1.2), r"\[0, 1\]"),
    "CFG++ of an off scale": (lambda: CFG(1) | CFGpp(), r"write CFG\(2\)"),
    "CFG++ behind two": (lambda: (A + B) | CFGpp(), r"write \(CFG\(3\)"),
    "CFG++ behind a reshaped contrast": (lambda: A | Rescale() | CFGpp(), "first"),
    "ZeroStar behind a reshaped contrast": (lambda: A | Project() | ZeroStar(), "first"),
    "CFG++ of high order": (sampled(A | CFGpp()), "ddim or euler"),
    "CFG++ with noise": (sampled(A | CFGpp(), "ddim:eta=1"), "ddim or euler"),
    "empty interval": (lambda: Interval(2.0, 1.0), "0 <= lo < hi"),
    "negative interval": (lambda: Interval(-1.0, 1.0), "0 <= lo < hi"),
    "interval without a level": (sampled(A | Interval(1e4, 1e5)), "widen it"),
    "every half step": (lambda: Every(0), "whole number >= 1"),
    "label K": (run(B, cond=LABELS + 1), r"labels in 0 .. 7 \(8 means none"),
    "negative label": (run(CFG(2.0), cond=LABELS - 1), "labels in 0 .. 7"),
    "label above null": (run(CFG(2.0), cond=LABELS + 2), r"labels in 0 .. 7 \(8 means none"),
    "label for GFCG": (run(GFCG(NET), cond=LABELS + 1), "labels in 0 .. 7"),
    "label for a classifier": (
        run(ClassifierGuidance(lambda x, t: NET(x)[:, :7], 1.0)), "labels in 0 .. 6"
    ),
    "labels in floating point": (run(B, cond=LABELS.double()), r"\(n,\) integer tensor"),
    "too few labels": (run(A, cond=LABELS[:3]), "repeat it"),
    "two labels each": (run(B, cond=LABELS[:, None]), r"\(n,\) integer tensor"),
    "width of the classifier": (run(GFCG(nn.Linear(2, 5).double())), "model's 8 classes"),
    "one class": (run(GFCG(nn.Linear(2, 1).double()), ring(classes=1)), "0 .. 0|2 at least"),
    "bin": (run(Minority(with_time, bin=8)), "can have 0 .. 7"),
    "target": (run(ClassifierGuidance(with_time, 1.0, target=9)), "can have 0 .. 7"),
    "ICG without K": (run(B, Timed(), x=noise(8, 1)), "num_classes="),
    "ICG in text mode": (run(ICG(3.0, mode="text"), cond=noise(8, 4)), "mode='gaussian'"),
    "mode of ICG": (lambda: ICG(3.0, mode="image"), "class, gaussian or text"),
    "ICG without a condition": (run(B, cond=None), r"pass cond=, or use TSG"),
    "CFG without a condition": (run(A, cond=None), "pass cond=, or leave CFG out"),
    "CFG of an unconditional model": (
        run(A, GaussianDenoiser(ContinuousVP(), 0, 1)), "cond must be None"
    ),
    "TSG without an embedding": (run(TSG()), "has no network"),
    "TSG without its module": (
        run(TSG(module="embed"), Timed(), None, noise(8, 1)), "it has time_embedding"
    ),
    "s of TSG": (lambda: TSG(s=0.0), "leave TSG out"),
    "power of TSG": (lambda: TSG(power=-1.0), ">= 0"),
    "weak model of another process": (
        run(Autoguidance(ring(process=VE()), 2.0)), "load it with the same process"
    ),
    "weak model of another shape": (
        run(Autoguidance(Narrow(), 2.0), Images(), x=IMAGES), "samples of the same shape"
    ),
    "a classifier without a gradient": (
        run(ClassifierGuidance(lambda x, t: NET(x).detach(), 1.0)), "differentiable function"
    ),
    "an integer classifier": (
        run(Minority(lambda x, t: torch.zeros(8, 8))), "differentiable function"
    ),
    "a gradient of nan": (
        run(EnergyGuidance(lambda x, t: (x - x).sum(1).sqrt(), 1.0)), "clamp its output"
    ),
    "a classifier without time": (lambda: ClassifierGuidance(lambda x: NET(x), 1.0), "clean=True"),
    "energies of another shape": (
        run(EnergyGuidance(lambda x, t: x, 1.0)), "sum over the elements of a sample"
    ),
    "thresholding of latents": (
        run(A | DynamicThreshold(), Latent(), x=IMAGES), r"Rescale\(\) or Project\(\)"
    ),
    "thresholding inside a sum": (lambda: (A | DynamicThreshold()) + B, r"write \(A \+ B\)"),
    "quantile": (lambda: DynamicThreshold(0.0), r"\(0, 1\]"),
    "ZeroStar off a flow": (run(A | ZeroStar()), r"Project\(\) or Rescale\(\)"),
    "ZeroStar of a gradient": (lambda: SelfMinority() | ZeroStar(), r"CFG\(3\)"),
    "gamma": (lambda: BoostAndSkip(0.5), ">= 1"),
    "twice the same": (lambda: B + A + ICG(2.0), "site="),
    "momentum in two places": (
        lambda: (A | (p := Project(beta=0.5))) + (B | p), "make a second"
    ),
    "eta": (lambda: Project(2.0), r"\[0, 1\]"),
    "phi": (lambda: Rescale(-0.1), r"\[0, 1\]"),
    "space": (lambda: Rescale(0.5, "pixels"), "noise or velocity"),
    "schedule": (lambda: ScaleSchedule("steep"), "linear, cosine"),
    "schedule of a number": (lambda: ScaleSchedule(2.0), "or a function"),
    "level of self-guidance": (lambda: SelfMinority(level=1.2), "between 0 and 1"),
    "seeds": (lambda: guide(MODEL, B, [1, 2])(X, LEVEL, LABELS), "give one for each"),
    "max_rows": (lambda: guide(MODEL, B, max_rows=0), "at least 1"),
    "particles": (lambda: FKSteering(lambda x: x, 1), "particles >= 2"),
    "groups": (lambda: draw(MODEL, "euler_a", 8, 6, hooks=[STEER]), "whole groups of 4"),
    "potential": (lambda: FKSteering(lambda x: x, potential="min"), "max, diff or add"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_names_the_remedy(name: str) -> None:
    action, message = REFUSED[name]
    # A number in place of a function is of another kind, and so another error.
    with pytest.raises(TypeError if name == "schedule of a number" else ValueError, match=message):
        action()


def test_what_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="between 0 and 1"):
        CFG(0.5)
    training = Timed()
    training.network.train()
    for part, model in ((TSG(), training), (Autoguidance(training, 2.0), Timed())):
        with pytest.warns(UserWarning, match=r"call .eval\(\)"):
            guide(model, part)(noise(8, 1), LEVEL)
