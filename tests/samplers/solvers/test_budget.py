"""A plan for n calls makes n calls: every option that changes how they are spent."""

import itertools
import math

import numpy as np
import pytest
from helpers import CONFIGS

from fewstep.samplers import parse_spec
from fewstep.samplers.adapter import schedulers

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
        # Some have options without effect beside the others, which build_plan refuses.
        plan = parse_spec(f"{spec}{joint}final={final}").made(process, n)
        assert plan.nfe == n
        assert (plan.end[1] == 0) == (final == "zero")
        levels = [row.sigma / row.alpha if row.alpha else math.inf for row in plan.evaluations]
        if "restart" not in spec and "edm" not in spec:
            assert all(a >= b for a, b in itertools.pairwise(levels))


def test_automatic_intervals_find_nodes_of_their_own() -> None:
    """Where the levels that are asked for lie close together."""
    scheduler = schedulers.Restart(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5)
    levels = np.geomspace(3.0, 2.0, 25).tolist()
    scheduler.set_timesteps(sigmas=levels)
    sigmas = [row.sigma for row in scheduler.plan.evaluations]
    tops = [t for s, t in itertools.pairwise(sigmas) if t > s]
    assert len(sigmas) - len(levels) == 12  # two intervals of three passes of two calls
    assert tops == pytest.approx([3.0] * 6)
