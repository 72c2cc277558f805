"""Teachers: their grids, their errors, their files; noises to tune, select and report on."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fewstep.eval.problems import load_problem, rmse
from fewstep.eval.tune import teachers
from fewstep.eval.tune.teachers import (
    EXACT_CALLS,
    NETWORK_CALLS,
    cached_teacher,
    error_of,
    split_noises,
    teacher_grid,
)
from fewstep.guidance import CFG, ICG, Interval, parse_guidance
from fewstep.models.exact import MixtureDenoiser
from fewstep.samplers.tuning.teacher import (
    Teacher,
    coarser,
    error_from,
    fine_grid,
    fine_plan,
    teach,
    teacher_error,
)
from fewstep.schedules import VE, Flow, NoiseProcess, discrete_vp
from fewstep.types import Level

PROCESSES = (
    discrete_vp("scaled_linear"),
    discrete_vp("squaredcos_cap_v2"),
    VE(0.002, 80.0),
    Flow(),
)
GUIDED = CFG(3.0) | Interval(0.2, 2.0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path))
    return tmp_path / "references"


def files(cache: Path) -> list[Path]:
    return sorted(cache.glob("teacher-*.safetensors"))


def counted(problem: Any) -> Any:
    """The problem, whose denoiser counts its rows."""
    inner, rows = problem.denoiser, []

    class Counted:
        process, num_classes = inner.process, problem.num_classes

        def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
            rows.append(len(x))
            return inner(x, level, cond)

        def null_cond(self, cond: Any) -> Any:
            return torch.full_like(cond, problem.num_classes)

    return replace(problem, denoiser=Counted()), rows


# Grids


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("ratios", [(), (2.0,), (5.0, 0.2), (40.0, 39.0)])
@pytest.mark.parametrize("calls", [30, 47])
def test_fine_grid_has_its_calls_and_breaks(
    process: NoiseProcess, ratios: tuple[float, ...], calls: int
) -> None:
    grid = fine_grid(process, calls, None, ratios)
    assert grid.nfe == calls
    assert (grid.rho[0], grid.rho[-1]) == (process.rho_max, 0.0)
    assert grid.rho[-2] == pytest.approx(process.rho_min)
    assert (np.diff(grid.rho[1:]) < 0).all()
    inside = [ratio for ratio in ratios if ratio < process.rho_max]
    assert [grid.rho[k] for k in sorted(grid.breaks)] == pytest.approx(inside)
    steps = -np.diff(np.log(grid.rho[1:-1]))
    assert steps.max() < 3 * np.median(steps)
    for k in grid.breaks:  # the method starts at first order: its first step is a 16th
        assert math.log(grid.rho[k] / grid.rho[k + 1]) < 0.1 * steps.max()


def test_too_few_calls_are_refused() -> None:
    assert fine_grid(PROCESSES[0], 12, None, (5.0, 0.2)).nfe == 12
    with pytest.raises(ValueError, match="5 more for each breakpoint, got 11 for 2"):
        fine_grid(PROCESSES[0], 11, None, (5.0, 0.2))


@pytest.mark.parametrize("ratios", [(), (5.0, 0.2)])
def test_coarser_grids_have_half_the_calls_and_the_same_breaks(ratios: tuple[float, ...]) -> None:
    grid = fine_grid(PROCESSES[0], 64, None, ratios)
    teacher = Teacher(
        PROCESSES[0], tuple(grid.rho.tolist()), (), (),
        breakpoints=tuple(float(grid.rho[k]) for k in sorted(grid.breaks)),
    )  # fmt: skip
    coarse = coarser(teacher)
    assert 32 <= coarse.nfe <= 33 + len(ratios)
    assert set(coarse.rho.tolist()) < set(grid.rho.tolist())
    assert coarse.rho[-2:].tolist() == grid.rho[-2:].tolist()
    assert [coarse.rho[k] for k in sorted(coarse.breaks)] == [
        grid.rho[k] for k in sorted(grid.breaks)
    ]


def test_network_is_called_at_the_states_that_are_kept() -> None:
    """A corrector changes the state behind a step, but each output is of the state beside it."""
    means = torch.tensor([[-1.3, 0.4], [0.9, 1.0]], dtype=torch.float64)
    denoiser = MixtureDenoiser(PROCESSES[0], means, 0.4)
    noise = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grid = fine_grid(PROCESSES[0], 20)
    teacher = teach(denoiser, noise, grid=grid)
    for row, scaled, data in zip(
        fine_plan(grid).evaluations, teacher.scaled, teacher.data, strict=False
    ):
        level = Level(row.time, row.alpha, row.sigma)
        torch.testing.assert_close(denoiser(scaled * row.sigma, level), data)


# Errors


@pytest.mark.parametrize("name", ["mix8", "ring2", "mix8-flow"])
@pytest.mark.parametrize("calls", [32, 48, 96])
def test_errors_are_not_underestimated(name: str, calls: int) -> None:
    problem = load_problem(name)
    noise = problem.initial_noise(64, 5, torch.float64)
    exact = problem.reference(noise)
    grid = teacher_grid(problem, None, calls)
    unit = noise / problem.start_scale
    teacher = teach(problem.denoiser, unit, grid=grid)
    told = teacher_error(problem.denoiser, unit, teacher)
    true = rmse(teacher.end, exact)
    # Between the truth and 10 times the truth: at most 0.26 and at least 0.05 of the change.
    assert true < told < 10 * true


@pytest.mark.parametrize(("name", "most"), [("mix8", 5e-4), ("ring2", 5e-5)])
def test_default_teacher_of_an_exact_problem(name: str, most: float) -> None:
    """Fixed solvers err by 0.04 and 0.009 at 10 calls; a teacher by a fraction of a 50th."""
    problem = load_problem(name)
    split = split_noises(problem, 0, {"tune": 64})["tune"]
    teacher = cached_teacher(problem, split.noise, split.labels)
    assert len(teacher.data) == EXACT_CALLS
    assert teacher.end.dtype == torch.float64
    assert error_of(problem, teacher, split.noise) < most


@pytest.mark.parametrize(
    "written", ["none", pytest.param("cfg:3", marks=pytest.mark.slow), "cfg:3|interval:0.2,2"]
)
def test_default_teacher_of_the_network(written: str) -> None:
    problem = load_problem("fashion")
    guidance = parse_guidance(written, problem.models) if written != "none" else None
    split = split_noises(problem, 0, {"report": 2})["report"]
    teacher = cached_teacher(problem, split.noise, split.labels, guidance)
    true = rmse(teacher.end, problem.reference(split.noise, split.labels, guidance))
    told = error_of(problem, teacher, split.noise, guidance)
    assert true < told < 4e-3  # the best fixed solvers err by 0.016 and more at 10 calls
    assert len(teacher.data) == NETWORK_CALLS + 8 * len(teacher.breakpoints)


def test_rounding_is_part_of_a_float32_error() -> None:
    fine = torch.ones(100)
    assert error_from(fine + 3e-2, fine) == pytest.approx(1e-2, rel=1e-3)
    assert error_from(fine + 2e-4, fine) == pytest.approx(2e-4, rel=1e-3)
    assert error_from(fine.double() + 3e-4, fine.double()) == pytest.approx(1e-4)


def test_breakpoints_are_nodes_and_keep_the_order() -> None:
    """Guidance that switches on and off: the error falls as without, for as many calls."""
    problem = load_problem("fashion-exact")
    noise, labels = problem.initial_noise(8, 3, torch.float64), problem.labels(8)
    exact = problem.reference(noise, labels, GUIDED)
    made = [cached_teacher(problem, noise, labels, GUIDED, grid=calls) for calls in (48, 96)]
    assert made[0].breakpoints == (2.0, 0.2)
    errors = [rmse(teacher.end, exact) for teacher in made]
    assert errors[1] < errors[0] / 4  # third order would be 8
    assert errors[1] < 1e-3
    with pytest.raises(ValueError, match=r"no break at sigma/alpha 2, 0\.2"):
        cached_teacher(problem, noise, labels, GUIDED, grid=fine_grid(problem.process, 48))


def test_states_beside_a_break_are_interpolated_within_their_step() -> None:
    """The prediction at a break belongs to the step behind it, and its slope to that side."""
    problem = load_problem("fashion-exact")
    noise, labels = problem.initial_noise(4, 3, torch.float64), problem.labels(4)
    teacher = cached_teacher(problem, noise, labels, GUIDED, grid=64)
    finer = cached_teacher(problem, noise, labels, GUIDED, grid=200)
    k, blind = teacher.rho.index(2.0), replace(teacher, breakpoints=())
    for place in (0.3, 0.7):
        rho = teacher.rho[k - 1] ** (1 - place) * 2.0**place
        told, other = (rmse(one.at(rho), finer.at(rho)) for one in (teacher, blind))
        assert told < 0.2 * other  # measured: 0.03 to 0.06


def test_part_keeps_breakpoints() -> None:
    problem = load_problem("fashion-exact")
    noise, labels = problem.initial_noise(4, 3, torch.float64), problem.labels(4)
    teacher = cached_teacher(problem, noise, labels, GUIDED, grid=24)
    part = teacher.part(slice(1, 3))
    assert part.breakpoints == teacher.breakpoints
    assert torch.equal(part.end, teacher.end[1:3])
    assert torch.equal(part.cond, labels[1:3])


# Files


def test_second_run_loads_what_the_first_computed(cache: Path) -> None:
    problem, rows = counted(load_problem("fashion-exact"))
    noise, labels = problem.initial_noise(5, 1, torch.float64), problem.labels(5)
    told: list[tuple[int, int]] = []
    first = cached_teacher(
        problem, noise, labels, CFG(2.0), grid=8, progress=lambda *done: told.append(done)
    )
    assert told == [(5 * k, 40) for k in range(1, 9)]
    # Two rows a guided call, and thrice two that ask what the model does.
    assert sum(rows) == 80 + 6
    again = cached_teacher(
        problem, noise, labels, CFG(2.0), grid=8, progress=lambda *done: told.append(done)
    )
    assert sum(rows) == 80 + 6
    assert told[8:] == [(40, 40)]
    assert again.rho == first.rho
    for one, other in zip((*first.scaled, *first.data), (*again.scaled, *again.data), strict=True):
        assert torch.equal(one, other)
    inner = CFG(2.0).wrap(problem.denoiser)
    plain = teach(
        inner, noise / problem.start_scale, labels, grid=fine_grid(problem.process, 8, 1e-3)
    )
    torch.testing.assert_close(first.end, plain.end)
    torch.testing.assert_close(first.start, plain.start)
    assert len(files(cache)) == 1


def test_whatever_a_teacher_depends_on_is_in_its_key(cache: Path) -> None:
    problem = load_problem("fashion-exact")
    noise, labels = problem.initial_noise(2, 1, torch.float64), problem.labels(2)
    cases: list[tuple[Any, ...]] = [
        (problem, noise, labels, None, 8),
        (problem, noise + 1e-9, labels, None, 8),
        (problem, noise, labels + 1, None, 8),
        (problem, noise, labels, CFG(2.0), 8),
        (problem, noise, labels, CFG(2.5), 8),
        (problem, noise, labels, None, 9),
        (problem, noise, labels, None, fine_grid(problem.process, 8, 2e-3)),
        (replace(problem, fingerprint="another"), noise, labels, None, 8),
        (load_problem("fashion-exact-scaled"), noise, labels, None, 8),
    ]
    for count, (known, x, classes, guidance, grid) in enumerate(cases, 1):
        for _ in range(2):
            cached_teacher(known, x, classes, guidance, grid=grid)
        assert len(files(cache)) == count


def test_stopped_runs_go_on_in_parts(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers, "SOLVED_SAMPLES", 3)
    problem, rows = counted(load_problem("mix8"))
    noise = problem.initial_noise(8, 1, torch.float64)

    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done > 50:
            raise StopError

    with pytest.raises(StopError):
        cached_teacher(problem, noise, None, grid=10, progress=stop)
    assert len(files(cache)) == 1
    before = sum(rows)
    teacher = cached_teacher(problem, noise, None, grid=10)
    assert sum(rows) - before == 50  # of 80; the first 3 samples were there
    assert len(files(cache)) == 3
    whole = teach(problem.denoiser, noise, grid=fine_grid(problem.process, 10, 1e-3))
    torch.testing.assert_close(teacher.end, whole.end)


def test_guidance_without_a_solution_is_refused() -> None:
    problem = load_problem("fashion-exact")
    noise = problem.initial_noise(2, 1, torch.float64)
    with pytest.raises(ValueError, match="there is no reference under ICG"):
        cached_teacher(problem, noise, problem.labels(2), ICG(1.4), grid=8)


# Noises


def test_noises_are_separate_and_grow_at_the_end() -> None:
    problem = load_problem("fashion-exact")
    counts = {"tune": 6, "select": 4, "report": 5}
    splits = split_noises(problem, 7, counts)
    again = split_noises(problem, 7, {"report": 9, "tune": 2})
    assert torch.equal(again["report"].noise[:5], splits["report"].noise)
    assert torch.equal(again["tune"].noise, splits["tune"].noise[:2])
    assert torch.equal(again["report"].labels[:5], splits["report"].labels)  # type: ignore[index]
    ours = [row for split in splits.values() for row in split.noise]
    ours += [row for split in split_noises(problem, 8, counts).values() for row in split.noise]
    benched = torch.cat([
        problem.initial_noise(6, seed, problem.dtype) for seed in (0, 7, 8, 2**32 + 7, 2**63)
    ])  # fmt: skip
    mine = torch.stack(ours).flatten(1)
    apart = torch.cdist(mine, mine) + 1e3 * torch.eye(len(mine))
    least = 0.5 * math.sqrt(2 * mine.shape[1])  # half of what independent ones have
    assert apart.min() > least
    assert torch.cdist(mine, benched.flatten(1)).min() > least


def test_seeds_of_purposes_have_a_word_that_no_sample_reaches() -> None:
    """SeedSequence hashes (seed, sample) word by word: other words, other streams."""
    for seed in (0, 2**32, 2**64 - 1):
        own = [split_noises(load_problem("mix8"), seed, {name: 1})[name].seed
               for name in ("tune", "select", "report")]  # fmt: skip
        assert len(set(own)) == 3
        assert all(s % 2**64 == seed for s in own)
        assert all(s >> 64 > 2**31 for s in own)


def test_labels_are_random_and_of_all_classes() -> None:
    problem = load_problem("fashion-exact")
    splits = split_noises(problem, 0, {"tune": 500, "select": 500})
    labels = [splits[name].labels for name in ("tune", "select")]
    for drawn in labels:
        assert drawn is not None
        assert drawn.dtype == torch.int64
        counts = torch.bincount(drawn, minlength=problem.num_classes)
        # 500 / 10 each, with a deviation of 6.7: 5 of them.
        assert len(counts) == 10
        assert (counts - 50).abs().max() < 34
    assert not torch.equal(labels[0], labels[1])  # type: ignore[arg-type]
    assert split_noises(load_problem("mix8"), 0, {"tune": 2})["tune"].labels is None


@pytest.mark.parametrize(
    ("seed", "counts", "message"),
    [
        (-1, {"tune": 1}, "seed of tuning"),
        (2**64, {"tune": 1}, "seed of tuning"),
        (0, {"train": 1}, "noises are for tune, select, report"),
        (0, {"tune": 0}, "at least 1"),
    ],
)
def test_bad_splits_are_refused(seed: int, counts: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_noises(load_problem("mix8"), seed, counts)
