"""diffusers' schedulers on our problems give the published figures, and count their calls."""

from dataclasses import replace

import pytest
import torch

from fewstep.eval.bench.peers import FLOW_PEERS, VP_PEERS, Peer, PeerClass, peers_for
from fewstep.eval.problems import Problem, load_problem, rmse
from fewstep.eval.problems.fine_solution import CountingDenoiser
from fewstep.models.ode import reference_solution
from fewstep.schedules import VE

# diffusers 0.42.1, scaled_linear betas, 2,048 samples of unknown noise (diffusers_contract.md 3.4).
# The error is carried by the few samples near a border between modes: from seed to seed it moves by
# 4 % at 5 calls and by 30 % and more at 20. 16,384 samples leave our own share of that well below
# the 5 % allowed; runs that need more than 10 calls are not compared.
PUBLISHED = {
    ("ddim", "trailing"): {5: 0.2541, 8: 0.1856, 10: 0.1608},
    ("dpmpp-2m", "trailing"): {5: 0.1867, 8: 0.1247, 10: 0.1044},
    ("dpmpp-3m", "trailing"): {5: 0.1774, 8: 0.1197, 10: 0.1019},
    ("deis-2", "trailing"): {5: 0.1840, 8: 0.1178, 10: 0.0947},
    ("deis-3", "trailing"): {5: 0.1750, 8: 0.1068, 10: 0.0857},
    ("unipc-2", "trailing"): {5: 0.1690, 8: 0.1172, 10: 0.0999},
    ("unipc-3", "trailing"): {5: 0.1653, 8: 0.1198, 10: 0.1013},
    ("sa-solver", "trailing"): {5: 0.1463, 8: 0.1114, 10: 0.0908},
    ("heun", "linspace"): {5: 1.090, 8: 0.354, 10: 0.195},
}


@pytest.fixture(scope="module")
def mix8() -> tuple[Problem, torch.Tensor, torch.Tensor]:
    problem = load_problem("mix8")
    noise = problem.initial_noise(16_384, 5, torch.float64)
    return problem, noise, reference_solution(problem.denoiser, noise, tolerance=1e-6)[0]


@pytest.mark.parametrize("key", PUBLISHED, ids=" ".join)
def test_mix8_is_as_published(
    key: tuple[str, str], mix8: tuple[Problem, torch.Tensor, torch.Tensor]
) -> None:
    problem, noise, reference = mix8
    peer = Peer(key[0], VP_PEERS[key[0]], key[1])
    for nfe, published in PUBLISHED[key].items():
        found = rmse(peer.sample(problem, nfe, noise, None), reference)
        assert found == pytest.approx(published, rel=0.05), nfe


def test_flow_is_as_published() -> None:
    problem = load_problem("mix8-flow")
    noise = problem.initial_noise(8192, 5, torch.float64)
    reference = reference_solution(problem.denoiser, noise, tolerance=1e-6)[0]
    for name, published in {"flow-euler": 0.196, "dpmpp-2m": 0.106, "unipc-2": 0.106}.items():
        peer = Peer(name, FLOW_PEERS[name], "default")
        found = rmse(peer.sample(problem, 10, noise, None), reference)
        assert found == pytest.approx(published, rel=0.05), name


@pytest.mark.parametrize("problem_name", ["mix8", "mix8-flow"])
def test_every_peer_keeps_to_its_calls(problem_name: str) -> None:
    problem = load_problem(problem_name)
    noise = problem.initial_noise(4, dtype=torch.float64)
    peers = list(peers_for(problem.process))
    assert len({str(peer) for peer in peers}) == len(peers)
    for peer in peers:
        counter = CountingDenoiser(problem.denoiser)
        state = torch.get_rng_state()
        x = peer.sample(replace(problem, denoiser=counter), 8, noise, None)
        assert x.isfinite().all(), peer
        assert counter.calls == (7 if "heun" in peer.name else 8), peer
        assert torch.equal(torch.get_rng_state(), state), peer


def test_too_few_calls_and_other_processes_are_refused() -> None:
    # Its Runge-Kutta start takes twelve calls.
    pndm = Peer("prk", PeerClass("PNDMScheduler", {"skip_prk_steps": False}), "linspace")
    with pytest.raises(ValueError, match="cannot run within 8 calls"):
        pndm.scheduler(load_problem("mix8").process, 8)
    with pytest.raises(ValueError, match="--peers none"):
        list(peers_for(VE(0.002, 80.0)))
