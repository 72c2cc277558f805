"""What ``sample`` is given: whatever is wrong is said in one line that names the argument."""

import inspect
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import nn

import fewstep
from fewstep.eval.problems import load_problem
from fewstep.guidance import CFG, FKSteering, Interval, attach, guide
from fewstep.models import CallableDenoiser, DiffusersDenoiser, EDMDenoiser, MixtureDenoiser
from fewstep.samplers import build_plan, sample
from fewstep.samplers.tuning.compensation_search import fit_compensation
from fewstep.schedules import VE, Flow, discrete_vp

PROCESS = discrete_vp("linear")
SHAPE = (1, 4, 4)
MIXTURE = MixtureDenoiser(
    PROCESS, torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0)), 0.3,
    labels=torch.arange(4),
)  # fmt: skip
NOISE = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 3, 1])
GOOD: dict[str, Any] = {"denoiser": MIXTURE, "sampler": "ddim", "nfe": 3, "noise": NOISE}


class Net(nn.Module):
    def forward(self, x: torch.Tensor, sigma: torch.Tensor, labels: Any = None) -> torch.Tensor:
        return 0.5 * x


# Of each argument: values that are wrong, beside good ones of all others.
WRONG: dict[str, list[Any]] = {
    "denoiser": [
        None, lambda x, t: x, Net(), "mix8", MixtureDenoiser, load_problem("mix8"), 3, PROCESS,
        diffusers.UNet2DModel(sample_size=8, block_out_channels=(8, 8), norm_num_groups=4,
                              down_block_types=("DownBlock2D",) * 2,
                              up_block_types=("UpBlock2D",) * 2),
    ],
    "sampler": [None, 3, 2.5, True, ["ddim"], fewstep.DDIM, diffusers.DDIMScheduler(), {}, b"ddim"],
    "nfe": [None, 0, -1, 2.5, "8", True, 3.0, float("nan"), [3], 1e300, torch.ones(2)],
    "noise": [
        NOISE.numpy(), NOISE * torch.nan, NOISE / 0, NOISE.long(), NOISE.bool(), NOISE[0, 0, 0, 0],
        NOISE[:0], "x", 3, NOISE.tolist(), NOISE.to("meta"), NOISE.to(torch.complex64),
        NOISE.to_sparse(),
    ],
    "shape": [
        (2, *SHAPE), (3, 1, 4, 5), (3,), (), 3, "x", (-3, *SHAPE), (0, *SHAPE), (3.0, *SHAPE),
        (True, *SHAPE), (3, "a"), {3}, float("nan"),
    ],
    "cond": [
        1, "a", True, 2.5, [0, 3, 1], (0, 3, 1), LABELS.numpy(), LABELS[:2], LABELS[:1], LABELS[0],
        LABELS.float(), LABELS > 0, LABELS + 96, LABELS - 1, torch.tensor([0, 5, 1]), {},
        torch.zeros(0, dtype=torch.long),
    ],
    "guidance": [
        3, True, CFG, [CFG(2)], Interval(0.2, 2), FKSteering(lambda x: x), "", "cfg", "nope:2",
        "cfg:nan", "cfg:2|", "gfcg:2", "interval:0.2,2", {},
    ],
    "hooks": [None, CFG(2), [CFG(2)], "x", 3, [None], [FKSteering], FKSteering(lambda x: x), {}],
    "seeds": [5, True, "012", [1, 2], range(4), [0.0, 1.0, 2.0], ["a", "b", "c"], {0, 1, 2}, 2.5,
              [True, False, True], np.ones(3), torch.ones(3), torch.tensor(5), iter([1, 2, 3])],
    "device": ["abacus", "cuda:99", True, torch.float32, [], "meta", 2.5],
    "dtype": [torch.int64, "float32", 3, torch.complex64, np.float32, float, torch.bool],
    "callback": [3, "x", lambda x: x, [print]],
    "differentiable": ["yes", 3, None, []],
}  # fmt: skip
# What a message calls an argument, where it is not by its name.
ALSO = {
    "shape": ("noise", "x has the shape"), "nfe": ("a sampler needs",), "hooks": ("FKSteering",),
    "guidance": ("cfg", "gfcg", "CFG", "Interval", "hooks="),
}  # fmt: skip
CASES = [(name, i) for name, values in WRONG.items() for i in range(len(values))]


def test_every_argument_is_tried() -> None:
    assert WRONG.keys() == inspect.signature(sample).parameters.keys()


@pytest.mark.parametrize(("name", "i"), CASES, ids=[f"{name}-{i}" for name, i in CASES])
def test_every_wrong_value_is_one_line(name: str, i: int) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        sample(**{**GOOD, name: WRONG[name][i]})
    line = str(caught.value)
    assert "\n" not in line
    assert any(word in line for word in (name, *ALSO.get(name, ())))
    # It was looked at before the model was called, and by us.
    assert not any(entry.name == "denoise" for entry in caught.traceback)


