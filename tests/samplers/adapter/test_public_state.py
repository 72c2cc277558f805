"""What a scheduler shows is what runs: assigned or written, it is honoured or refused aloud."""

import copy
import pickle

import diffusers
import numpy as np
import pytest
import torch
from helpers import CONFIGS, scheduler_classes

import fewstep
from fewstep.samplers.adapter import schedulers

LATENT = CONFIGS["vp-scaled"]
every_class = pytest.mark.parametrize("cls", scheduler_classes())
every_config = pytest.mark.parametrize("config", CONFIGS)


def ready(cls: type = schedulers.UniPC, n: int = 6, **config):
    scheduler = cls(**{**LATENT, **config})
    scheduler.set_timesteps(n)
    return scheduler


def walk(scheduler) -> torch.Tensor:
    x = torch.ones(2, 3)
    for t in scheduler.timesteps:
        x = scheduler.step(torch.tanh(x), t, x, return_dict=False)[0]
    return x


def write(tensor: torch.Tensor, value: float) -> None:
    tensor[1] = value


@pytest.mark.parametrize("name", ["timesteps", "sigmas"])
@pytest.mark.parametrize("inference", [False, True])
def test_levels_that_were_written_are_refused(name: str, inference: bool) -> None:
    """In place before the first step, and by assignment: with the call that takes them."""
    with torch.inference_mode(inference):
        scheduler = ready()
        write(getattr(scheduler, name), 0.7)
        with pytest.raises(ValueError, match=rf"scheduler\.{name} was written to: call set_times"):
            walk(scheduler)
    scheduler.set_timesteps(6)
    walk(scheduler)  # a new plan is as it should be
    with pytest.raises(ValueError, match=rf"{name} was assigned other values: call set_timesteps"):
        setattr(scheduler, name, getattr(scheduler, name) + 1)
    with pytest.raises(ValueError, match=r"assigned other values"):
        setattr(scheduler, name, [1.0, 2.0])


@pytest.mark.parametrize("name", ["timesteps", "sigmas"])
@pytest.mark.parametrize("how", [write, lambda t, v: write(t.numpy(), v),
                                 lambda t, v: write(t.data, v)])  # fmt: skip
def test_levels_that_were_written_in_mid_run_are_not_passed_over(name: str, how) -> None:
    scheduler, x = ready(), torch.ones(2, 3)
    times = iter(scheduler.timesteps)
    scheduler.step(x, next(times), x)
    how(getattr(scheduler, name), 0.7)
    for t in [next(times) for _ in range(4)]:
        x = scheduler.step(x, t, x).prev_sample
    with pytest.raises(ValueError, match=rf"scheduler\.{name} was written to"):
        scheduler.step(x, next(times), x)


def test_what_is_shown_follows_the_config() -> None:
    expected = schedulers.UniPC(**LATENT)
    for change in (lambda s: s.register_to_config(**LATENT),
                   lambda s: [setattr(s.config, k, v) for k, v in LATENT.items()]):  # fmt: skip
        scheduler = schedulers.UniPC()
        change(scheduler)
        for name in ("alphas_cumprod", "sigmas", "timesteps"):
            assert torch.equal(getattr(scheduler, name), getattr(expected, name))
    flow = schedulers.UniPC(**CONFIGS["flow"])
    flow.register_to_config(flow_shift=6.0)
    other = schedulers.UniPC(**{**CONFIGS["flow"], "flow_shift": 6.0})
    assert torch.equal(flow.sigmas, other.sigmas)


@pytest.mark.parametrize("name", ["alphas_cumprod", "alphas", "betas"])
@pytest.mark.parametrize("set_before", [False, True])
def test_tables_that_were_written_are_refused(name: str, set_before: bool) -> None:
    x = torch.ones(1, 3)
    uses = (lambda s: s.set_timesteps(4), lambda s: s.add_noise(x, x, torch.tensor([5])),
            lambda s: s.get_velocity(x, x, torch.tensor([5])))  # fmt: skip
    for use in uses:
        scheduler = schedulers.DDIM(**LATENT)
        if set_before:
            scheduler.set_timesteps(3)
        with pytest.raises(ValueError, match=r"assigned other values: .* trained_betas="):
            setattr(scheduler, name, getattr(scheduler, name) * 0.9)
        write(getattr(scheduler, name), 0.7)
        with pytest.raises(ValueError, match=rf"scheduler\.{name} was written to: .*trained_betas"):
            use(scheduler)


