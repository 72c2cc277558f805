"""SA-Solver and singlestep SDE against diffusers: equal where it is right, and where it is not."""

import math

import diffusers
import numpy as np
import pytest
import torch
from helpers import make
from linear_runs import Basis, states
from peer_runs import LATENT, SINGLE, START, noises_for, output_of, peer_of

from fewstep.samplers.adapter import schedulers
from fewstep.schedules import discrete_vp, grid_from_rho

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")
PROCESS = discrete_vp("scaled_linear", beta_start=0.00085, beta_end=0.012)
SA = "SASolverScheduler"


def sa_peer(predictor: int, corrector: int, tau_func, **config):
    orders = {"predictor_order": predictor, "corrector_order": corrector}
    return peer_of(SA, {**orders, "tau_func": tau_func, "lower_order_final": False, **config})


def sa_states(
    predictor: int, corrector: int, tau: int, n: int, **config
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Samples of diffusers and ours after each of diffusers' n steps, on its levels and noises.

    Ours goes one step further, to sigma = 0, and has the tau of diffusers everywhere before.
    """
    peer = sa_peer(predictor, corrector, lambda t: tau, **config)
    peer.set_timesteps(n)
    ours = schedulers.SASolver(
        **LATENT, predictor_order=predictor, corrector_order=corrector, tau=float(tau),
        tau_min=0.0, tau_max=1e9, lower_order_final=False,
    )  # fmt: skip
    ours.set_timesteps(sigmas=peer.sigmas.double())
    assert ours.plan.nfe == n + 1
    x = y = START * ours.init_noise_sigma
    generator, noises, seen = torch.Generator().manual_seed(0), noises_for(n), []
    for e, t in enumerate(peer.timesteps):
        (x,) = peer.step(output_of(ours, e, x), t, x, generator=generator, return_dict=False)
        y = ours.step(
            output_of(ours, e, y), ours.timesteps[e], y, variance_noise=noises[e], return_dict=False
        )[0]
        seen.append((x, y))
    return seen


@pytest.mark.parametrize("tau", [0, 1])
@pytest.mark.parametrize("n", [6, 10, 20])
@pytest.mark.parametrize(("predictor", "corrector"), [(1, 1), (2, 2), (2, 3), (3, 4)])
def test_sa_solver(predictor: int, corrector: int, n: int, tau: int) -> None:
    """diffusers' float32 polynomials in absolute lambda cancel: 2e-5 at order 4 and short steps."""
    for theirs, own in sa_states(predictor, corrector, tau, n):
        assert (theirs - own).norm() < 5e-5 * own.norm()


def test_sa_solver_tau_is_of_the_start_and_never_forced_to_zero() -> None:
    """diffusers asks at the start of an interval, and keeps its noise in the last step."""
    asked: list[float] = []

    def tau(t) -> int:
        asked.append(float(t))
        return 1

    peer = sa_peer(2, 2, tau)
    peer.set_timesteps(5)
    ends = []
    for seed in (0, 1):
        peer.set_timesteps(5)
        generator, x = torch.Generator().manual_seed(0), START
        for i, t in enumerate(peer.timesteps):
            if i == 4:
                generator = torch.Generator().manual_seed(seed)
            (x,) = peer.step(0.7 * x, t, x, generator=generator, return_dict=False)
        ends.append(x)
    assert asked[:1] == [float(peer.timesteps[0])]
    assert set(asked) == set(peer.timesteps.tolist())
    assert not torch.equal(*ends)
    ours = schedulers.SASolver.from_config(LATENT, tau_min=0.0, tau_max=1e9)
    ours.set_timesteps(5)
    assert not any(op.nu for op in ours.plan.evaluations[-1].ops)


def test_sa_solver_of_diffusers_cannot_be_saved(tmp_path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        sa_peer(2, 2, lambda t: 1).save_pretrained(tmp_path)
    schedulers.SASolver(tau=0.8, tau_min=0.1).save_pretrained(tmp_path)
    loaded = schedulers.SASolver.from_pretrained(tmp_path)
    assert (loaded.config.tau, loaded.config.tau_min) == (0.8, 0.1)


@pytest.mark.parametrize("switch", ["use_karras_sigmas", "use_exponential_sigmas"])
def test_the_last_call_of_sa_solver_is_not_wasted(switch: str) -> None:
    peer = sa_peer(1, 1, lambda t: 0, **{switch: True})
    peer.set_timesteps(8)
    assert peer.sigmas[-1] == peer.sigmas[-2] > 0
    config = {key: value for key, value in peer.config.items() if key != "tau_func"}
    ours = schedulers.SASolver.from_config(config, grid="diffusers")
    ours.set_timesteps(8)
    assert ours.sigmas[-1] == 0
    assert (ours.sigmas[1:] < ours.sigmas[:-1]).all()


def single_peer(order: int, n: int, **config):
    peer = peer_of(SINGLE, {"solver_order": order, "prediction_type": "sample", **config})
    peer.set_timesteps(n)
    return peer


SDE = {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun", "use_exponential_sigmas": True}


def block_coefficients(peer, order: int) -> torch.Tensor:
    """The weights of a block's outputs in its result: one coordinate for each output."""
    x = torch.zeros(1, order, 1, 1)
    for e in range(order):
        output = torch.zeros_like(x)
        output[0, e] = 1.0
        (x,) = peer.step(output, peer.timesteps[e], x, return_dict=False,
                         generator=torch.Generator())  # fmt: skip
    return x.flatten().double()


def test_sign_of_the_third_order_sde(monkeypatch) -> None:
    """diffusers' D2 weighs about -1 where it should weigh z / 6; ours are the exact weights."""
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_dpmsolver_singlestep.randn_tensor",
        lambda shape, **kwargs: torch.zeros(shape),
    )
    peer = single_peer(3, 31, **SDE)
    rho = peer.sigmas.double()[:4]
    theirs = block_coefficients(peer, 3)
    grid = grid_from_rho(PROCESS, rho.numpy())
    plan = make("singlestep:order=3,tau=1", grid)
    own = torch.tensor(plan.evaluations[2].ops[0].w[::-1]).double()
    alpha, z = float(grid.alpha[-1]), 2 * math.log(rho[0] / rho[3])
    points, measure = np.polynomial.legendre.leggauss(20)
    s, r = (points + 1) / 2, np.array([0, 1 / 3, 2 / 3])
    kernel = z * np.exp(-z * (1 - s)) * measure / 2
    exact = [
        alpha * float(np.sum(kernel * np.prod([(s - q) / (p - q) for q in r if q != p], axis=0)))
        for p in r
    ]
    np.testing.assert_allclose(own, exact, rtol=1e-6)
    # Second differences of the outputs, (m_2 - 2 m_1 + m_0) of the thirds: D2 = 9 of them.
    second = (theirs - own)[0] / 9 / alpha
    np.testing.assert_allclose((theirs - own) / (9 * alpha), [second, -2 * second, second],
                               rtol=1e-2)  # fmt: skip
    assert second == pytest.approx(-1, abs=0.1)


def test_noise_of_stages_is_one_path(monkeypatch) -> None:
    """diffusers draws the noise of a stage and of its step apart; on a point mass it shows."""
    peer = single_peer(2, 21, **SDE)
    rho = peer.sigmas.double()[:3]
    grid = grid_from_rho(PROCESS, rho.numpy())
    basis = Basis(4)
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_dpmsolver_singlestep.randn_tensor",
        lambda shape, **kwargs: basis.draw(torch.zeros(shape, dtype=torch.float64)),
    )
    x = basis.start(float(grid.sigma[0] ** 2))
    seen = [x]
    for e in range(2):
        (x,) = peer.step(torch.zeros_like(x), peer.timesteps[e], x, return_dict=False)
        seen.append(x)
    stage, end = (state.flatten() for state in seen[1:])
    own_stage, own_end = states(make("singlestep:order=2,tau=1", grid))[1:]
    correct = float(grid.sigma[1] * grid.sigma[2] * rho[2] / rho[1])
    assert float(own_stage @ own_end) == pytest.approx(correct, rel=1e-6)  # levels in float32
    apart = correct * float((rho[1] / rho[0]) ** 2)  # what reaches both from the start alone
    assert float(stage @ end) == pytest.approx(apart, rel=1e-4)


def test_stages_are_off_their_fractions() -> None:
    """Its nodes are those of the outer grid, and so its third order works with other fractions."""
    peer = diffusers.DPMSolverSinglestepScheduler(**LATENT, solver_order=3)
    ours = schedulers.DPMSolverPPSinglestep.from_config(peer.config, grid="diffusers")
    peer.set_timesteps(13)
    ours.set_timesteps(13)
    for scheduler, off in ((peer, True), (ours, False)):
        lam = -scheduler.sigmas[:13].double().log()
        fractions = [(lam[i + 1] - lam[i]) / (lam[i + 3] - lam[i]) for i in (0, 3, 6, 9)]
        distance = max(abs(float(f) - 1 / 3) for f in fractions)
        assert (distance > 0.05) == off
        assert distance < 1e-5 or off


def test_singlestep_of_diffusers_rewrites_its_config() -> None:
    peer = diffusers.DPMSolverSinglestepScheduler(**LATENT)
    ours = schedulers.DPMSolverPPSinglestep.from_config(peer.config)
    before = dict(ours.config)
    assert not peer.config.lower_order_final
    for scheduler in (peer, ours):
        scheduler.set_timesteps(7)
    assert peer.config.lower_order_final
    assert dict(ours.config) == before
