"""Constructors and entry points: a value of another kind is one line that names the argument."""

import dataclasses
import inspect
import re
from typing import Any

import numpy as np
import pytest
import torch

import fewstep
from fewstep import guidance
from fewstep.checks import fits, words
from fewstep.eval.bench.setup import Bench
from fewstep.eval.generate.units import Generation
from fewstep.eval.problems import load_problem
from fewstep.eval.tune.settings import TuneSettings

VALUES: list[Any] = [None, True, 2.5, "x", "8", 3, -1, [], [None], {}, b"x", object(),
                     float("nan"), 1e300]  # fmt: skip
# What Python says where a wrong value gets as far as its use.
DEEP = re.compile(
    r"not supported between|object is not|has no attr|unsupported operand|cannot be interpreted|"
    r"not iterable|must be real|not subscriptable|ambiguous|not a callable object"
)
GUIDANCE = [
    value for name in guidance.__all__ if inspect.isclass(value := getattr(guidance, name))
    and name not in ("Attachment", "Context", "Counters", "Direction", "Expression", "Modifier",
                     "GuidedDenoiser", "Row", "Source")
]  # fmt: skip
NEEDED = {"lo": 0.2, "hi": 2.0, "n": 2, "scale": 2.0}


def needed(cls: type) -> dict[str, Any]:
    """Good values of what has no default."""
    parameters = inspect.signature(cls).parameters.values()
    return {p.name: NEEDED.get(p.name, lambda x, t: x) for p in parameters if p.default is p.empty}


def tried(cls: Any, name: str, given: dict[str, Any]) -> None:
    """Each value is taken or refused in one line of our own."""
    for value in VALUES:
        said = ""
        try:
            cls(**{**given, name: value})
        except (ValueError, TypeError, FileNotFoundError) as error:
            said = str(error)
        assert not DEEP.search(said), f"{name}={value!r}"
        assert "\n" not in said


@pytest.mark.parametrize("cls", GUIDANCE, ids=lambda cls: cls.__name__)
def test_guidance(cls: type) -> None:
    for name in inspect.signature(cls).parameters:
        tried(cls, name, needed(cls))


@pytest.mark.parametrize("cls", [Bench, TuneSettings, Generation])
def test_settings(cls: Any) -> None:
    given: dict[str, Any] = {}
    if cls is Generation:
        given = {"problem": load_problem("mix8"), "sampler": "ddim", "nfe": 2, "seeds": range(4)}
    for field in dataclasses.fields(cls):
        tried(cls, field.name, given)


def test_functions() -> None:
    scheduler = fewstep.UniPC()
    process = scheduler.process
    tried(scheduler.set_timesteps, "num_inference_steps", {})
    for name in ("timesteps", "sigmas"):
        tried(scheduler.set_timesteps, name, {})
    good = {"sampler": "unipc", "process": process, "nfe": 4}
    for name in good:
        tried(fewstep.build_plan, name, good)
    tried(fewstep.parse_spec, "text", {})
    tried(guidance.parse_guidance, "text", {})
    tried(load_problem, "name", {})
    tried(load_problem, "device", {"name": "mix8"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: guidance.CFG("x"), "scale of CFG takes a number, got 'x'"),
        (lambda: guidance.Every(2.5), "of Every takes a whole number, got 2.5"),
        (lambda: guidance.FKSteering(3), "reward of FKSteering takes a function, got 3"),
        (lambda: guidance.parse_guidance("cfg:x"), "guidance 'cfg:x': scale of CFG takes a number"),
        (lambda: Bench(n="8"), "n of Bench takes a whole number, got '8'"),
        (lambda: Bench(nfe=8), "nfe of Bench takes a list, each a whole number or None, got 8"),
        (lambda: TuneSettings(out="m.json"), "out of TuneSettings takes a pathlib.Path or None"),
        (lambda: fewstep.UniPC().set_timesteps("8"), "num_inference_steps must be a whole number"),
    ],
)
def test_the_line_names_class_and_argument(make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        make()


def test_numbers_of_every_kind_fit() -> None:
    for value in (2, np.int64(2), torch.tensor(2)):
        assert fits(value, int)
        assert fits(value, float)
    for value in (2.5, np.float32(2.5), torch.tensor(2.5)):
        assert not fits(value, int)
        assert fits(value, float)
    assert not fits(True, int)
    assert fits((0.2, 0.8), tuple[float, float])
    assert not fits((0.2,), tuple[float, float])
    assert words(tuple[float, float]) == "a list of 2, each a number"
