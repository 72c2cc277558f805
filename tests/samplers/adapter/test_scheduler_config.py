"""Configs: saving, taking over those of diffusers, and who decides the grid."""

import json
import warnings

import diffusers
import numpy as np
import pytest
import torch
from helpers import CONFIGS, drive, scheduler_classes

from fewstep.samplers.adapter import schedulers
from fewstep.samplers.adapter.foreign import origin_of
from fewstep.schedules import Flow, make_grid
from fewstep.schedules.diffusers.config import FLOW_CLASSES, TABLE_CLASSES, VE_CLASSES

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")
CLASSES = scheduler_classes()
NEEDS_TORCHSDE = {"DPMSolverSDEScheduler", "CosineDPMSolverMultistepScheduler"}
# Of distilled networks, which no solver applies to: test_distilled.py.
DISTILLED = {"FlowMatchLCMScheduler", "LCMScheduler", "TCDScheduler", "UnCLIPScheduler"}
PEERS = sorted({*TABLE_CLASSES, *FLOW_CLASSES, *VE_CLASSES} - NEEDS_TORCHSDE - DISTILLED)
PEERS = [name for name in PEERS if hasattr(diffusers, name)]
KARRAS, TRAILING = {"use_karras_sigmas": True}, {"timestep_spacing": "trailing"}


def start() -> torch.Tensor:
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def times_of(scheduler, n: int = 8, **kwargs) -> list[float]:
    scheduler.set_timesteps(n, **kwargs)
    return scheduler.timesteps.tolist()


def grid_times(name: str, scheduler, n: int = 8) -> list[float]:
    return make_grid(scheduler.process, n, name).time[:n].astype(np.float32).tolist()


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("cls", CLASSES)
def test_save_and_load(cls, config: str, tmp_path) -> None:
    scheduler = cls(**CONFIGS[config], grid="linspace")
    scheduler.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert saved["_class_name"] == cls.__name__
    loaded = cls.from_pretrained(tmp_path)
    assert loaded.to_json_string() == scheduler.to_json_string()
    runs = [drive(s, start(), 6, generator=torch.Generator()) for s in (scheduler, loaded)]
    assert torch.equal(*runs)


@pytest.mark.parametrize("cls", CLASSES)
def test_our_own_configs_pass_between_our_classes(cls) -> None:
    for other in CLASSES:
        there = other.from_config(json.loads(cls(beta_end=0.03, **KARRAS).to_json_string()))
        assert there.process == cls(beta_end=0.03).process
        assert len(times_of(there)) == 8
        assert there.grid_reason == "use_karras_sigmas is set"


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("name", PEERS)
@pytest.mark.filterwarnings("ignore")
def test_a_config_of_diffusers_and_back(name: str, saved: bool) -> None:
    peer_class = getattr(diffusers, name)
    peer = peer_class()
    config = json.loads(peer.to_json_string()) if saved else peer.config
    for cls in CLASSES:
        ours = cls.from_config(config)
        assert len(times_of(ours, 7, mu=0.5)) == 7
        # What `from_config` constructs with; some constructors take seconds. Where it says nothing
        # the peer's default counts, which is the value.
        back, _, _ = peer_class.extract_init_dict(dict(ours.config))
        for key, value in peer.config.items():
            assert key.startswith("_") or back.get(key, value) == value
    whole = peer_class.from_config(ours.config).config
    for key, value in peer.config.items():
        assert key.startswith("_") or whole[key] == value


