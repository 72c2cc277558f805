"""What a benchmark runs: one job for each sampler and number of calls."""

import itertools
import os
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from fewstep.eval.common.cache import digest
from fewstep.eval.common.source_code import our_code
from fewstep.eval.problems import Problem
from fewstep.eval.problems.guided_plans import guided_plan, plan_digest
from fewstep.eval.problems.guides import Meter
from fewstep.eval.problems.tuned_plans import warn_other_model
from fewstep.guidance import Expression
from fewstep.models.ode import reference_solution
from fewstep.samplers import SAMPLERS, Plan, build_plan, parse_spec, sample
from fewstep.samplers.core.plan import load_plans
from fewstep.samplers.gaussian.class_gaussians import TENSORS, ClassGaussians, load_start
from fewstep.samplers.gaussian.gaussian import GaussianFit
from fewstep.samplers.gaussian.warm import start_hooks
from fewstep.samplers.solvers.registry import names_file
from fewstep.schedules import NoiseProcess, discrete_vp

DOPRI5_TOLERANCE = 1e-3
DEFAULT_CALLS = (5, 8, 10, 20)  # of specs, where none are asked for


@dataclass(frozen=True)
class Batch:
    """A piece of the benchmark.

    Attributes:
        noise: (n, ...) states at the start of the problem's process.
        labels: (n,) classes, or None.
        seeds: n integers, one for each sample's later noise.
    """

    noise: Tensor
    labels: Tensor | None
    seeds: Sequence[int]


@dataclass(frozen=True)
class Job:
    """One line of the results.

    Attributes:
        sampler: its name there.
        nfe: calls asked for; 0 if the solver chooses.
        run: draws samples of a problem under the guidance that the job was made for.
        identity: tells its numbers from those of any other of this name.
    """

    sampler: str
    nfe: int
    run: Callable[[Problem, Batch, Meter], Tensor]
    identity: str = ""


def split_specs(values: Iterable[str]) -> list[str]:
    """Specs of repeated options; one value may hold several, separated by ``;`` or spaces."""
    specs: dict[str, None] = {}
    for value in values:
        # A path may hold spaces; only plans are paths.
        whole = names_file(value) and os.path.exists(value)
        for spec in [value] if whole else re.split(r"[;\s]+(?![^\[]*\])", value.strip()):
            if spec == "all":
                specs.update(dict.fromkeys(all_specs()))
            elif spec:
                specs[spec] = None
    return list(specs)


def takes_no_calls(spec: str) -> bool:
    """Whether a sampler chooses its number of calls while it runs."""
    return spec.partition(":")[0] == "dopri5"


def all_specs() -> list[str]:
    """Every sampler of the registry, by default and at each order it has."""
    specs = []
    for name, entry in SAMPLERS.items():
        specs.append(name)
        default = entry.options().get("order")
        specs += [f"{name}:order={k}" for k in range(1, 5) if default and k != default]
    return [spec for spec in specs if _is_valid(spec)]


def _is_valid(spec: str) -> bool:
    try:
        build_plan(spec, discrete_vp("linear"), 8)
    except ValueError:
        return False
    return True


def make_jobs(
    specs: Iterable[str],
    process: NoiseProcess,
    nfe: Sequence[int] | None,
    guidance: Expression | None = None,
) -> list[Job]:
    """Jobs for specs, paths of saved plans and ``dopri5``.

    Plans make their own numbers of calls: all of them with ``nfe`` None, where specs make
    ``DEFAULT_CALLS``, and else those that ``nfe`` asks for.

    Raises:
        ValueError: if one of them cannot be built for the process and a number of calls, or does
            not fit the guidance; for a file without a plan of any of the numbers.
        FileNotFoundError: if a plan is not there.
    """
    counts = DEFAULT_CALLS if nfe is None else nfe
    if bad := [n for n in counts if n < 1]:
        raise ValueError(f"nfe must be at least 1, got {bad[0]}")
    jobs: list[Job] = []
    for spec in specs:
        if spec.partition(":")[0] == "dopri5":
            jobs.append(_adaptive(spec, guidance))
        elif names_file(spec):
            name, fit = Path(spec).name, load_start(spec)
            jobs += [
                _planned(name, plan, process, plan.calls, guidance, fit)
                for plan in _plans_of(spec, nfe)
            ]
        else:
            parsed = str(parse_spec(spec))
            jobs += [_planned(parsed, spec, process, n, guidance) for n in counts]
    return jobs


