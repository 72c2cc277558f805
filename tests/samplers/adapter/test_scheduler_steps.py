"""One step of a scheduler: its outputs, copies of it in mid-run, threads, and no NaN anywhere."""

import copy
import math
import pickle
from concurrent.futures import ThreadPoolExecutor

import diffusers
import numpy as np
import pytest
import torch
from helpers import CONFIGS, drive, scheduler_classes
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.samplers.adapter import schedulers
from fewstep.samplers.adapter.output import StepOutput
from fewstep.schedules import GRIDS

CLASSES = scheduler_classes()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape or (2, 3, 4, 4), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("cls", CLASSES)
def test_output_forms(cls) -> None:
    scheduler = cls(prediction_type="sample")
    for return_dict in (False, True):
        scheduler.set_timesteps(4)
        x, output = noise(), noise(seed=1)
        result = scheduler.step(output, scheduler.timesteps[0], x, return_dict=return_dict)
        assert isinstance(result, StepOutput if return_dict else tuple)
        assert len(result) == 2
        previous, data = result if not return_dict else result.to_tuple()
        assert previous is result[0]
        assert previous.shape == x.shape
        # The networks of these classes predict data.
        torch.testing.assert_close(data, output)
        torch.testing.assert_close(result[1], result[-1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_is_that_of_the_output(dtype) -> None:
    scheduler = schedulers.UniPC()
    scheduler.set_timesteps(3)
    x = scheduler.step(noise().to(dtype), scheduler.timesteps[0], noise(), return_dict=False)[0]
    assert x.dtype == dtype


def test_thresholding_is_that_of_imagen() -> None:
    """arXiv:2205.11487, section 2.3: per sample, clip to its own quantile and divide by it."""
    output = noise(3, 1, 8, 8) * torch.tensor([0.2, 2.0, 6.0]).view(3, 1, 1, 1)
    for cap, largest in ((1.0, math.inf), (3.0, 3.0)):
        scheduler = schedulers.DDIM(
            prediction_type="sample", thresholding=True, dynamic_thresholding_ratio=0.9,
            sample_max_value=cap,
        )  # fmt: skip
        scheduler.set_timesteps(5)
        result = scheduler.step(output, scheduler.timesteps[0], noise(3, 1, 8, 8))
        for data, row in zip(result.pred_original_sample, output, strict=True):
            s = min(max(float(np.quantile(row.abs().numpy(), 0.9)), 1.0), largest)
            torch.testing.assert_close(data, row.clamp(-s, s) / s)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("how", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
@pytest.mark.parametrize("thresholding", [False, True])
def test_copies_in_mid_run_go_on_alike(cls, how, thresholding: bool) -> None:
    scheduler = cls(thresholding=thresholding)
    scheduler.set_timesteps(8)
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    x = noise()
    with torch.no_grad():
        for t in scheduler.timesteps[:5]:
            x = scheduler.step(torch.tanh(x), t, x, generators[0], return_dict=False)[0]
        generators[1].set_state(generators[0].get_state())
        runs = []
        for one, generator in zip((scheduler, how(scheduler)), generators, strict=True):
            y = x.clone() if one is not scheduler else x
            for t in one.timesteps[5:]:
                y = one.step(torch.tanh(y), t, y, generator, return_dict=False)[0]
            runs.append(y)
    torch.testing.assert_close(*runs, rtol=1e-5, atol=1e-6)


def test_clones_run_in_threads() -> None:
    scheduler = schedulers.UniPC(order=2)
    starts = [noise(seed=seed) for seed in range(8)]
    alone = [drive(scheduler.clone(), x, 12) for x in starts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: drive(scheduler.clone(), x, 12), starts))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert scheduler.step_index is None


PREDICTIONS = ["epsilon", "sample", "v_prediction"]


@settings(max_examples=300, deadline=None)
@given(
    cls=st.sampled_from(CLASSES), config=st.sampled_from(sorted(CONFIGS)),
    grid=st.sampled_from(["auto", "diffusers", *GRIDS]), kind=st.sampled_from(PREDICTIONS),
    n=st.integers(1, 40), final=st.sampled_from([None, "zero", "sigma_min"]),
)  # fmt: skip
def test_nothing_is_ever_nan(cls, config: str, grid: str, kind: str, n: int, final) -> None:
    base = CONFIGS[config]
    kind = {"flow": "flow_prediction", "vp-zero-snr": "v_prediction"}.get(config, kind)
    kind = "epsilon" if config == "edm" and kind == "sample" else kind
    scheduler = cls(**{**base, "grid": grid, "final": final, "prediction_type": kind})
    result = drive(scheduler, noise(1, 1, 3, 3), n, generator=torch.Generator())
    assert result.isfinite().all()
    assert len(scheduler.timesteps) == n


@pytest.mark.parametrize("cls", CLASSES)
def test_epsilon_without_signal_is_refused(cls) -> None:
    scheduler = cls(rescale_betas_zero_snr=True)
    with pytest.raises(ValueError, match="trained with prediction_type='v_prediction'"):
        scheduler.set_timesteps(5)


@pytest.mark.parametrize("kind", ["learned", "learned_range"])
def test_channels_of_a_learned_variance_are_left_out(kind: str) -> None:
    """DeepFloyd IF hands over what its network returns: three channels of epsilon, three more."""
    runs = []
    for width in (3, 6):
        scheduler = schedulers.UniPC.from_config(diffusers.DDPMScheduler(variance_type=kind).config)
        runs.append(drive(scheduler, noise(2, 3, 4, 4), 6, lambda x, t, width=width:
                          torch.cat([torch.tanh(x), x], 1)[:, :width]))  # fmt: skip
    assert torch.equal(*runs)


def test_what_is_no_entry_is_refused() -> None:
    scheduler = schedulers.UniPC()
    scheduler.set_timesteps(4)
    for index in (-1, 4):
        with pytest.raises(ValueError, match=r"begin_index must lie in 0 \.\. 3"):
            scheduler.set_begin_index(index)
    with pytest.raises(ValueError, match="one entry of timesteps for the whole batch, got 2"):
        scheduler.step(noise(), torch.tensor([3, 4]), noise())
