"""Sampling without diffusers: a denoiser, a sampler, a number of calls."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fewstep.finite import is_readable
from fewstep.models.calls import returned
from fewstep.noise import seeded_noise
from fewstep.samplers.core.execute import Executor
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.core.run import facts, start_scale
from fewstep.samplers.gaussian.class_gaussians import load_start
from fewstep.samplers.gaussian.gaussian import Gaussian
from fewstep.samplers.gaussian.warm import fill_history, with_start
from fewstep.samplers.sampling import given
from fewstep.samplers.sampling.diverged import NotFiniteWarning, all_finite, cause
from fewstep.samplers.sampling.recompute import recomputed
from fewstep.samplers.solvers.asked import call_count, check_sampler
from fewstep.samplers.solvers.registry import build_plan
from fewstep.samplers.solvers.tail import enter
from fewstep.schedules.process import NoiseProcess
from fewstep.types import Denoiser, Guidance, RunHook


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
    nfe: int | None = None,
    *,
    shape: Sequence[int] | None = None,
    noise: Tensor | None = None,
    cond: Any = None,
    guidance: Guidance | str | None = None,
    hooks: Sequence[RunHook] = (),
    seeds: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
    differentiable: bool = False,
) -> Tensor:
    """Draws samples with ``nfe`` calls of the denoiser.

    What is wrong with an argument is said in one line that names it, before anything runs. Labels
    and noise are read for that, once; in the loop nothing is.

    Args:
        denoiser: the model, with its noise process.
        sampler: a spec (``"unipc"``, ``"dpmpp:order=3,grid=karras"``), a plan, the path of one (a
            file or a folder, see :mod:`fewstep.samplers.adapter.files`), or one of our
            schedulers.
        nfe: network calls, >= 1; guidance may run several rows in a call. A hook that starts the
            run late saves the calls before. None takes the number of a plan, which has its own.
        shape: (n, ...) of the result; needed unless ``noise`` is given, whose shape it must be.
        noise: (n, ...) unit noise to start from, finite; drawn from ``seeds`` if None.
        cond: handed to the denoiser. Class labels are an (n,) integer tensor, in 0 .. K - 1 where
            the denoiser has ``num_classes`` = K.
        guidance: wraps the denoiser, or a text as of ``--guidance``, ``"cfg:2"``
            (:func:`fewstep.guidance.parse_guidance`). Nodes are moved to where it is switched on
            and off.
        hooks: act on the start and on which samples go on; after the last step as well.
        seeds: n integers; every draw for sample i depends on seeds[i] alone. None: 0 .. n - 1.
            One integer alone is refused, since it might mean the first or all: write a range.
        device, dtype: of the result; those of ``noise`` if None.
        callback: called with (evaluation, sample) after each evaluation.
        differentiable: keep no activations of a call for the backward pass, which calls again: one
            forward more each, and memory for the states alone. Gradients reach ``noise``, ``cond``
            and the denoiser's parameters with and without it, where autograd is on.

    Returns:
        (n, ...) samples at the end of the plan.

    Raises:
        TypeError: for an argument of another kind.
        ValueError: for a value that is not allowed; if the sampler does not fit the process, the
            guidance or a hook, shape, noise, labels and seeds disagree, or guidance cannot be
            called again (``differentiable``).

    Warns:
        NotFiniteWarning: if samples are inf or nan, with the call that made them so, for which the
            run is made once more.
    """
    given.check_denoiser(denoiser)
    full = given.start_shape(shape, noise)
    seeds = given.sample_seeds(seeds, full[0])
    given.check_place(device, dtype)
    given.check_hooks(hooks)
    given.check_switches(callback, differentiable)
    given.check_cond(cond, denoiser, full[0])
    guidance = given.read_guidance(guidance)
    plan, scale, hooks = _planned(sampler, denoiser.process, nfe, guidance, hooks, cond)
    run = facts(plan, plan.history)
    if guidance is not None:
        guidance.check(run)
    for hook in hooks:
        hook.check(run)
    if noise is None:
        noise = seeded_noise(seeds, full[1:], 0, device, dtype or torch.float32)
    noise = noise.to(device=device, dtype=dtype)
    given.check_beside(noise, denoiser)

    def walk(
        denoiser: Denoiser,
        guidance: Guidance | None,
        callback: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """The run, as often as it is wanted: all its draws are keyed."""
        x, draws = noise * scale, 0
        for hook in hooks:
            x = hook.start(noise, x, run.levels[0])
        guided = denoiser if guidance is None else guidance.wrap(denoiser, seeds)
        evaluate = recomputed(guided, guidance) if differentiable else guided

        def draw(like: Tensor) -> Tensor:
            nonlocal draws
            draws += 1
            return seeded_noise(seeds, like.shape[1:], draws, like.device, like.dtype)

        executor = Executor(plan)
        fill_history(executor, x, hooks)
        for level in run.levels:
            x0 = returned(evaluate(x, level, cond), x, "the denoiser")
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

    x = walk(denoiser, guidance, callback)
    if is_readable(x) and not all_finite(x):
        with torch.no_grad():
            reason = cause(denoiser, guidance, len(run.levels), walk)
        text = f"samples of {plan.name!r} are not finite: {reason}"
        warnings.warn(NotFiniteWarning(text), stacklevel=2)
    return x


def _planned(
    sampler: str | Path | Plan | Scheduler,
    process: NoiseProcess,
    nfe: int | None,
    guidance: Guidance | None,
    hooks: Sequence[RunHook],
    cond: Any,
) -> tuple[Plan, float, tuple[RunHook, ...]]:
    """The plan of a run, which may start late, the deviation of its start noise, and its hooks."""
    check_sampler(sampler)
    starts = [hook.start_rho for hook in hooks if hook.start_rho is not None]
    if len(starts) > 1:
        raise ValueError(f"{len(starts)} hooks want to start the run late: pass one of them")
    breakpoints = (*(() if guidance is None else guidance.breakpoints()), *starts)
    if isinstance(sampler, str | Path | Plan):
        plan = build_plan(sampler, process, nfe, breakpoints)
    else:
        plan = build_plan(_plan_of(sampler, nfe, breakpoints), process)
    hooks = with_start(plan, process, hooks, lambda: _gaussian_of(sampler), cond)
    if starts:
        return *enter(plan, starts[0], process, breakpoints), hooks
    return plan, start_scale(plan), hooks


def _gaussian_of(sampler: str | Path | Plan | Scheduler) -> Gaussian | None:
    """What was saved with a plan, for its start."""
    if isinstance(sampler, str | Path):
        return load_start(sampler)
    return getattr(sampler, "gaussian", None)


def _plan_of(scheduler: Scheduler, nfe: int | None, breakpoints: tuple[float, ...]) -> Plan:
    count = call_count(nfe)
    if count is None:
        name = type(scheduler).__name__
        raise ValueError(f"nfe, the number of network calls, is needed with a {name}; as in 8")
    own = scheduler.breakpoints
    scheduler.breakpoints = (*own, *breakpoints)
    try:
        scheduler.set_timesteps(count)
    finally:
        scheduler.breakpoints = own
    return scheduler.plan
