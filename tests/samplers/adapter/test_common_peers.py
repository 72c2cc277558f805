"""What diffusers' tests ask of every scheduler, asked of each of ours.

The properties are those of its ``SchedulerCommonTest`` (tests/schedulers/test_schedulers.py) and of
the sweeps that the tests of its classes make with it; the code is ours, and stricter: saved and
loaded schedulers agree bit for bit over whole loops, not to 1e-5 over one step. Left out:

===================================== ==============================================================
of diffusers                          because
===================================== ==============================================================
stored results (``full_loop``, sums)  numbers of its algorithms; test_parity.py runs them beside us
``model_outputs``, ``this_order``,    private history, injected to make one step of a multistep
``lower_order_nums``, ``ets``         method; whole loops build a true one
``_get_variance``                     private; the variances are tested in test_variance.py
duplicated or custom timesteps        test_schedulers.py and test_set_timesteps.py
``batch_step_no_noise``               a method of the two parallel classes only
switching classes, the Hub            test_common_switching.py, and no network
===================================== ==============================================================
"""

import inspect
import json
from itertools import product

import numpy as np
import pytest
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from helpers import scheduler_classes

from fewstep.samplers.adapter.settings import FIELDS

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
every_class = pytest.mark.parametrize("cls", scheduler_classes())


def cases(**choices) -> list[dict]:
    """Every combination of the arguments' values."""
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp")
SPACINGS = ("linspace", "leading", "trailing")
SWITCHES = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
V = {"prediction_type": ["v_prediction"], "rescale_betas_zero_snr": [True]}
FLOW = {"prediction_type": ["flow_prediction"], "use_flow_sigmas": [True], "flow_shift": (1.0, 3.0)}
SWEEP = {
    "betas": cases(beta_schedule=SCHEDULES),
    "range": cases(beta_start=(1e-5, 1e-3), beta_end=(0.002, 0.1)),
    "trained": cases(trained_betas=(np.array([0.1, 0.3]), [0.01] * 50)),
    "train": cases(num_train_timesteps=(25, 100, 500, 1000)),
    "prediction": cases(
        prediction_type=("epsilon", "sample", "v_prediction"), thresholding=(False, True),
        sample_max_value=(0.5, 2.0),
    ),
    "ratio": cases(thresholding=[True], dynamic_thresholding_ratio=(0.0, 0.9, 1.0)),
    "spacing": cases(timestep_spacing=SPACINGS, steps_offset=(0, 1), grid=("auto", "diffusers")),
    "zero-snr": cases(**V, timestep_spacing=SPACINGS),
    "flow": cases(**FLOW),
    **{name: cases(**{name: [True]}, final_sigmas_type=("zero", "sigma_min")) for name in SWITCHES},
    **{f"flow, {name}": cases(**FLOW, **{name: [True]}) for name in SWITCHES},
}  # fmt: skip
# Of options whose values cannot be told from their default.
CHOICES = {
    "solver_type": ("midpoint", "heun", "bh1", "bh2"), "variant": ("official", "exact"),
    "variable": ("t", "rho", "log_rho"), "mode": ("few_steps", "more_steps"),
    "evaluate": ("pec", "pece"), "solver": ("heun", "ddim"),
    "lower_order_final": (True, False), "disable_corrector": ([], [0, 1]),
}  # fmt: skip


def start() -> torch.Tensor:
    """4 x 3 x 8 x 8 values, not contiguous."""
    values = torch.arange(4 * 3 * 8 * 8) / (4 * 3 * 8 * 8)
    return values.reshape(3, 8, 8, 4).permute(3, 0, 1, 2)


def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return x * t / (t + 1)