def test_the_remedy_for_tables_does_it() -> None:
    """Zero terminal SNR, as training scripts make it by hand (arXiv:2305.08891)."""
    plain = schedulers.DDIM(**LATENT, prediction_type="v_prediction")
    root = plain.alphas_cumprod.double().sqrt()
    table = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    betas = 1 - torch.cat([table[:1], table[1:] / table[:-1]])
    for options in ({"rescale_betas_zero_snr": True}, {"trained_betas": betas.tolist()}):
        scheduler = schedulers.DDIM.from_config(plain.config, **options)
        # The running product in float32 of a thousand factors.
        torch.testing.assert_close(scheduler.alphas_cumprod, table.float(), rtol=1e-4, atol=1e-7)
        ones, last = torch.ones(1, 1), torch.tensor([999])
        assert scheduler.add_noise(ones, 0 * ones, last).abs() < 1e-6
        scheduler.set_timesteps(4)
        assert scheduler.plan.evaluations[0].alpha == 0


def test_the_remedy_for_levels_does_it() -> None:
    times, levels = [900.0, 600.0, 300.0], [9.0, 3.0, 1.0]
    scheduler = ready()
    scheduler.set_timesteps(timesteps=times)
    assert scheduler.timesteps.tolist() == times
    scheduler.set_timesteps(sigmas=levels)
    assert scheduler.sigmas.tolist() == [*levels, 0.0]


def test_other_dtypes_are_no_other_values() -> None:
    """Dance diffusion casts the times; training scripts move the tables."""
    scheduler, plain = ready(), ready()
    scheduler.timesteps = scheduler.timesteps.to(torch.float64)
    assert torch.equal(walk(scheduler), walk(plain))
    scheduler.set_timesteps(6)
    scheduler.timesteps = scheduler.timesteps.to(torch.bfloat16)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(torch.float64)
    walk(scheduler)
    assert scheduler.step_index == 6
    scheduler.set_timesteps(6)
    scheduler.timesteps = scheduler.timesteps.half()
    scheduler.set_begin_index(0)
    with pytest.raises(ValueError, match="entry 2 of timesteps, expected entry 0"):
        scheduler.step(torch.ones(1), scheduler.timesteps[2], torch.ones(1))


