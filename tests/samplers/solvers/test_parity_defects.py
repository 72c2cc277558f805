"""Where diffusers is wrong and we are not (solvers.md section 5, diffusers_contract.md 3.5).

Each test states both, so that a mended diffusers shows.
"""

import diffusers
import pytest
import torch
from peer_runs import DEIS, DPM, FLOW, LATENT, START, UNIPC, run_ours, run_peer

from fewstep.samplers.adapter import schedulers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")


def steps_of(scheduler, n: int, output=lambda x: 0.7 * x) -> list[torch.Tensor]:
    """The samples before and after each step on a fixed network."""
    scheduler.set_timesteps(n)
    states = [START * float(scheduler.init_noise_sigma)]
    generator = torch.Generator().manual_seed(0)
    extra = {"generator": generator} if isinstance(scheduler, diffusers.SASolverScheduler) else {}
    for t in scheduler.timesteps:
        x = states[-1]
        states.append(scheduler.step(output(x), t, x, return_dict=False, **extra)[0])
    return states


@pytest.mark.parametrize("switch", ["use_karras_sigmas", "use_exponential_sigmas"])
def test_the_last_call_of_deis_is_not_wasted(switch: str) -> None:
    peer = diffusers.DEISMultistepScheduler(**LATENT, **{switch: True})
    ours = schedulers.DEIS.from_config(peer.config, grid="diffusers")
    theirs, own = steps_of(peer, 8), steps_of(ours, 8)
    assert (theirs[-1] - theirs[-2]).abs().max() < 1e-6 * theirs[-1].abs().max()
    assert (own[-1] - own[-2]).norm() > 1e-3 * own[-1].norm()
    assert peer.sigmas[-1] == peer.sigmas[-2] > 0
    assert ours.sigmas[-1] == 0


@pytest.mark.parametrize("name", ["DEISMultistepScheduler", "SASolverScheduler"])
def test_a_flow_ends_without_noise(name: str) -> None:
    peer = getattr(diffusers, name)(**FLOW)
    ours = schedulers.DEIS.from_config(peer.config, grid="diffusers")
    peer.set_timesteps(10)
    ours.set_timesteps(10)
    assert peer.sigmas[-1] > 0.05
    assert ours.sigmas[-1] == 0


def test_ddim_leading_wastes_its_last_call_without_offset() -> None:
    peer = diffusers.DDIMScheduler(**LATENT, clip_sample=False, set_alpha_to_one=False)
    ours = schedulers.DDIM.from_config(peer.config, grid="diffusers")
    theirs, own = steps_of(peer, 8), steps_of(ours, 8)
    assert torch.allclose(theirs[-1], theirs[-2], rtol=1e-6)
    assert not torch.allclose(own[-1], own[-2], rtol=1e-3)


PEERS_WITH_SIGMAS = [DPM, DEIS, UNIPC, "DPMSolverSinglestepScheduler"]


@pytest.mark.parametrize("name", PEERS_WITH_SIGMAS)
def test_training_noise_is_not_mirrored(name: str) -> None:
    """Of a fresh diffusers scheduler t = 20 is noisier than t = 980."""
    peer = getattr(diffusers, name)(**LATENT)
    ours, levels = schedulers.UniPC.from_config(peer.config), torch.tensor([20, 980])
    zeros, ones = torch.zeros(2, 1), torch.ones(2, 1)
    theirs = peer.add_noise(zeros, ones, levels).flatten()
    right = diffusers.DDPMScheduler(**LATENT).add_noise(zeros, ones, levels)
    assert theirs[0] > theirs[1]
    # diffusers' float32 1 - alpha^2 at t = 20.
    torch.testing.assert_close(ours.add_noise(zeros, ones, levels), right, rtol=0, atol=1e-6)


def test_training_noise_after_set_timesteps() -> None:
    """diffusers gives a time off its schedule the last level."""
    peer = diffusers.DPMSolverMultistepScheduler(**LATENT)
    ours, level = schedulers.DPMSolverPP.from_config(peer.config), torch.tensor([520])
    right = diffusers.DDPMScheduler(**LATENT).add_noise(torch.zeros(1), torch.ones(1), level)
    for scheduler in (peer, ours):
        scheduler.set_timesteps(20)
    wrong = peer.add_noise(torch.zeros(1), torch.ones(1), level)
    assert abs(wrong - right) > 0.5
    own = ours.add_noise(torch.zeros(1), torch.ones(1), level)
    torch.testing.assert_close(own, right, rtol=1e-6, atol=0)


def curvature_error(scheduler) -> float:
    """Error on m = lambda^2, which a method of third order integrates exactly."""
    alphas = diffusers.DDPMScheduler(**LATENT).alphas_cumprod.double()
    lam = 0.5 * (alphas / (1 - alphas)).log()
    scheduler.set_timesteps(12)
    x, states, marks = torch.zeros(1, 1, 1, 1, dtype=torch.float64), [], []
    for t in scheduler.timesteps:
        mark = lam[round(float(t))]
        output = torch.full_like(x, float(mark**2))
        states.append(x)
        marks.append(mark)
        x = scheduler.step(output, t, x, return_dict=False)[0]
    # From step 6 to 7: x / sigma grows by the integral of exp(lambda) lambda^2.
    low, high = marks[6], marks[7]
    integral = [u.exp() * (u * u - 2 * u + 2) for u in (low, high)]
    sigma = [1 / (1 + (2 * u).exp()).sqrt() for u in (low, high)]
    exact = sigma[1] * (states[6].item() / sigma[0] + integral[1] - integral[0])
    return abs(states[7].item() / exact.item() - 1)


