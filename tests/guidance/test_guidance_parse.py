"""The written form of guidance, as on the command line."""

import math
from typing import Any

import pytest
import torch
from guidance_problems import Blurred, ring

from fewstep.guidance import (
    CFG,
    GFCG,
    ICG,
    TSG,
    Autoguidance,
    CFGpp,
    ClassifierGuidance,
    DynamicThreshold,
    Every,
    Interval,
    Minority,
    Project,
    Rescale,
    ScaleSchedule,
    SelfMinority,
    ZeroStar,
    parse_guidance,
)

A, B, ON = CFG(3.0), ICG(1.4), Interval(0.28, 2.9)
WEAK, NET = Blurred(ring()), torch.nn.Linear(2, 8)


def with_time(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return NET(x)


MODELS = {
    "weak model": lambda: WEAK,
    "classifier": lambda: NET,
    "noisy classifier": lambda: with_time,
    "minority classifier": lambda: with_time,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cfg:3", A),
        (" cfg:scale=1.5 ", CFG(1.5)),
        ("(icg:1.4|interval:0.28,2.9)+tsg", (B | ON) + TSG()),
        ("icg:1.4 | interval:0.28,inf | every:2", B | Interval(0.28, math.inf) | Every(2)),
        ("(cfg:3+icg:1.4)|project:0,15,-0.5", (A + B) | Project(0.0, 15, -0.5)),
        ("icg:3,gaussian,site=b", ICG(3, mode="gaussian", site="b")),
        ("tsg:2.5,s=1,power=0,module=emb.mlp", TSG(2.5, s=1, power=0, module="emb.mlp")),
        ("cfg:3|schedule:cosine", A | ScaleSchedule("cosine")),
        ("cfg:3|rescale:0.5,data", A | Rescale(0.5, "data")),
        ("cfg:2|cfgpp:0.6", CFG(2) | CFGpp(0.6)),
        ("cfg:5|zerostar:2|threshold:0.99", CFG(5) | ZeroStar(2) | DynamicThreshold(0.99)),
        ("autoguidance:2", Autoguidance(WEAK, 2)),
        ("gfcg:3,lagged=true", GFCG(NET, 3, lagged=True)),
        ("classifier:2,target=1", ClassifierGuidance(with_time, 2, target=1)),
        ("minority:2,bin=-2+selfminority:0.4", Minority(with_time, 2, bin=-2) + SelfMinority(0.4)),
        ("none", None),
        (None, None),
    ],
)
def test_the_written_form(text: str | None, expected: Any) -> None:
    assert parse_guidance(text, MODELS) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cfg", "write cfg:SCALE"),
        ("cfg:", "write cfg:SCALE"),
        ("cfg:x", "guidance 'cfg:x'"),
        ("cfg:inf", "finite"),
        ("apg:3", "sources: cfg"),
        ("", "is missing"),
        ("cfg:3:4", "finite|guidance 'cfg:3:4'"),
        ("cfg:3|", "is missing"),
        ("(cfg:3", "not closed"),
        ("cfg:3)", "cannot read"),
        ("interval:1,2", "cannot read"),
        ("cfg:3|interval:1,2+icg:1.4", "binds tighter"),
        ("cfg:3,4,5", "in order, scale"),
        ("cfg:3,scale=4", "in order, scale"),
        ("gfcg:2,weak=x", "in order, w_max, power, lagged"),
        ("selfminority:distance=l2", "in order, scale"),
        ("autoguidance:2", "needs a weak model"),
        ("cfg:3|schedule:steep", "linear, cosine"),
    ],
)
def test_errors_of_the_written_form_name_the_remedy(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_guidance(text)
