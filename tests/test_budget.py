"""A plan for n calls makes n calls: every option that changes how they are spent."""

import itertools
import math

import pytest
from helpers import CONFIGS

from fewstep.samplers import build_plan, schedulers

SPECS = [
    "euler_a", "singlestep:order=1", "singlestep:order=2", "singlestep", "singlestep:tau=1",
    "rho_rk:order=2", "rho_rk", "rho_rk:order=4", "edm", "heun", "restart", "restart:solver=sa",
    "restart:solver=edm", "restart:solver=singlestep", "restart:solver=ddim,inner=heun",
    "restart:solver=sa:mode=more_steps", "restart:solver=sa:evaluate=pece",
    *[f"sa:mode={m},evaluate={e},predictor_order={p},corrector_order={c}"
      for m in ("few_steps", "more_steps") for e in ("pec", "pece")
      for p, c in ((3, 4), (1, 0), (2, 1))],
]  # fmt: skip


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("spec", SPECS)
def test_n_calls(spec: str, config: str, final: str) -> None:
    process = schedulers.DDIM(**CONFIGS[config]).process
    joint = "," if ":" in spec else ":"
    for n in range(1, 41):
        plan = build_plan(f"{spec}{joint}final={final}", process, n)
        assert plan.nfe == n
        assert (plan.end[1] == 0) == (final == "zero")
        levels = [row.sigma / row.alpha if row.alpha else math.inf for row in plan.evaluations]
        if "restart" not in spec and "edm" not in spec:
            assert all(a >= b for a, b in itertools.pairwise(levels))
