"""The Gaussian that takes the noise to a landing: fitted to samples of the model."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fewstep.eval.common.cache import cached
from fewstep.eval.common.keys import reference_key
from fewstep.eval.common.source_code import function_text
from fewstep.eval.problems import Problem
from fewstep.eval.problems.prompts import PromptDenoiser
from fewstep.eval.tune.settings import FITTED_EXACT, FITTED_NETWORK, batch_of
from fewstep.eval.tune.teachers import split_noises
from fewstep.guidance import CFG, Expression
from fewstep.samplers import build_plan, sample
from fewstep.samplers.core.execute import Executor
from fewstep.samplers.gaussian.class_gaussians import ClassGaussians
from fewstep.samplers.gaussian.fit import fit_channels, fit_classes, fit_gaussian, fit_shared
from fewstep.samplers.gaussian.gaussian import GaussianFit, level_of
from fewstep.samplers.tuning.scan import SCALES, Landings
from fewstep.samplers.tuning.teacher import Teacher

SPEC, CALLS = "ipndm", 16  # RMSE 0.03 on the bundled network, far below its samples' deviation
FEW = 64  # samples by which one fit is chosen of several

Fit = GaussianFit | ClassGaussians


def fitted_count(problem: Problem) -> int:
    """How many samples a Gaussian is fitted to."""
    return FITTED_EXACT if problem.exact else FITTED_NETWORK


@torch.no_grad()
def model_samples(
    problem: Problem,
    guidance: Expression | None,
    seed: int,
    skipped: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Tensor, Tensor | None]:
    """Samples of the model and their labels, cached on disk.

    Under classifier-free guidance they are drawn without it: the Gaussians of plain samples and the
    formula of guidance come closer to guided trajectories than Gaussians of guided samples.

    Args:
        problem, guidance: the model.
        seed: of the noises, as ``split_noises`` has it.
        skipped: how many of the tuning noises come before those of these samples.
        progress: told how many samples there are.
    """
    count, guidance = fitted_count(problem), None if cfg_scale(guidance) else guidance
    drawn = split_noises(problem, seed, {"tune": skipped + count})["tune"]
    noise = drawn.noise[skipped:]
    labels = None if drawn.labels is None else drawn.labels[skipped:]
    breakpoints = () if guidance is None else guidance.breakpoints()
    plan = build_plan(SPEC, problem.process, CALLS, breakpoints)
    key = reference_key(
        problem, guidance, plan.to_json(), "samples", function_text(sample), noise, labels,
        by=Executor,
    )  # fmt: skip

    def solve() -> Tensor:
        made, size = [], batch_of(problem)
        for first in range(0, count, size):
            rows = slice(first, first + size)
            made.append(sample(
                problem.denoiser, plan, plan.calls, noise=noise[rows] / problem.start_scale,
                cond=None if labels is None else labels[rows], guidance=guidance,
            ))  # fmt: skip
            progress(min(count, first + size), count)
        return torch.cat(made).cpu()

    found = cached(key and f"samples-{key[:32]}", solve, problem.answers)
    return found.to(noise.device), labels


def cfg_scale(guidance: Expression | None) -> float | None:
    """The scale of the one CFG in a guidance, or None."""
    sources = () if guidance is None else guidance.sources()
    scales = [source.scale for source in sources if isinstance(source, CFG)]
    return scales[0] if len(scales) == 1 else None


def find_landings(
    problem: Problem,
    samples: Tensor,
    labels: Tensor | None,
    teacher: Teacher,
    scale: float | None = None,
) -> Landings:
    """The fit that comes closest to a teacher above the data, and where it may land.

    One Gaussian, one for each class, and one with a mean for each class are compared by where they
    take the starts of some of the teacher's samples, at ``SCALES`` of the data's deviation; under
    classifier-free guidance also those by class with means that it moves. Fits to prompts are to
    channels alone, since a later pipeline has others, and images of other sizes.

    Args:
        problem: of the samples.
        samples: (n, ...) of the model, other ones than the teacher's.
        labels: (n,) their classes, or None.
        teacher: fine solutions.
        scale: of classifier-free guidance, if samples are without and the teacher is with it.
    """
    if isinstance(problem.denoiser, PromptDenoiser):
        return Landings.of(fit_channels(samples))
    fits: list[Fit] = [fit_gaussian(samples)]
    if labels is not None:
        for by_class in (fit_shared, fit_classes):
            try:
                fits.append(by_class(samples, labels))
            except ValueError:  # a class with fewer than two samples
                break
    if scale is not None:
        fits += [fit.guided(scale) for fit in fits if isinstance(fit, ClassGaussians)]
    few = teacher.part(slice(0, FEW))
    return Landings.of(min(fits, key=lambda fit: _distance(fit, few)))


def _distance(fit: Fit, teacher: Teacher) -> float:
    """How far jumps come from the teacher's states: a mean over landings of logarithms."""
    process = teacher.process
    labels = teacher.cond if isinstance(fit, ClassGaussians) else None
    first = level_of(process, teacher.rho[0])
    x = teacher.start * first.sigma
    total = 0.0
    for scale in SCALES:
        rho = scale * fit.std
        if not max(process.rho_min, teacher.rho[-2]) < rho < process.rho_max:
            continue
        at = level_of(process, rho)
        apart = fit.jump(x, first, at, labels) / at.alpha - teacher.at(rho)
        total += math.log(float(apart.double().square().mean()) + 1e-300)
    return total