def _plans_of(path: str, nfe: Sequence[int] | None) -> list[Plan]:
    """The plans of a file that are asked for: all, or those of these numbers of calls."""
    plans = load_plans(path)
    found = [plan for plan in plans if nfe is None or plan.calls in nfe]
    if not found:
        own = ", ".join(str(plan.calls) for plan in plans)
        asked = ", ".join(map(str, nfe or ()))
        raise ValueError(
            f"{path} makes {own} calls, and nfe asks for {asked}: leave nfe out, or add {own}"
        )
    return found


def warn_of_strangers(specs: Iterable[str], problem: Problem, guidance: Iterable[str]) -> None:
    """Warns of saved plans that were tuned on another model, or under other guidance."""
    plans = [plan for spec in filter(names_file, specs) for plan in load_plans(spec)]
    for plan, text in itertools.product(plans, guidance):
        warn_other_model(plan, problem.fingerprint, text)


def make_peer_jobs(
    process: NoiseProcess, nfe: Sequence[int], guidance: Expression | None = None
) -> list[Job]:
    """Jobs for every diffusers scheduler and grid.

    Those that need more calls, or do not fit the guidance, are left out.
    """
    from fewstep.eval.bench.peers import Peer, peers_for

    def job(peer: Peer, n: int) -> Job:
        def run(problem: Problem, batch: Batch, meter: Meter) -> Tensor:
            guided = replace(problem, denoiser=meter.wrap(problem.denoiser, batch.seeds))
            return peer.sample(guided, n, *_unit(problem, batch))

        return Job(str(peer), n, run, identity)

    jobs, identity = [], f"diffusers {version('diffusers')}, {our_code(Peer)}"
    for peer in peers_for(process):
        for n in nfe:
            try:
                run = peer.facts(process, n)
                with warnings.catch_warnings():
                    # Nobody chose this peer, so nobody can follow the advice.
                    warnings.simplefilter("ignore")
                    if guidance is not None:
                        guidance.check(run)
            except ValueError:
                continue
            jobs.append(job(peer, n))
    return jobs


def _unit(problem: Problem, batch: Batch) -> tuple[Tensor, Tensor | None]:
    return batch.noise / problem.start_scale, batch.labels


def _planned(
    label: str, sampler: str | Plan, process: NoiseProcess, nfe: int,
    guidance: Expression | None, fit: GaussianFit | ClassGaussians | None = None,
) -> Job:  # fmt: skip
    plan = guided_plan(sampler, process, nfe, guidance)
    start_hooks(plan, process, fit)  # raises before anything is sampled

    @torch.no_grad()
    def run(problem: Problem, batch: Batch, meter: Meter) -> Tensor:
        noise, labels = _unit(problem, batch)
        return sample(
            problem.denoiser, plan, plan.calls, noise=noise, cond=labels, guidance=meter,
            seeds=batch.seeds, hooks=start_hooks(plan, process, fit, labels),
        )  # fmt: skip

    parts: list[str | Tensor] = [plan_digest(plan)]
    fits = fit.fits if isinstance(fit, ClassGaussians) else (fit,) if fit else ()
    parts += [getattr(one, name) for one in fits for name in TENSORS]
    return Job(label, plan.calls, run, digest(parts) if fits else plan_digest(plan))


def _adaptive(spec: str, guidance: Expression | None) -> Job:
    """torchdiffeq's dopri5 down to the least trained level, ``dopri5`` or ``dopri5:tol=1e-3``."""
    if guidance is not None and not guidance.is_field:
        raise ValueError(
            f"dopri5 chooses its own steps, and {guidance} draws at random or goes by the steps: "
            "leave one of them out"
        )
    tolerance, given = DOPRI5_TOLERANCE, spec.partition(":")[2]
    if given:
        match = re.fullmatch(r"tol=([0-9.eE+-]+)", given)
        try:
            tolerance = float(match.group(1) if match else "nan")
        except ValueError:
            tolerance = float("nan")
        if not 0 < tolerance < 1:
            raise ValueError(
                f"dopri5 takes tol= between 0 and 1, as in dopri5:tol=1e-3; got {spec!r}"
            )

    def run(problem: Problem, batch: Batch, meter: Meter) -> Tensor:
        return reference_solution(
            meter.wrap(problem.denoiser, batch.seeds), batch.noise, batch.labels, method="dopri5",
            tolerance=tolerance, rho_end=problem.process.rho_min,
            breakpoints=() if guidance is None else guidance.breakpoints(),
        )[0]  # fmt: skip

    return Job(f"dopri5:tol={tolerance:g}", 0, run)