@pytest.mark.parametrize("shape", [(2, *SHAPE), (3, 1, 4, 5), (3,)])
def test_a_mixture_knows_the_shape_of_its_samples(shape: tuple[int, ...]) -> None:
    if shape == (2, *SHAPE):
        assert sample(MIXTURE, "ddim", 3, shape=shape).shape == shape
        return
    with pytest.raises(ValueError, match=r"x has the shape .*, and samples of this mixture \(n, 1"):
        sample(MIXTURE, "ddim", 3, shape=shape)


def test_what_is_right_is_taken_in_every_form() -> None:
    """One result, whatever form numbers and labels come in."""
    usual = sample(MIXTURE, "ddim", 3, shape=NOISE.shape, cond=LABELS, seeds=[5, 6, 7])
    forms: list[dict[str, Any]] = [
        {"nfe": np.int64(3)}, {"nfe": torch.tensor(3)}, {"shape": list(NOISE.shape)},
        {"shape": np.array(NOISE.shape)}, {"seeds": range(5, 8)}, {"seeds": np.arange(5, 8)},
        {"seeds": torch.arange(5, 8)}, {"cond": LABELS.int()}, {"guidance": "none"},
        {"guidance": None}, {"device": torch.device("cpu")}, {"dtype": torch.float32},
        {"hooks": []}, {"sampler": build_plan("ddim", PROCESS, 3)},
    ]  # fmt: skip
    given = {"denoiser": MIXTURE, "sampler": "ddim", "nfe": 3, "shape": tuple(NOISE.shape),
             "cond": LABELS, "seeds": (5, 6, 7)}  # fmt: skip
    for form in forms:
        assert torch.equal(sample(**{**given, **form}), usual)
    noise = sample(MIXTURE, "ddim", 3, noise=NOISE)
    assert torch.equal(sample(MIXTURE, "ddim", 3, noise=NOISE, shape=NOISE.shape), noise)


def test_the_null_label_of_a_model_is_one_of_its_labels() -> None:
    free = sample(MIXTURE, "ddim", 3, noise=NOISE)
    null = sample(MIXTURE, "ddim", 3, noise=NOISE, cond=torch.full((3,), MIXTURE.num_classes))
    torch.testing.assert_close(null, free)
    edm = EDMDenoiser(Net(), VE(), null_class=7, num_classes=3)
    sample(edm, "ddim", 2, noise=NOISE, cond=torch.tensor([0, 2, 7]))
    for label in (3, 6, 8, -1):
        with pytest.raises(ValueError, match=rf"class labels in 0 .. 2, got {label}"):
            sample(edm, "ddim", 2, noise=NOISE, cond=torch.tensor([0, 2, label]))


def test_written_guidance_is_that_of_the_command_line() -> None:
    text = "(icg:1.4|interval:0.28,2.9)+cfg:1.5"
    made = fewstep.guidance.parse_guidance(text)
    one, other = (sample(**GOOD, cond=LABELS, guidance=guidance) for guidance in (text, made))
    assert torch.equal(one, other)
    guided = guide(MIXTURE, "cfg:2")
    assert torch.equal(
        sample(guided, "ddim", 3, noise=NOISE, cond=LABELS),
        sample(**GOOD, cond=LABELS, guidance=CFG(2)),
    )
    for front in (lambda text: guide(MIXTURE, text), lambda text: attach(_pipe(), text)):
        for wrong in ("cfg", "none", 3, None, CFG):
            with pytest.raises((ValueError, TypeError), match=r"^(?!.*\n).*(guidance|cfg)"):
                front(wrong)


def _pipe() -> Any:
    unet = diffusers.UNet2DModel(sample_size=8, block_out_channels=(8, 8), norm_num_groups=4,
                                 num_class_embeds=3, down_block_types=("DownBlock2D",) * 2,
                                 up_block_types=("UpBlock2D",) * 2)  # fmt: skip
    return diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler())


def test_a_plan_brings_its_number_of_calls(tmp_path: Path) -> None:
    path = tmp_path / "m5.json"
    plan = build_plan("unipc", PROCESS, 5)
    plan.save(path)
    usual = sample(MIXTURE, "unipc", 5, noise=NOISE)
    for sampler in (plan, path, str(path)):
        assert torch.equal(sample(MIXTURE, sampler, noise=NOISE), usual)
        with pytest.raises(ValueError, match=r"makes 5 calls, not 8: leave nfe out, or make it 5"):
            sample(MIXTURE, sampler, 8, noise=NOISE)
    with pytest.raises(ValueError, match="the spec 'unipc' needs nfe, a number of calls such as 8"):
        sample(MIXTURE, "unipc", noise=NOISE)
    with pytest.raises(ValueError, match="nfe, the number of network calls, is needed with a DDIM"):
        sample(MIXTURE, fewstep.DDIM(), noise=NOISE)
    with pytest.raises(ValueError, match=r"m5\.json: the plan 'unipc' was made for another noise"):
        sample(EDMDenoiser(Net(), Flow()), path, noise=NOISE)


