"""Sampling without diffusers: a denoiser, a sampler, a number of calls."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fewstep.samplers.execute import Executor
from fewstep.samplers.gaussian import Gaussian
from fewstep.samplers.plan import Plan
from fewstep.samplers.recompute import recomputed
from fewstep.samplers.registry import build_plan
from fewstep.samplers.run import enter, facts, levels, seeded_noise, start_scale
from fewstep.samplers.tuned_files import load_start
from fewstep.samplers.warm import fill_history, with_start
from fewstep.schedules.process import NoiseProcess
from fewstep.types import Denoiser, Guidance, RunHook

__all__ = ["Scheduler", "facts", "levels", "sample", "seeded_noise", "start_scale"]


@runtime_checkable
class Remembering(Protocol):
    """A denoiser that keeps something of each sample from step to step."""

    def select(self, ancestors: Tensor) -> None: ...


class Scheduler(Protocol):
    """One of our diffusers schedulers, for the plan it makes."""

    plan: Plan
    breakpoints: tuple[float, ...]

    def set_timesteps(self, num_inference_steps: int) -> None: ...


def sample(
    denoiser: Denoiser,
    sampler: str | Path | Plan | Scheduler,
    nfe: int,
    *,
    shape: Sequence[int] | None = None,
    noise: Tensor | None = None,
    cond: Any = None,
    guidance: Guidance | None = None,
    hooks: Sequence[RunHook] = (),
    seeds: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
    differentiable: bool = False,
) -> Tensor:
    """Draws samples with ``nfe`` calls of the denoiser.

    Args:
        denoiser: the model, with its noise process.
        sampler: a spec (``"unipc"``, ``"dpmpp:order=3,grid=karras"``), a plan, the path of one (a
            file or a folder, see :mod:`fewstep.samplers.tuned_files`), or one of our schedulers.
        nfe: network calls, >= 1; guidance may run several rows in a call. A hook that starts the
            run late saves the calls before.
        shape: (n, ...) of the result; needed unless ``noise`` is given.
        noise: (n, ...) unit noise to start from; drawn from ``seeds`` if None.
        cond: handed to the denoiser.
        guidance: wraps the denoiser. Nodes are moved to where it is switched on and off.
        hooks: act on the start and on which samples go on; after the last step as well.
        seeds: n integers; every draw for sample i depends on seeds[i] alone. None: 0 .. n - 1.
        device, dtype: of the result; those of ``noise`` if None.
        callback: called with (evaluation, sample) after each evaluation.
        differentiable: keep no activations of a call for the backward pass, which calls again: one
            forward more each, and memory for the states alone. Gradients reach ``noise``, ``cond``
            and the denoiser's parameters with and without it, where autograd is on.

    Returns:
        (n, ...) samples at the end of the plan.

    Raises:
        ValueError: if the sampler does not fit the process, the guidance or a hook, shape, noise
            and seeds disagree, or guidance cannot be called again (``differentiable``).
    """
    if noise is None and shape is None:
        raise ValueError("sample() needs shape=(n, ...) or noise=")
    full = tuple(noise.shape if noise is not None else shape or ())
    seeds = range(full[0]) if seeds is None else seeds
    if len(seeds) != full[0]:
        raise ValueError(f"{len(seeds)} seeds for {full[0]} samples; give one for each")
    plan, scale, hooks = _planned(sampler, denoiser.process, nfe, guidance, hooks, cond)
    run = facts(plan, plan.history)
    if guidance is not None:
        guidance.check(run)
    if noise is None:
        noise = seeded_noise(seeds, full[1:], 0, device, dtype or torch.float32)
    noise = noise.to(device=device, dtype=dtype)
    x = noise * scale
    for hook in hooks:
        hook.check(run)
        x = hook.start(noise, x, run.levels[0])
    guided = denoiser if guidance is None else guidance.wrap(denoiser, seeds)
    evaluate = recomputed(guided, guidance) if differentiable else guided
    draws = 0

    def draw(like: Tensor) -> Tensor:
        nonlocal draws
        draws += 1
        return seeded_noise(seeds, like.shape[1:], draws, like.device, like.dtype)

    executor = Executor(plan)
    fill_history(executor, x, hooks)
    for level in run.levels:
        x0 = evaluate(x, level, cond)
        x = executor.step(plan.history + level.index, x0, x, draw)
        if level.index + 1 == plan.calls or run.levels[level.index + 1].step > level.step:
            for hook in hooks:
                ancestors = hook.after_step(x, x0, level, seeds)
                if ancestors is not None:
                    x, x0 = executor.select(x, ancestors), x0.index_select(0, ancestors)
                    if isinstance(guided, Remembering):
                        guided.select(ancestors)
        if callback is not None:
            callback(level.index, x)
    return x


def _planned(
    sampler: str | Path | Plan | Scheduler,
    process: NoiseProcess,
    nfe: int,
    guidance: Guidance | None,
    hooks: Sequence[RunHook],
    cond: Any,
) -> tuple[Plan, float, tuple[RunHook, ...]]:
    """The plan of a run, which may start late, the deviation of its start noise, and its hooks."""
    starts = [hook.start_rho for hook in hooks if hook.start_rho is not None]
    if len(starts) > 1:
        raise ValueError(f"{len(starts)} hooks want to start the run late: pass one of them")
    breakpoints = (*(() if guidance is None else guidance.breakpoints()), *starts)
    if isinstance(sampler, str | Path | Plan):
        plan = build_plan(sampler, process, nfe, breakpoints)
    else:
        plan = build_plan(_plan_of(sampler, nfe, breakpoints), process, nfe)
    hooks = with_start(plan, process, hooks, lambda: _gaussian_of(sampler), cond)
    if starts:
        return *enter(plan, starts[0], process, breakpoints), hooks
    return plan, start_scale(plan), hooks


def _gaussian_of(sampler: str | Path | Plan | Scheduler) -> Gaussian | None:
    """What was saved with a plan, for its start."""
    if isinstance(sampler, str | Path):
        return load_start(sampler)
    return getattr(sampler, "gaussian", None)


def _plan_of(scheduler: Scheduler, nfe: int, breakpoints: tuple[float, ...]) -> Plan:
    own = scheduler.breakpoints
    scheduler.breakpoints = (*own, *breakpoints)
    try:
        scheduler.set_timesteps(nfe)
    finally:
        scheduler.breakpoints = own
    return scheduler.plan