def test_published_third_order_is_not_of_third_order() -> None:
    """diffusers halves the second difference; so do we, unless asked for ``variant="exact"``."""
    config = {**LATENT, "prediction_type": "sample"}
    peer = diffusers.DPMSolverMultistepScheduler(**config, solver_order=3)
    official, exact = (
        schedulers.DPMSolverPP.from_config(peer.config, grid="diffusers", order=3, variant=variant)
        for variant in ("official", "exact")
    )
    assert curvature_error(peer) > 1e-3
    assert abs(curvature_error(official) - curvature_error(peer)) < 1e-5
    assert curvature_error(exact) < 1e-6  # diffusers' table of levels is float32


def test_bh1_reaches_zero_noise() -> None:
    """diffusers multiplies B(h) = -inf by 0 in the last step."""
    peer = diffusers.UniPCMultistepScheduler(**LATENT, solver_type="bh1")
    ours = schedulers.UniPC.from_config(peer.config, grid="diffusers", solver_type="bh1")
    assert steps_of(peer, 6)[-1].isnan().all()
    assert steps_of(ours, 6)[-1].isfinite().all()


def test_start_without_signal_is_exact() -> None:
    """diffusers' UniPC starts a flow at sigma = 1 - 1e-6 and keeps that node; we drop it.

    From its own nudged levels we get its result.
    """
    peer = diffusers.UniPCMultistepScheduler(**FLOW)
    ours = schedulers.UniPC.from_config(peer.config, grid="diffusers", order=2)
    nothing = [torch.zeros_like(START)] * 10
    peer.set_timesteps(10)
    ours.set_timesteps(10)
    assert ours.sigmas[0] == 1
    b = run_ours(ours, nothing)
    a = run_peer(peer, ours, nothing)
    assert 1e-4 < (a - b).norm() / b.norm() < 1e-2
    ours.register_to_config(flow_shift=1.0)
    ours.set_timesteps(sigmas=peer.sigmas.double())
    peer.set_timesteps(10)
    a, b = run_peer(peer, ours, nothing), run_ours(ours, nothing)
    assert (a - b).norm() / b.norm() < 1e-5


def test_times_are_not_cut_to_integers() -> None:
    peer = diffusers.DPMSolverMultistepScheduler(**LATENT, use_karras_sigmas=True)
    ours = schedulers.DPMSolverPP.from_config(peer.config, grid="diffusers")
    peer.set_timesteps(10)
    ours.set_timesteps(10)
    assert not peer.timesteps.is_floating_point()
    distance = (peer.timesteps - ours.timesteps).abs()
    assert 0.1 < distance.max() <= 0.51
    # Our times name the levels: the table interpolated at them is sigma / alpha.
    alpha, sigma = ours.process.alpha_sigma(ours.timesteps.double().numpy())
    torch.testing.assert_close(
        torch.tensor(sigma / alpha), ours.sigmas[:-1].double(), rtol=1e-5, atol=0
    )


def test_repeated_times_are_no_trouble() -> None:
    """Cosine betas with Karras levels: diffusers repeats times, then runs past the end."""
    config = {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}
    peer = diffusers.DPMSolverMultistepScheduler(**config)
    ours = schedulers.DPMSolverPP.from_config(peer.config, grid="diffusers")
    with pytest.raises(IndexError):
        steps_of(peer, 20)
    assert len(steps_of(ours, 20)) == 21


def test_dynamic_thresholding_is_no_plain_clip() -> None:
    """With diffusers' default cap of 1 it clips to [-1, 1] whatever the sample."""
    peer = diffusers.DPMSolverMultistepScheduler(**LATENT, thresholding=True)
    ours = schedulers.DPMSolverPP.from_config(peer.config)
    data = 3 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(peer._threshold_sample(data), data.clamp(-1, 1))
    ours.set_timesteps(4)
    clamped = ours._executor.threshold(data)
    bound = torch.quantile(data.flatten(1).abs(), 0.995, dim=1).view(2, 1, 1, 1)
    torch.testing.assert_close(clamped, data.clamp(-bound, bound) / bound)


def test_churn_comes_before_the_call() -> None:
    """EDM calls the network at the raised level; diffusers raises the level after the call."""
    peer = diffusers.EDMEulerScheduler()
    ours = schedulers.EDMStochastic.from_config(peer.config, grid="diffusers", churn=20.0)
    calm = schedulers.Heun.from_config(peer.config, grid="diffusers")
    for scheduler in (peer, ours, calm):
        scheduler.set_timesteps(9)
    levels = [row.sigma for row in calm.plan.evaluations]
    raised = [row.sigma for row in ours.plan.evaluations]
    churned = [i for i in range(0, 8, 2) if 0.05 <= levels[i] <= 50]
    gamma = min(20.0 / 5, 2**0.5 - 1)
    assert churned
    for i in churned:
        assert raised[i] == pytest.approx(levels[i] * (1 + gamma), rel=1e-12)
    assert "s_churn" not in diffusers.HeunDiscreteScheduler.step.__code__.co_varnames
