"""Guidance on the small pipelines, which share their networks: none must stay on one."""

from collections.abc import Iterator
from typing import Any

import pytest
import tiny_pipelines as tiny

from fewstep import guidance
from fewstep.guidance import ICG, TSG, Expression

CASES: dict[str, Any] = {**tiny.PIPELINES, **tiny.FROM_IMAGE}
CASES.pop("wan")
N = 6  # calls


def settings(case: str, **kwargs: Any) -> dict[str, Any]:
    """What to call a pipeline with; of latents where it can return them."""
    plain = {} if case in ("ddpm", "dit") else {"output_type": "latent"}
    late = {"strength": 0.8} if case in tiny.FROM_IMAGE else {}
    return {**CASES[case][1], **plain, **late, **kwargs}


def any_guidance(case: str) -> Expression:
    """What needs no null branch."""
    if case == "ddpm":
        return TSG()
    return TSG() + ICG(2.0, mode="class" if case == "dit" else "text")


_MADE: list[guidance.Attachment] = []


def attach(pipe: Any, wanted: guidance.Expression) -> guidance.Attachment:
    _MADE.append(guidance.attach(pipe, wanted))
    return _MADE[-1]


@pytest.fixture(autouse=True)
def nothing_stays_attached() -> Iterator[None]:
    yield
    while _MADE:
        made = _MADE.pop()
        if made.active:
            made.detach()