@pytest.mark.parametrize("how", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_are_not_taken_for_written(how) -> None:
    scheduler = how(ready())
    walk(scheduler)
    scheduler.set_timesteps(3)
    write(scheduler.sigmas, 0.7)
    with pytest.raises(ValueError, match=r"sigmas was written to"):
        walk(how(scheduler))


@every_config
@every_class
def test_a_level_for_each_time_from_construction_on(cls, config: str) -> None:
    """As training scripts index them: sigma of flows, else sigma / alpha, at the time beside it."""
    scheduler = copy.deepcopy(cls(**CONFIGS[config]))
    assert len(scheduler.sigmas) == len(scheduler.timesteps) == len(scheduler)
    alpha, sigma = scheduler.process.alpha_sigma(scheduler.timesteps.numpy())
    with np.errstate(divide="ignore"):
        expected = sigma if config == "flow" else sigma / alpha
    # Times in float32, of which the ratio at the noisy end is steep.
    np.testing.assert_allclose(scheduler.sigmas, expected, rtol=2e-3)
    assert torch.all(scheduler.timesteps[1:] < scheduler.timesteps[:-1])
    scheduler.set_timesteps(5)
    assert len(scheduler.sigmas) == len(scheduler.timesteps) + 1


@pytest.mark.parametrize(
    "options",
    [{}, {"shift": 3.0}, {"use_dynamic_shifting": True}, {"num_train_timesteps": 50, "shift": 2.0}],
    ids=str,
)
def test_training_levels_of_flows_are_those_of_diffusers(options: dict) -> None:
    peer = diffusers.FlowMatchEulerDiscreteScheduler(**options)
    ours = fewstep.Euler.from_config(peer.config)
    torch.testing.assert_close(ours.timesteps, peer.timesteps)
    torch.testing.assert_close(ours.sigmas, peer.sigmas)


@pytest.mark.parametrize("options", [LATENT, {**LATENT, "rescale_betas_zero_snr": True}], ids=len)
def test_velocity_is_that_of_diffusers(options: dict) -> None:
    peer = diffusers.DDIMScheduler(**options, prediction_type="v_prediction")
    ours = fewstep.UniPC.from_config(peer.config)
    x, noise = torch.randn(2, 5, 3, 2, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([0, 1, 500, 998, 999])
    # Theirs is a product of a thousand float32 factors.
    torch.testing.assert_close(
        ours.get_velocity(x, noise, times), peer.get_velocity(x, noise, times), rtol=1e-3, atol=1e-3
    )
    assert ours.get_velocity(x.half(), noise.half(), times).dtype == torch.float16


def test_velocity_of_the_other_processes() -> None:
    x, noise = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    flow = fewstep.UniPC(**CONFIGS["flow"])
    assert torch.equal(flow.get_velocity(x, noise, torch.tensor([1, 2, 3, 4])), noise - x)
    with pytest.raises(ValueError, match="variance exploding process has no velocity"):
        fewstep.UniPC(**CONFIGS["edm"]).get_velocity(x, noise, torch.tensor([0.1]))


@every_class
def test_the_shift_of_a_flow_can_be_set(cls) -> None:
    expected = cls(**{**CONFIGS["flow"], "flow_shift": 5.0})
    expected.set_timesteps(4)
    for change in (lambda s: s.set_shift(5.0), lambda s: setattr(s, "shift", 5.0)):
        scheduler = cls(**CONFIGS["flow"])
        assert scheduler.shift == 3
        scheduler.set_timesteps(4)
        change(scheduler)
        scheduler.set_timesteps(4)
        assert scheduler.shift == scheduler.config.flow_shift == scheduler.config.shift == 5
        assert torch.equal(scheduler.sigmas, expected.sigmas)
        assert torch.equal(cls(**{**CONFIGS["flow"], "flow_shift": 5.0}).sigmas,
                           cls.from_config(scheduler.config).sigmas)  # fmt: skip
    for wrong in (0, -1.0):
        with pytest.raises(ValueError, match="must be > 0"):
            scheduler.set_shift(wrong)


def test_both_names_of_the_shift_are_one_setting() -> None:
    base = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).config
    for change in (lambda s: s.register_to_config(shift=6.0),
                   lambda s: setattr(s.config, "shift", 6.0),
                   lambda s: setattr(s.config, "flow_shift", 6.0)):  # fmt: skip
        scheduler = fewstep.UniPC.from_config(base)
        change(scheduler)
        assert scheduler.shift == 6
    ours = fewstep.UniPC.from_config(base)
    with pytest.warns(UserWarning, match="flow_shift=3 of this config counts and shift=6 does not"):
        assert fewstep.UniPC.from_config({**ours.config, "shift": 6.0}).shift == 3
    assert fewstep.UniPC.from_config({**ours.config, "shift": 6.0, "flow_shift": 6.0}).shift == 6


def test_other_processes_have_no_shift() -> None:
    scheduler = schedulers.UniPC(**LATENT)
    assert not hasattr(scheduler, "shift")
    for change in (lambda: scheduler.set_shift(2.0), lambda: setattr(scheduler, "shift", 2.0)):
        with pytest.raises(ValueError, match="only flows have a shift"):
            change()


def test_what_a_process_does_not_have() -> None:
    flow = fewstep.UniPC(**CONFIGS["flow"])
    for scheduler in (flow, fewstep.UniPC(**CONFIGS["edm"])):
        assert not hasattr(scheduler, "alphas_cumprod")
        with pytest.raises(AttributeError, match="alphas_cumprod"):
            scheduler.alphas_cumprod = torch.ones(3)