def test_noise_beside_its_network() -> None:
    net = nn.Linear(4, 4, device="meta")
    denoiser = CallableDenoiser(net, PROCESS)
    with pytest.raises(ValueError, match=r"noise is on the device cpu and .* on meta: pass"):
        sample(denoiser, "ddim", 2, noise=NOISE)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"nfe": 2.5}, "nfe, the number of network calls, must be a whole number"),
     ({"noises": NOISE.numpy()}, r"noises must be a torch tensor .* torch.from_numpy\(noises\)"),
     ({"noises": NOISE * torch.nan}, "noises must be finite"),
     ({"denoiser": Net()}, "denoiser must be called"), ({"cond": [1, 2, 3]}, "cond must be"),
     ({"guidance": 3}, "guidance is made of sources"), ({"sweeps": "2"}, "sweeps must be"),
     ({"sampler": None}, "a sampler is named by a text")],
)  # fmt: skip
def test_fitting_ratios_looks_too(wrong: dict[str, Any], message: str) -> None:
    given = {"denoiser": MIXTURE, "noises": NOISE, "nfe": 3, "progress": False, **wrong}
    with pytest.raises((ValueError, TypeError), match=message):
        fit_compensation(**given)


def test_ratios_are_fitted_under_written_guidance() -> None:
    found = [
        fit_compensation(MIXTURE, NOISE, 3, guidance=guidance, cond=LABELS, sweeps=0,
                         progress=False)
        for guidance in ("cfg:2", CFG(2))
    ]  # fmt: skip
    assert found[0] == found[1]


# What a user's network gets, and what it must return.


class Odd(nn.Module):
    """Returns what it is told to."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def forward(self, sample: torch.Tensor, timestep: Any, class_labels: Any = None) -> Any:
        return self.make(sample)


OUTPUTS = {
    "nothing": (lambda x: None, r"Odd returned None for x of shape \(3, 1, 4, 4\)"),
    "a tuple": (lambda x: (None, x), r"Odd returned (None|a tuple of None, \(3, 1, 4, 4\)) for x"),
    "a dict": (lambda x: {"out": x}, "Odd returned a dict of out for x"),
    "an array": (lambda x: x.numpy(), "Odd returned a ndarray for x"),
    "another shape": (lambda x: x[:, :, :2], r"returned the shape \(3, 1, 2, 4\) for x of shape"),
    "a row": (lambda x: x[:1], r"returned the shape \(1, 1, 4, 4\) for x of shape \(3, 1, 4, 4\)"),
    "a number": (lambda x: x.mean(), r"returned the shape \(\) for x of shape \(3, 1, 4, 4\)"),
    "whole numbers": (lambda x: x.long(), "returned torch.int64 for x of torch.float32"),
}  # fmt: skip


@pytest.mark.parametrize("adapter", [EDMDenoiser, CallableDenoiser, DiffusersDenoiser])
@pytest.mark.parametrize("output", OUTPUTS)
def test_outputs_of_another_kind_are_named(output: str, adapter: Any) -> None:
    make, message = OUTPUTS[output]
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        sample(adapter(Odd(make), PROCESS), "ddim", 2, noise=NOISE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_denoiser_by_hand_is_looked_at_too(output: str) -> None:
    class Own:
        process = PROCESS

        def __call__(self, x: torch.Tensor, level: Any, cond: Any = None) -> Any:
            return OUTPUTS[output][0](x)

    with pytest.raises((ValueError, TypeError), match="the denoiser returned"):
        sample(Own(), "ddim", 2, noise=NOISE)


def test_networks_that_take_no_labels_or_need_them() -> None:
    none = EDMDenoiser(lambda x, sigma: x, PROCESS)
    message = (
        r"<lambda> cannot be called as net\(x, sigma, labels\): too many positional .* "
        r"It was given \(3, 1, 4, 4\), \(3,\), None"
    )
    with pytest.raises(TypeError, match=message):
        sample(none, "ddim", 2, noise=NOISE)
    plain = CallableDenoiser(lambda x, t: x, PROCESS)
    with pytest.raises(TypeError, match=r"cannot be called as fn\(x, time, cond\): too many"):
        sample(plain, "ddim", 2, noise=NOISE, cond=LABELS)
    needy = CallableDenoiser(lambda x, t, labels: x, PROCESS)
    with pytest.raises(TypeError, match=r"as fn\(x, time\): missing .* 'labels'"):
        sample(needy, "ddim", 2, noise=NOISE)
    embedding = nn.Embedding(3, 1)
    inside = EDMDenoiser(lambda x, s, labels: x * embedding(labels)[:, :, None, None], PROCESS)
    with pytest.raises(TypeError) as caught:  # torch's own, with what it was given
        sample(inside, "ddim", 2, noise=NOISE)
    assert caught.value.__notes__ == [
        "fewstep called <lambda> as net(x, sigma, labels) with (3, 1, 4, 4), (3,), None"
    ]
