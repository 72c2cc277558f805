"""Against diffusers, on the same grid with the same denoiser: equal where diffusers is right.

Both are asked the same data prediction at the levels of our plan, so that only the solvers are
compared: diffusers cuts the times that it tells the network to integers (see the last tests).
"""

import pytest
from peer_runs import DEIS, DPM, FLOW, SINGLE, UNIPC, noises_for, peer_of, run_ours, run_peer

from fewstep.samplers.adapter import schedulers

# numpy's, about code of diffusers.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")
END = {"final_sigmas_type": "sigma_min"}
NO_TAIL = {"lower_order_final": False}
SDE = {"algorithm_type": "sde-dpmsolver++"}
# diffusers computes levels and coefficients in float32, which costs 3e-6 at most; but its closed
# form of three-node DEIS cancels.
ROUNDING, CANCELLING = 1e-5, 3e-5

# (peer class, its config, our class, our options, tolerance)
CASES = {
    "ddim-trailing": ("DDIMScheduler", {"timestep_spacing": "trailing"}, "DDIM", {}, ROUNDING),
    "ddim-leading": ("DDIMScheduler", {"steps_offset": 1}, "DDIM", {}, ROUNDING),
    "ddim-to-first-level": ("DDIMScheduler", {"steps_offset": 1, "set_alpha_to_one": False}, "DDIM",
                            {}, ROUNDING),
    "2m": (DPM, {}, "DPMSolverPP", {}, ROUNDING),
    "2m-heun": (DPM, {"solver_type": "heun"}, "DPMSolverPP", {"solver_type": "heun"}, ROUNDING),
    "2m-sigma-min": (DPM, END, "DPMSolverPP", {}, ROUNDING),
    "2m-karras": (DPM, {"use_karras_sigmas": True}, "DPMSolverPP", {}, ROUNDING),
    "2m-exponential": (DPM, {"use_exponential_sigmas": True}, "DPMSolverPP", {}, ROUNDING),
    "2m-beta": (DPM, {"use_beta_sigmas": True}, "DPMSolverPP", {}, ROUNDING),
    "2m-v": (DPM, {"prediction_type": "v_prediction"}, "DPMSolverPP", {}, ROUNDING),
    "2m-sample": (DPM, {"prediction_type": "sample"}, "DPMSolverPP", {}, ROUNDING),
    "3m": (DPM, {"solver_order": 3}, "DPMSolverPP", {"order": 3}, ROUNDING),
    "3m-no-tail": (DPM, {"solver_order": 3, **END, **NO_TAIL}, "DPMSolverPP",
                   {"order": 3, **NO_TAIL}, ROUNDING),
    "2m-flow": (DPM, FLOW, "DPMSolverPP", {}, ROUNDING),
    "sde-1": (DPM, {**SDE, "solver_order": 1}, "DPMSolverPP", {"order": 1, "tau": 1.0}, ROUNDING),
    "sde-2": (DPM, SDE, "DPMSolverPP", {"tau": 1.0}, ROUNDING),
    "unipc-2-bh2": (UNIPC, {}, "UniPC", {"order": 2}, ROUNDING),
    "unipc-2-bh1": (UNIPC, {"solver_type": "bh1", **END}, "UniPC",
                    {"order": 2, "solver_type": "bh1"}, ROUNDING),
    "unipc-3": (UNIPC, {"solver_order": 3}, "UniPC", {"order": 3}, ROUNDING),
    "unipc-3-sigma-min": (UNIPC, {"solver_order": 3, **END}, "UniPC", {"order": 3}, ROUNDING),
    "unipc-no-corrector": (UNIPC, {"disable_corrector": [0, 1]}, "UniPC",
                           {"order": 2, "disable_corrector": [0, 1]}, ROUNDING),
    "deis-1": (DEIS, {"solver_order": 1}, "DEIS", {"order": 1}, ROUNDING),
    "deis-2": (DEIS, NO_TAIL, "DEIS", {"order": 2, "variable": "log_rho"}, ROUNDING),
    "deis-3": (DEIS, {"solver_order": 3, **NO_TAIL}, "DEIS",
               {"order": 3, "variable": "log_rho"}, CANCELLING),
    "euler": ("EulerDiscreteScheduler", {}, "Euler", {}, ROUNDING),
    "euler-trailing": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}, "Euler", {},
                       ROUNDING),
    "heun": ("HeunDiscreteScheduler", {}, "Heun", {}, ROUNDING),
    "heun-karras": ("HeunDiscreteScheduler", {"use_karras_sigmas": True}, "Heun", {}, ROUNDING),
    "edm-euler": ("EDMEulerScheduler", {}, "Euler", {}, ROUNDING),
    "edm-2m": ("EDMDPMSolverMultistepScheduler", {}, "DPMSolverPP", {}, ROUNDING),
    "euler-a": ("EulerAncestralDiscreteScheduler", {}, "EulerAncestral", {}, ROUNDING),
    "euler-a-trailing": ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "trailing"},
                         "EulerAncestral", {}, ROUNDING),
    "flow-euler": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, "Euler", {}, ROUNDING),
}  # fmt: skip


def deviation(name: str, config: dict, cls: str, options: dict, n: int) -> float:
    """Relative distance of the results; n is the peer's number of steps."""
    peer = peer_of(name, config)
    ours = getattr(schedulers, cls).from_config(peer.config, grid="diffusers", **options)
    peer.set_timesteps(n)
    ours.set_timesteps(len(peer.timesteps))
    noises = noises_for(ours.plan.nfe)
    a, b = run_peer(peer, ours, noises), run_ours(ours, noises)
    return ((a - b).norm() / b.norm()).item()


# diffusers puts the stages on its grid, so only where that is uniform in lambda; and with n so that
# its blocks are ours.
UNIFORM = {"use_exponential_sigmas": True}
SINGLESTEP = {
    "2s": (SINGLE, UNIFORM, "DPMSolverPPSinglestep", {"order": 2, "solver_type": "midpoint"}),
    "2s-heun": (SINGLE, {**UNIFORM, "solver_type": "heun"}, "DPMSolverPPSinglestep", {"order": 2}),
    "3s-heun": (SINGLE, {**UNIFORM, "solver_order": 3, "solver_type": "heun"},
                "DPMSolverPPSinglestep", {}),
}  # fmt: skip


@pytest.mark.parametrize("n", [7, 13, 19])
@pytest.mark.parametrize("case", SINGLESTEP)
def test_singlestep_is_equal_to_diffusers(case: str, n: int) -> None:
    assert deviation(*SINGLESTEP[case], n) < ROUNDING


@pytest.mark.parametrize("n", [5, 10, 20])
@pytest.mark.parametrize("case", CASES)
def test_equal_to_diffusers(case: str, n: int) -> None:
    *arguments, tolerance = CASES[case]
    assert deviation(*arguments, n) < tolerance
