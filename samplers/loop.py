"""Sampling without diffusers: a denoiser, a sampler, a number of calls."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from fewstep.samplers.execute import Executor
from fewstep.samplers.plan import Plan
from fewstep.samplers.registry import build_plan
from fewstep.types import Denoiser, Level


class Guidance(Protocol):
    """Turns a denoiser into a guided one."""

    def wrap(self, denoiser: Denoiser) -> Denoiser: ...


class Scheduler(Protocol):
    """One of our diffusers schedulers, for the plan it makes."""

    plan: Plan

    def set_timesteps(self, num_inference_steps: int) -> None: ...


def seeded_noise(
    seeds: Sequence[int], shape: Sequence[int], key: int, device: Any = None, dtype: Any = None
) -> Tensor:
    """(len(seeds), *shape) unit noise; row i depends on seeds[i] and ``key`` alone.

    Drawn on the CPU in float32, so that it is the same on every device.
    """
    generator = torch.Generator()
    rows = []
    for seed in seeds:
        # Two draws of one seed are told apart by spreading the key over all 64 bits.
        generator.manual_seed((seed + key * 0x9E3779B97F4A7C15) % 2**63)
        rows.append(torch.randn(tuple(shape), generator=generator))
    return torch.stack(rows).to(device=device, dtype=dtype)


def start_scale(plan: Plan) -> float:
    """Standard deviation of the start noise: 1, or sigma of the first level when alpha is 1."""
    first = plan.evaluations[0]
    return first.sigma if first.alpha == 1 else 1.0


def levels(plan: Plan) -> list[Level]:
    """Where the network is called."""
    rows = plan.evaluations
    after = [row.sigma for row in rows[1:]] + [plan.end[1]]
    return [
        Level(row.time, row.alpha, row.sigma, e, next_sigma)
        for e, (row, next_sigma) in enumerate(zip(rows, after, strict=True))
    ]


def sample(
    denoiser: Denoiser,
    sampler: str | Path | Plan | Scheduler,
    nfe: int,
    *,
    shape: Sequence[int] | None = None,
    noise: Tensor | None = None,
    cond: Any = None,
    guidance: Guidance | None = None,
    seeds: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Draws samples with ``nfe`` calls of the denoiser.

    Args:
        denoiser: the model, with its noise process.
        sampler: a spec (``"unipc"``, ``"dpmpp:order=3,grid=karras"``), a plan, the path of one, or
            one of our schedulers.
        nfe: network calls, >= 1; guidance may run several rows in a call.
        shape: (n, ...) of the result; needed unless ``noise`` is given.
        noise: (n, ...) unit noise to start from; drawn from ``seeds`` if None.
        cond: handed to the denoiser.
        guidance: wraps the denoiser.
        seeds: n integers; every draw for sample i depends on seeds[i] alone. None: 0 .. n - 1.
        device, dtype: of the result; those of ``noise`` if None.
        callback: called with (evaluation, sample) after each step.

    Returns:
        (n, ...) samples at the end of the plan.

    Raises:
        ValueError: if the sampler does not fit the process, or shape, noise and seeds disagree.
    """
    if not isinstance(sampler, str | Path | Plan):
        sampler.set_timesteps(nfe)
        sampler = sampler.plan
    plan = build_plan(sampler, denoiser.process, nfe)
    if noise is None and shape is None:
        raise ValueError("sample() needs shape=(n, ...) or noise=")
    full = tuple(noise.shape if noise is not None else shape or ())
    seeds = range(full[0]) if seeds is None else seeds
    if len(seeds) != full[0]:
        raise ValueError(f"{len(seeds)} seeds for {full[0]} samples; give one for each")
    if noise is None:
        noise = seeded_noise(seeds, full[1:], 0, device, dtype or torch.float32)
    x = noise.to(device=device, dtype=dtype) * start_scale(plan)
    guided = guidance.wrap(denoiser) if guidance is not None else denoiser
    draws = 0

    def draw(like: Tensor) -> Tensor:
        nonlocal draws
        draws += 1
        return seeded_noise(seeds, like.shape[1:], draws, like.device, like.dtype)

    executor = Executor(plan)
    for level in levels(plan):
        x = executor.step(level.index, guided(x, level, cond), x, draw)
        if callback is not None:
            callback(level.index, x)
    return x
