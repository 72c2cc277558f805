"""Configs that pass through several classes, diffusers' and ours, as its tests switch them.

What diffusers tests with ``test_compatibles``, ``test_switch`` and two tests that need the Hub.
"""

import inspect

import diffusers
import pytest
import torch
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from helpers import drive, scheduler_classes

from fewstep.samplers.adapter import schedulers

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
every_class = pytest.mark.parametrize("cls", scheduler_classes())
# What pipelines let users choose from, but for one that needs torchsde.
PEERS = [
    getattr(diffusers, entry.name)
    for entry in KarrasDiffusionSchedulers
    if entry.name != "DPMSolverSDEScheduler"
]
FLOWS = [diffusers.FlowMatchEulerDiscreteScheduler, diffusers.FlowMatchHeunDiscreteScheduler]


@pytest.fixture(autouse=True)
def _quiet():
    """diffusers logs the keys that a class does not know; here most configs have some."""
    verbosity = diffusers.logging.get_verbosity()
    diffusers.logging.set_verbosity_error()
    with torch.no_grad():
        yield
    diffusers.logging.set_verbosity(verbosity)


def run(scheduler, n: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    start = torch.linspace(0, 1, 48).reshape(1, 3, 4, 4)
    return drive(scheduler, start, n, lambda x, t: x * t / (t + 1), generator=generator)


@every_class
def test_compatible_classes_take_our_config_and_give_it_back(cls) -> None:
    scheduler = cls(
        num_train_timesteps=100, beta_schedule="scaled_linear", prediction_type="v_prediction",
        use_karras_sigmas=True, timestep_spacing="trailing", steps_offset=1, thresholding=True,
    )  # fmt: skip
    given = {k: v for k, v in scheduler.config.items() if v is not None and k[0] != "_"}
    assert {*PEERS} <= {*scheduler.compatibles}
    result, chain = run(scheduler), scheduler
    for peer_class in PEERS:
        back = cls.from_config(peer_class.from_config(scheduler.config).config)
        if peer_class is diffusers.EDMEulerScheduler:
            # The one whose config is another noise process whatever it was made from.
            assert (back.config.sigma_min, back.config.sigma_max) == (0.002, 80.0)
            continue
        assert {k: v for k, v in back.config.items() if k in given} == given
        assert torch.equal(run(back), result)
        chain = peer_class.from_config(chain.config)
    assert torch.equal(run(cls.from_config(chain.config)), result)


@every_class
def test_configs_of_diffusers_come_back_through_ours(cls) -> None:
    """What was chosen, not only the defaults."""
    chosen = {
        "beta_end": 0.013, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction",
        "timestep_spacing": "trailing", "steps_offset": 1, "use_karras_sigmas": True,
        "thresholding": True, "clip_sample": False, "solver_order": 3,
        "num_train_timesteps": 100, "shift": 3.0, "algorithm_type": "dpmsolver++",
    }  # fmt: skip
    for peer_class in (*PEERS, *FLOWS):
        known = inspect.signature(peer_class.__init__).parameters
        config = {k: v for k, v in chosen.items() if k in known}
        peer = peer_class(**config)
        ours = cls.from_config(peer.config)
        assert run(ours, 5).isfinite().all()
        back = peer_class.from_config(ours.config)
        assert {k: back.config[k] for k in config} == {k: peer.config[k] for k in config}


def test_defaults_stay_behind_and_choices_travel() -> None:
    peer = diffusers.DDIMScheduler()
    assert peer.config.timestep_spacing == "leading"
    ours = schedulers.UniPC.from_config(peer.config)
    euler = diffusers.EulerDiscreteScheduler.from_config(ours.config)
    assert euler.config.timestep_spacing == "linspace"
    ours = schedulers.UniPC.from_config(ours.config, timestep_spacing="trailing")
    for _ in range(2):
        euler = diffusers.EulerDiscreteScheduler.from_config(ours.config)
        assert euler.config.timestep_spacing == "trailing"
        ours = schedulers.DEIS.from_config(euler.config)


def test_a_solver_type_of_another_family_is_left_at_the_default() -> None:
    for given, cls, own in (
        ("midpoint", schedulers.UniPC, "bh2"), ("bh1", schedulers.DPMSolverPP, "midpoint"),
        ("logrho", schedulers.UniPC, "bh2"), ("heun", schedulers.DPMSolverPP, "heun"),
        ("bh1", schedulers.UniPC, "bh1"),
    ):  # fmt: skip
        assert cls.from_config({"solver_type": given}).config.solver_type == own


@every_class
def test_what_we_saved_runs_in_its_classes(cls, tmp_path) -> None:
    """Straight from the folder, where a pipeline is told to use another scheduler."""
    cls().save_pretrained(tmp_path)
    for peer in PEERS:
        theirs = peer.from_pretrained(tmp_path)
        theirs.set_timesteps(10)
        assert len(theirs.timesteps) >= 10