def test_the_class_of_a_live_config_is_told_by_its_keys() -> None:
    """Or one that differs in no key, which is of the same family."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        told = {name: origin_of(getattr(diffusers, name)().config) for name in PEERS}
    same = {
        "DDIMParallelScheduler": "DDIMScheduler", "DDPMParallelScheduler": "DDPMScheduler",
        "KDPM2DiscreteScheduler": "LMSDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler": "LMSDiscreteScheduler",
        "CogVideoXDDIMScheduler": "CogVideoXDPMScheduler", "TCDScheduler": "LCMScheduler",
    }  # fmt: skip
    for name, answer in told.items():
        assert answer in (name, same.get(name))


@pytest.mark.parametrize("cls", CLASSES)
def test_an_unknown_argument_is_refused(cls) -> None:
    with pytest.raises(TypeError, match=f"{cls.__name__} has no argument 'ordr'; it has num_train"):
        cls(ordr=2)
    with pytest.raises(TypeError, match=f"{cls.__name__} has no argument 'ordr'"):
        cls.from_config(diffusers.DDIMScheduler().config, ordr=2)
    with pytest.raises(ValueError, match="prediction_type must be one of"):
        cls(prediction_type="noise")


@pytest.mark.parametrize("edit", ["attribute", "register"])
def test_edits_of_the_config_count_at_the_next_set_timesteps(edit: str) -> None:
    scheduler = schedulers.DPMSolverPP(grid="linspace")
    before = times_of(scheduler)
    changes = {"grid": "trailing", "order": 3, "beta_schedule": "squaredcos_cap_v2"}
    if edit == "register":
        scheduler.register_to_config(**changes)
    else:
        for key, value in changes.items():
            setattr(scheduler.config, key, value)
    fresh = schedulers.DPMSolverPP(**changes)
    assert times_of(scheduler) == times_of(fresh) != before
    assert scheduler.plan == fresh.plan
    assert torch.equal(scheduler.alphas_cumprod, fresh.alphas_cumprod)


# The order of precedence (architecture.md).


def test_level_1_values_given_to_set_timesteps() -> None:
    scheduler = schedulers.DDIM(grid="karras", **KARRAS)
    scheduler.set_timesteps(timesteps=[900, 500, 100])
    assert scheduler.timesteps.tolist() == [900, 500, 100]
    assert scheduler.grid_reason == "timesteps="


# Those that call the network at the nodes of their grid and nowhere else.
ON_GRID = [cls for cls in CLASSES if "Singlestep" not in cls.__name__][:6]


@pytest.mark.parametrize("cls", ON_GRID)
def test_level_2_keywords_beat_inherited_switches(cls) -> None:
    peer = diffusers.DPMSolverMultistepScheduler(use_exponential_sigmas=True)
    for config in (peer.config, cls.from_config(peer.config).config):
        inherited = cls.from_config(config)
        assert times_of(inherited) == grid_times("exponential", inherited)
        for keywords, name in (
            (TRAILING, "trailing"),
            (KARRAS, "karras"),
            ({"grid": "tan"}, "tan"),
            ({"grid": "linspace", **TRAILING}, "linspace"),
        ):
            chosen = cls.from_config(config, **keywords)
            assert times_of(chosen) == grid_times(name, chosen)
            assert chosen.grid_reason == f"grid={name!r}"
    with pytest.raises(ValueError, match="only one of use_karras_sigmas, use_beta_sigmas"):
        cls.from_config(peer.config, use_beta_sigmas=True, **KARRAS)


def test_level_2_the_end_of_the_grid() -> None:
    config = diffusers.DPMSolverMultistepScheduler(final_sigmas_type="sigma_min").config
    carried = schedulers.DPMSolverPP.from_config(config)
    times_of(carried)
    assert carried.sigmas[-1] == 0
    for keywords in ({"final_sigmas_type": "sigma_min"}, {"final": "sigma_min"}):
        asked = schedulers.DPMSolverPP.from_config(config, **keywords)
        times_of(asked)
        assert asked.sigmas[-1] == pytest.approx(asked.process.rho_min, rel=1e-6)
    with pytest.raises(ValueError, match="final must be 'zero' or 'sigma_min'"):
        times_of(schedulers.DPMSolverPP(grid="karras", final="zer0"))


def test_level_3_switches_beat_spacing() -> None:
    for key, name in (
        ("use_karras_sigmas", "karras"), ("use_exponential_sigmas", "exponential"),
        ("use_beta_sigmas", "beta"), ("use_lu_lambdas", "logsnr"),
    ):  # fmt: skip
        scheduler = schedulers.DDIM(**{key: True}, timestep_spacing="leading")
        assert times_of(scheduler) == grid_times(name, scheduler)
        assert scheduler.grid_reason == f"{key} is set"


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_level_4_spacing_of_plain_dictionaries_and_our_own(spacing: str) -> None:
    for scheduler in (
        schedulers.DDIM(timestep_spacing=spacing),
        schedulers.DDIM.from_config({"timestep_spacing": spacing}),
        schedulers.UniPC.from_config(schedulers.DDIM(timestep_spacing=spacing).config),
    ):
        assert times_of(scheduler) == grid_times(spacing, scheduler)


def test_level_5_the_automatic_rule() -> None:
    auto = times_of(schedulers.UniPC())
    for name in ("DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"):
        for spacing in ("leading", "linspace"):  # defaults of classes; nobody need have chosen them
            peer = getattr(diffusers, name)(
                beta_start=1e-4, beta_end=0.02, timestep_spacing=spacing
            )
            ours = schedulers.UniPC.from_config(peer.config)
            assert times_of(ours) == auto
            assert ours.grid_reason.endswith("the automatic rule of unipc")
            assert ours.config.timestep_spacing == spacing  # carried
    assert "grid: softlog, the automatic rule of unipc" in repr(ours)


def test_grid_diffusers_obeys_everything() -> None:
    peer = diffusers.DPMSolverMultistepScheduler(**TRAILING)
    peer.set_timesteps(8)
    ours = schedulers.DPMSolverPP.from_config(peer.config, grid="diffusers")
    assert times_of(ours) == peer.timesteps.tolist()


def test_a_shift_given_by_keyword_replaces_the_inherited_one() -> None:
    config = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).config
    for shift, keywords in ((3.0, {}), (7.0, {"flow_shift": 7.0})):
        ours = schedulers.Euler.from_config(config, grid="trailing", **keywords)
        assert ours.config.flow_shift == shift
        ours.set_timesteps(4)
        even = torch.tensor([1, 0.75, 0.5, 0.25, 0])
        torch.testing.assert_close(ours.sigmas, shift * even / (1 + (shift - 1) * even))
        # diffusers' pipelines then ask for a number of steps and not for sigmas of their own.


def test_a_function_in_a_config_is_left_behind(tmp_path) -> None:
    """diffusers' own SA-Solver cannot be saved with one."""
    peer = diffusers.SASolverScheduler(tau_func=lambda t: 1.0)
    with pytest.warns(UserWarning, match="tau_func of the scheduler's config is a function"):
        ours = schedulers.SASolver.from_config(peer.config)
    ours.save_pretrained(tmp_path)
    assert times_of(schedulers.SASolver.from_pretrained(tmp_path)) == times_of(ours)


def test_a_dictionary_made_from_a_live_config_says_what_was_changed() -> None:
    """``{**config, key: value}``: the list of defaults that it carries is older than the value."""
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).config
    ours = schedulers.UniPC.from_config({**flow, "shift": 6.0, "use_karras_sigmas": True})
    assert isinstance(ours.process, Flow)
    assert ours.shift == 6
    assert ours.config.prediction_type == "flow_prediction"
    ours.set_timesteps(5)
    assert "karras" in ours.grid_reason
    again = schedulers.UniPC.from_config({**schedulers.UniPC().config, "grid": "tan"})
    again.set_timesteps(5)
    assert again.grid.name == "tan"
