"""Guidance on a CUDA device: nothing is read from it after the first evaluation."""

from dataclasses import replace

import pytest
import torch

from fewstep.guidance import (
    CFG,
    GFCG,
    ICG,
    TSG,
    Autoguidance,
    DynamicThreshold,
    Every,
    Expression,
    Interval,
    Minority,
    Project,
    Rescale,
    ScaleSchedule,
    SelfMinority,
    guide,
)
from fewstep.models import bundled_classifier, bundled_denoiser
from fewstep.models.bundled import bundled_minority_classifier, bundled_weak_denoiser
from fewstep.models.ode import level_at

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
KINDS = (
    "cfg", "shaped", "icg", "tsg", "gfcg", "autoguidance", "minority", "selfminority", "sum",
)  # fmt: skip


def guidance(kind: str, device: str) -> Expression:
    """Built when asked for, with its models on the device."""
    if kind == "gfcg":
        return GFCG(bundled_classifier(device), 3.0)
    if kind == "autoguidance":
        return Autoguidance(bundled_weak_denoiser(device=device), 1.5)
    if kind == "minority":
        return Minority(bundled_minority_classifier(device), 1.0)
    shaped = CFG(3) | Interval(0.1, 20) | ScaleSchedule("cosine") | Project(beta=-0.5, r=5)
    return {
        "cfg": CFG(3),
        "shaped": shaped | Rescale() | DynamicThreshold(),
        "icg": ICG(1.4),
        "tsg": TSG(1.5),
        "selfminority": SelfMinority(0.2) | Every(1),
        "sum": (ICG(1.4) | Interval(0.1, 20)) + TSG(1.5) + CFG(2),
    }[kind]


def run(kind: str, device: str, mode: str = "default") -> torch.Tensor:
    """The second evaluation of a run; the first one may look at its inputs."""
    model = bundled_denoiser(device=device)
    guided = guide(model, guidance(kind, device), seeds=range(8))
    x = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.arange(8, device=device)
    level = level_at(model.process, 2.0)
    with torch.no_grad():
        guided(x, level, labels)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode(mode)
        try:
            return guided(x, replace(level, index=1, step=1), labels)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("kind", KINDS)
def test_no_guided_evaluation_waits(kind: str) -> None:
    assert run(kind, "cuda", "error").device.type == "cuda"


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_is_that_of_the_cpu(kind: str) -> None:
    on_cpu, on_cuda = (run(kind, device).cpu() for device in ("cpu", "cuda"))
    # Convolutions in another order; a classifier's choice of class could flip at a tie only.
    torch.testing.assert_close(on_cuda, on_cpu, rtol=1e-3, atol=2e-3)
