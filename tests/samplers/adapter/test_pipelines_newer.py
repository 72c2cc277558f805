"""The families of pipelines that came after Wan: n calls, and what each does in its own way."""

import pytest
import torch
from helpers import scheduler_classes
from tiny_pipelines import MORE_FROM_IMAGE, NEWER, ROUNDED_DOWN, with_scheduler
from torch import Tensor
from watch import Watch, results

import fewstep

CLASSES = scheduler_classes()
# Text to image or video that tells a callback of its steps.
WITH_CALLBACKS = [case for case in NEWER if case not in ("pixart", "stable_audio")]
SOME = [fewstep.Euler, fewstep.UniPC, fewstep.Heun, fewstep.SASolver]  # one of each kind


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("case", NEWER)
def test_n_steps_are_n_calls_and_n_ticks(case: str, cls: type) -> None:
    """Two-call solvers included; levels that the pipeline makes of n are no wish.

    Those of CogView4 are whole times, and may be taken for a grid.
    """
    pipe, inputs = with_scheduler(case, cls)
    for n in (1, 5):
        with Watch(pipe) as seen:
            results(pipe, n, **inputs)
        assert (seen.calls, seen.total, seen.ticks) == (n, n, n)
        assert len(pipe.scheduler.timesteps) == n
        reason = pipe.scheduler.grid_reason
        assert "automatic" in reason or case == "cogview4"


@pytest.mark.parametrize("cls", SOME)
@pytest.mark.parametrize("case", MORE_FROM_IMAGE)
def test_strength_is_a_share_of_the_calls(case: str, cls: type) -> None:
    pipe, inputs = with_scheduler(case, cls)
    down = case in ROUNDED_DOWN
    for strength, expected in (
        (0.5, 3),
        (0.9, 5 if down else 6),
        (0.2, 1 if down else 2),
        (1.0, 6),
    ):
        with Watch(pipe) as seen:
            results(pipe, 6, strength=strength, output_type="latent", **inputs)
        assert (seen.calls, seen.total, seen.ticks) == (expected, expected, expected)


@pytest.mark.parametrize("cls", SOME)
@pytest.mark.parametrize("case", NEWER)
def test_nothing_is_left_over_for_the_next_run(case: str, cls: type) -> None:
    """LTX 2 copies the scheduler with whatever the last run left in it."""
    pipe, inputs = with_scheduler(case, cls)

    def seeded(n: int) -> list:
        torch.manual_seed(3)  # flows draw the noise of a step from the global generator
        return results(pipe, n, **inputs)

    first = seeded(5)
    seeded(4)
    for made, again in zip(first, seeded(5), strict=True):
        assert (made == again).all()


@pytest.mark.parametrize("case", WITH_CALLBACKS)
def test_callbacks_see_every_step_and_their_edits_count(case: str) -> None:
    """CogView4 tells of the level of the call instead of its time."""
    pipe, inputs = with_scheduler(case, fewstep.UniPC)
    steps, told = [], []

    def zero(_: object, i: int, t: Tensor, state: dict) -> dict:
        steps.append(i)
        told.append(float(t))
        return {"latents": torch.zeros_like(state["latents"])}

    with Watch(pipe) as seen:
        results(pipe, 4, callback_on_step_end=zero, **inputs)
    scheduler = pipe.scheduler
    assert steps == [0, 1, 2, 3]
    assert told == (scheduler.sigmas[:4] if case == "cogview4" else scheduler.timesteps).tolist()
    assert not any(given.any() for given in seen.inputs[1:])


@pytest.mark.skipif("kandinsky5" not in NEWER, reason="this diffusers has no Kandinsky 5")
@pytest.mark.parametrize("cls", CLASSES)
def test_a_pipeline_may_write_over_the_sample_of_a_step(cls: type) -> None:
    """Kandinsky 5 writes the new latents into the tensor of the old ones."""
    pipe, inputs = with_scheduler("kandinsky5", cls)
    torch.manual_seed(3)  # it hands over no generator
    (written,) = results(pipe, 6, **inputs)
    step = pipe.scheduler.step
    pipe.scheduler.step = lambda out, t, x, **kwargs: step(out, t, x.clone(), **kwargs)
    torch.manual_seed(3)
    (apart,) = results(pipe, 6, **inputs)
    assert (written == apart).all()
