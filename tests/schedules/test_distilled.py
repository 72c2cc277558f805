"""Distilled checkpoints are refused in one line; trailing times, which somebody chose, are kept."""

import json
import warnings
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from helpers import scheduler_classes

import fewstep
from fewstep.schedules import discrete_vp

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
CLASSES = scheduler_classes()
every_class = pytest.mark.parametrize("cls", CLASSES)
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
FLOW = diffusers.FlowMatchEulerDiscreteScheduler
# (class, arguments, what it is, how to say that it is none)
DISTILLED: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("LCMScheduler", SD, "latent consistency model", {"_class_name": "DDIMScheduler"}),
    ("TCDScheduler", SD, "trajectory consistency model", {"_class_name": "DDIMScheduler"}),
    ("FlowMatchLCMScheduler", {}, "latent consistency model",
     {"_class_name": "FlowMatchEulerDiscreteScheduler"}),
    ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, "stochastic_sampling=True",
     {"stochastic_sampling": False}),
    ("UnCLIPScheduler", {"variance_type": "learned_range"}, "decoder and super-resolution",
     {"_class_name": "DDPMScheduler"}),
]  # fmt: skip


def peer(name: str, arguments: dict[str, Any]) -> Any:
    if not hasattr(diffusers, name):
        pytest.skip(f"this diffusers has no {name}")
    return getattr(diffusers, name)(**arguments)


@every_class
@pytest.mark.parametrize(("name", "arguments", "what", "override"), DISTILLED)
def test_refused_live_and_from_disk(
    name: str, arguments: dict, what: str, override: dict, cls: type, tmp_path: Path
) -> None:
    made = peer(name, arguments)
    made.save_pretrained(tmp_path)
    loaded = type(made).from_pretrained(tmp_path)
    saved = json.loads((tmp_path / "scheduler_config.json").read_text())
    for config in (made.config, loaded.config, saved):
        with pytest.raises(ValueError, match=f"{name}: its .*{what}.*keep that scheduler") as error:
            cls.from_config(config)
        assert "\n" not in str(error.value)
        key = next(iter(override))
        assert f'from_config({{**config, "{key}": ' in str(error.value)
        ours = cls.from_config({**config, **override})  # for those who know
        ours.set_timesteps(4)
        assert len(ours.timesteps) == 4
    with pytest.raises(ValueError, match="keep that scheduler"):
        cls.from_pretrained(tmp_path)


def test_flow_maps_from_disk_and_live(tmp_path: Path) -> None:
    """Live their config is that of FlowMatchHeun to the last key, so a warning names both."""
    made = peer("FlowMapEulerDiscreteScheduler", {"shift": 5.0})
    made.save_pretrained(tmp_path)
    loaded = type(made).from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"FlowMapEulerDiscreteScheduler has no .* keep that"):
        fewstep.UniPC.from_config(loaded.config)
    made = peer("FlowMapEulerDiscreteScheduler", {"shift": 5.0})  # saving names its class
    with pytest.warns(UserWarning, match="may as well be FlowMapEulerDiscreteScheduler's"):
        fewstep.UniPC.from_config(made.config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        heun = "FlowMatchHeunDiscreteScheduler"
        fewstep.UniPC.from_config({**made.config, "_class_name": heun})


@every_class
def test_the_prior_of_unclip_is_solved_with_a_word(cls: type) -> None:
    """It predicts an embedding, as an ordinary diffusion model does."""
    config = diffusers.UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0).config
    with pytest.warns(UserWarning, match="solves the ODE of this prior, without clip_sample"):
        ours = cls.from_config(config)
    assert ours.process == discrete_vp("squaredcos_cap_v2")
    assert ours.config.prediction_type == "sample"


@every_class
def test_a_pipeline_that_was_saved_before_says_so(cls: type) -> None:
    """It loads, so that its scheduler can be replaced."""
    config = {**json.loads(cls(**SD).to_json_string()), "inherited_from": "LCMScheduler"}
    with pytest.warns(UserWarning, match="was made from that of LCMScheduler: its network is a"):
        ours = cls.from_config(config)
    ours.set_timesteps(4)


# --- trailing times -------------------------------------------------------------------------------

TRAILED = ("EulerDiscreteScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler",
           "CogVideoXDDIMScheduler", "EulerAncestralDiscreteScheduler")  # fmt: skip


@every_class
@pytest.mark.parametrize("name", TRAILED)
def test_trailing_times_of_a_config_are_kept(name: str, cls: type) -> None:
    """SDXL-Turbo, Lightning, CogVideoX: as diffusers' own class places them, in n calls."""
    for zero_snr in (False, True):
        more = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
        scheduler = peer(name, {**SD, "timestep_spacing": "trailing", **(more if zero_snr else {})})
        ours = cls.from_config(scheduler.config)
        for n in (1, 4, 7, 15):
            ours.set_timesteps(n)
            assert len(ours.timesteps) == n
            scheduler.set_timesteps(ours.grid.nfe)
            np.testing.assert_array_equal(ours.grid.time[:-1], scheduler.timesteps)
            assert ours.sigmas[-1] == 0
            assert "timestep_spacing is 'trailing'" in ours.grid_reason
            assert "grid='auto'" in ours.grid_reason


@every_class
def test_what_overrides_trailing_times(cls: type) -> None:
    config = diffusers.EulerDiscreteScheduler(**SD, timestep_spacing="trailing").config
    plain = cls.from_config(diffusers.EulerDiscreteScheduler(**SD).config)
    ours = cls.from_config(config, grid="auto")
    copies = [ours, cls.from_config(json.loads(ours.to_json_string())), ours.clone()]
    for scheduler in (plain, *copies):
        scheduler.set_timesteps(8)
        assert scheduler.plan == plain.plan
        assert scheduler.grid_reason.endswith("the automatic rule of " + cls.sampler)
    for keywords in ({"grid": "tan"}, {"use_karras_sigmas": True}, {"timestep_spacing": "leading"}):
        asked = cls.from_config(config, **keywords)
        asked.set_timesteps(8)
        assert "trailing" not in asked.grid_reason
    switched = cls.from_config(
        diffusers.EulerDiscreteScheduler(
            **SD, timestep_spacing="trailing", use_karras_sigmas=True
        ).config
    )
    switched.set_timesteps(8)
    assert switched.grid_reason == "use_karras_sigmas is set"


@every_class
def test_trailing_times_survive_saving_and_the_way_back(cls: type, tmp_path: Path) -> None:
    config = diffusers.EulerDiscreteScheduler(**SD, timestep_spacing="trailing").config
    ours = cls.from_config(config)
    ours.save_pretrained(tmp_path)
    back = diffusers.DDIMScheduler.from_config(ours.config)
    assert back.config.timestep_spacing == "trailing"
    ours.set_timesteps(6)
    for other in (cls.from_pretrained(tmp_path), ours.clone(), cls.from_config(back.config)):
        other.set_timesteps(6)
        assert other.plan == ours.plan


def test_a_flow_has_no_trailing_times() -> None:
    """diffusers' classes do not look at the spacing there either."""
    config = diffusers.UniPCMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", timestep_spacing="trailing"
    ).config
    ours = fewstep.UniPC.from_config(config)
    ours.set_timesteps(8)
    assert ours.grid_reason.endswith("the automatic rule of unipc")
