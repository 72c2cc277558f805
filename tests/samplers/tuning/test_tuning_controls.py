"""The controls on exact scores."""

import numpy as np
import pytest
import torch
from tuning_controls import (
    DIVISORS,
    PUBLISHED,
    Control,
    Noises,
    controls,
    main,
    published,
    published_table,
    table,
)

from fewstep.eval.problems import load_problem, rmse
from fewstep.samplers import build_plan, sample
from fewstep.samplers.tuning.compensation_family import compensation_numbers
from fewstep.samplers.tuning.epsilon import scale_epsilon


def test_errors_are_those_of_the_samples() -> None:
    problem = load_problem("ring2")
    noises = Noises.of(problem, (128, 128, 256))
    rows = controls(problem, 5, noises, solvers=("ipndm", "unipc"))
    assert [(row.family, row.size) for row in rows] == [("compensation", 4), ("epsilon", 2)]
    compensated, scaled = rows
    plan = build_plan(scaled.spec, problem.process, 5)
    numbers = compensation_numbers(scaled.spec, problem.process, 5)
    tuned = numbers.plan(np.array(compensated.numbers)), scale_epsilon(plan, *scaled.numbers)
    unit = problem.initial_noise(256, 503, torch.float64) / problem.start_scale
    errors = [
        rmse(sample(problem.denoiser, p, 5, noise=unit), noises.report.end) for p in (plan, *tuned)
    ]
    # Rounding: the two loops are the same but for the scaling of the start.
    assert errors == pytest.approx([scaled.before, compensated.after, scaled.after], rel=1e-9)
    # 16 solver and grid pairs are scanned; ipndm's 0.0206 on logsnr goes to 0.011 and 0.019.
    assert compensated.after < 0.7 * compensated.before
    assert scaled.after < 0.95 * scaled.before
    noises_differ = not torch.equal(noises.tune.start, noises.select.start)
    assert noises_differ
    # The teacher's error is far below: the exact solution is cached from other tests, or made.
    exact = problem.reference(problem.initial_noise(128, 501, torch.float64))
    assert rmse(noises.tune.end, exact) < 1e-4


def test_published_scaling_gains_without_any_bias() -> None:
    """DDIM at 20 calls on an exact score comes closer to the data for b up to 1.03."""
    problem = load_problem("ring2")
    noises = Noises.of(problem, (8, 8, 2048))
    rows = list(published(problem, noises.report))
    assert len(rows) == 1 + len(PUBLISHED) * len(DIVISORS)
    assert rows[0].error == 0
    euler = [row for row in rows if row.spec == PUBLISHED[0][0]]
    unit = problem.initial_noise(2048, 503, torch.float64) / problem.start_scale
    plain = sample(problem.denoiser, build_plan(euler[0].spec, problem.process, 20), 20, noise=unit)
    assert euler[0].error == pytest.approx(rmse(plain, noises.report.end), rel=1e-9)
    by_b = {row.b: row for row in euler}
    for better, worse in ((1.005, 1.0), (1.01, 1.005), (1.02, 1.01)):
        assert by_b[better].error < by_b[worse].error
        # 2,048 samples have a floor of 0.02 in w2_gauss, the same noises in every row.
        assert by_b[better].scores["w2_gauss"] < by_b[worse].scores["w2_gauss"]
    lines = published_table("ring2", rows).splitlines()
    assert len(lines) == 2 + len(rows)


def test_table_has_what_was_found() -> None:
    row = Control(5, "unipc", "epsilon", 2, 1.25, 0.2, 0.1, (0.1, 0.05), (0.001, 1.02))
    line = table("mix8", [row]).splitlines()[2]
    assert line == (
        "| mix8 | 5 | unipc | epsilon | 2 | 1.2 | 0.2000 -> 0.1000 | 0.50 | 0.1000 -> 0.0500 | "
        "0.001 1.02 |"
    )


def test_command_writes_the_tables(tmp_path) -> None:
    main("ring2", "4", "16,16,64", 2, "cpu", tmp_path)
    text = (tmp_path / "ring2-4.md").read_text()
    assert text.count("compensation") == text.count("epsilon") == 1
    assert "fine solution" in text