@torch.no_grad()
def loop(scheduler, begin: int = 0) -> list[torch.Tensor]:
    """The sample after each step, noise drawn from one seed."""
    x, states, generator = start(), [], torch.Generator().manual_seed(0)
    for t in scheduler.timesteps[begin:]:
        output = network(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(output, t, x, generator=generator).prev_sample
        states.append(x)
    return states


def run(scheduler, n: int = 8) -> list[torch.Tensor]:
    scheduler.set_timesteps(n)
    return loop(scheduler)


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def reloaded(scheduler, folder):
    scheduler.save_pretrained(folder)
    return type(scheduler).from_pretrained(folder)


def own_options(cls) -> list[dict]:
    """Values of the options that only this class has, one option at a time."""
    cases = []
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        kinds = {int: (1, 2, 3), float: (0.0, 0.5, 1.0)}
        values = CHOICES.get(name, kinds.get(type(parameter.default), ()))
        cases += [{name: value} for value in values if name not in FIELDS and name != "self"]
    return cases


def finite_and_kept(scheduler, folder, n: int = 8) -> None:
    states = run(scheduler, n)
    assert [bool(state.isfinite().all()) for state in states] == [True] * n
    assert same(states, run(reloaded(scheduler, folder), n))


@pytest.mark.parametrize("group", SWEEP)
@every_class
def test_sweep(cls, group: str, tmp_path) -> None:
    for config in SWEEP[group]:
        finite_and_kept(cls(**config), tmp_path)


@every_class
def test_sweep_of_own_options(cls, tmp_path) -> None:
    for options in own_options(cls):
        scheduler, (name,) = cls(**options), options
        try:
            scheduler.set_timesteps(8)
        except ValueError as refusal:  # not every class has every order
            if name not in str(refusal):
                raise
        else:
            finite_and_kept(scheduler, tmp_path, 24)  # where Restart climbs


@pytest.mark.parametrize("n", [1, 2, 3, 5, 10, 50, 100, 999])
@every_class
def test_sweep_of_step_counts(cls, n: int, tmp_path) -> None:
    finite_and_kept(cls(), tmp_path, n)


@every_class
def test_public_api(cls) -> None:
    scheduler = cls()
    assert isinstance(scheduler, SchedulerMixin)
    assert isinstance(scheduler, ConfigMixin)
    for _ in range(2):  # before and after set_timesteps
        assert float(scheduler.init_noise_sigma) > 0
        assert scheduler.order == 1
        assert scheduler.timesteps.ndim == scheduler.sigmas.ndim == 1
        assert scheduler.alphas_cumprod.shape == scheduler.betas.shape == (1000,)
        assert scheduler.config.num_train_timesteps == len(scheduler) == 1000
        assert scheduler.config.get("num_train_timesteps") == 1000
        assert scheduler.step_index is scheduler.begin_index is None
        assert scheduler.scale_model_input(start(), 0.0).shape == start().shape
        scheduler.set_timesteps(5, device="cpu")
    assert scheduler.num_inference_steps == 5
    assert len(scheduler.sigmas) == 6


@every_class
def test_signatures_that_pipelines_inspect(cls) -> None:
    planned, stepped = (inspect.signature(f).parameters for f in (cls.set_timesteps, cls.step))
    assert {"timesteps", "sigmas", "mu", "device"} <= planned.keys()
    assert [*stepped][1:4] == ["model_output", "timestep", "sample"]
    assert {"generator", "return_dict"} <= stepped.keys()
    assert stepped["eta"].default == 0  # pipelines pass 0.0 to whoever names it
    arguments = inspect.signature(cls.__init__).parameters.values()
    # **kwargs would need a list of what is deprecated.
    assert all(p.kind is p.KEYWORD_ONLY for p in arguments if p.name != "self")


@every_class
def test_saved_config(cls, tmp_path) -> None:
    scheduler = cls(beta_end=0.03)
    loaded = reloaded(scheduler, tmp_path)
    saved = json.loads((tmp_path / "scheduler_config.json").read_text())
    arguments = {*inspect.signature(cls.__init__).parameters} - {"self"}
    # Unlike there, None is left out: most of its classes cannot run with it.
    nothing = {k for k in arguments - {"inherited_from"} if scheduler.config[k] is None}
    assert saved.keys() == arguments - nothing | {"_class_name", "_diffusers_version"}
    before, after = dict(scheduler.config), dict(loaded.config)
    before.pop("_use_default_values")
    assert all(after[key] is None for key in after.pop("_use_default_values"))
    assert before == after


@every_class
def test_unknown_attributes(cls) -> None:
    scheduler = cls()
    scheduler.mine = 5
    scheduler.register_to_config(registered=6)
    assert (scheduler.mine, scheduler.config.registered) == (5, 6)
    with pytest.warns(FutureWarning, match="registered"):
        assert scheduler.registered == 6
    with pytest.raises(AttributeError, match=f"'{cls.__name__}' object has no attribute 'nope'"):
        _ = scheduler.nope


@every_class
def test_outputs_as_tuple_and_as_object(cls) -> None:
    scheduler, x = cls(), start()
    for time in (0, 1, 777.5):  # not in the schedule
        results = []
        for return_dict in (True, False):
            scheduler.set_timesteps(10)
            generator = torch.Generator().manual_seed(0)
            results.append(scheduler.step(0.1 * x, time, x, generator, return_dict=return_dict)[0])
        assert torch.equal(*results)
        assert results[0].shape == x.shape


@every_class
def test_added_noise_depends_on_the_time_alone(cls) -> None:
    """Before set_timesteps (training), with a begin index, and after a step (inpainting)."""
    scheduler, noise = cls(), start().flip(0)
    planned = cls()
    planned.set_timesteps(10)
    times = planned.timesteps[5][None]
    expected = scheduler.add_noise(start(), noise, times)
    assert expected.shape == start().shape
    assert expected.device == start().device
    scheduler.set_timesteps(10)
    for act in (
        lambda: None,
        lambda: scheduler.set_begin_index(3),
        lambda: scheduler.step(noise, scheduler.timesteps[3], start()),
    ):
        act()
        assert torch.equal(scheduler.add_noise(start(), noise, times), expected)
        assert torch.equal(scheduler.scale_noise(start(), times, noise), expected)


@every_class
def test_loop_of_image_to_image(cls, tmp_path) -> None:
    """The entry is the begin index, or is found by where its time lies in memory."""
    scheduler = cls()
    scheduler.set_timesteps(10)
    scheduler.set_begin_index(6)
    states = loop(scheduler, 6)
    assert [bool(state.isfinite().all()) for state in states] == [True] * 4
    for other in (scheduler, reloaded(scheduler, tmp_path)):
        other.set_timesteps(10)
        assert same(states, loop(other, 6))
