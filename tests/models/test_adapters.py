"""Adapters: every prediction type and every kind of network gives the same data prediction."""

from typing import Any, get_args

import diffusers
import pytest
import torch
from torch import Tensor, nn

from fewstep.models.adapters import (
    CallableDenoiser,
    DiffusersDenoiser,
    EDMDenoiser,
    PredictionType,
    to_data,
)
from fewstep.models.exact import GaussianDenoiser, MixtureDenoiser
from fewstep.models.ode import level_at, reference_solution
from fewstep.schedules import VE, Flow, NoiseProcess, discrete_vp
from fewstep.types import Level

VP = discrete_vp("linear")
TYPES: tuple[PredictionType, ...] = get_args(PredictionType)


def network_output(kind: str, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
    return {
        "epsilon": eps,
        "sample": x0,
        "v_prediction": level.alpha * eps - level.sigma * x0,
        "flow_prediction": eps - x0,
    }[kind]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("process", [VP, VE(), Flow()], ids=lambda p: type(p).__name__)
def test_to_data_recovers_the_data(kind: PredictionType, process: NoiseProcess) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    for rho in (0.05, 1.0, 20.0):
        level = level_at(process, rho)
        x = level.alpha * x0 + level.sigma * eps
        got = to_data(network_output(kind, x0, eps, level), x, level, kind)
        torch.testing.assert_close(got, x0, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["sample", "v_prediction", "flow_prediction"])
def test_to_data_without_signal(kind: PredictionType) -> None:
    x0, eps, level = torch.tensor([2.0]), torch.tensor([3.0]), Level(999.0, 0.0, 1.0)
    assert to_data(network_output(kind, x0, eps, level), eps, level, kind) == x0


def test_epsilon_without_signal_names_the_remedy() -> None:
    x = torch.ones(1)
    with pytest.raises(ValueError, match="v_prediction"):
        to_data(x, x, Level(999.0, 0.0, 1.0), "epsilon")
    with pytest.raises(ValueError, match="unknown prediction_type 'noise'"):
        to_data(x, x, Level(0.0, 1.0, 1.0), "noise")  # type: ignore[arg-type]


def small_unet(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=options.pop("out_channels", 3),
        block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
        **options,
    ).eval()  # fmt: skip


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(5))
LEVEL = level_at(VP, 1.5)
TIMES = torch.full((2,), LEVEL.time)


@torch.no_grad()
def test_unconditional_unet_and_learned_variance() -> None:
    for channels in (3, 6):
        net = small_unet(out_channels=channels)
        expected = (X - LEVEL.sigma * net(X, TIMES).sample[:, :3]) / LEVEL.alpha
        torch.testing.assert_close(DiffusersDenoiser(net, VP)(X, LEVEL), expected)


@torch.no_grad()
def test_class_labels_as_tensor_dict_and_null() -> None:
    net = small_unet(num_class_embeds=11)
    denoiser = DiffusersDenoiser(net, VP, uncond=torch.tensor(10))
    labels = torch.tensor([3, 4])
    expected = (X - LEVEL.sigma * net(X, TIMES, class_labels=labels).sample) / LEVEL.alpha
    torch.testing.assert_close(denoiser(X, LEVEL, labels), expected)
    torch.testing.assert_close(denoiser(X, LEVEL, {"class_labels": labels}), expected)
    null = torch.tensor([10, 10])
    assert torch.equal(denoiser.null_cond(labels), null)
    without = (X - LEVEL.sigma * net(X, TIMES, class_labels=null).sample) / LEVEL.alpha
    torch.testing.assert_close(denoiser(X, LEVEL), without)
    assert not torch.allclose(without, expected)


@torch.no_grad()
def test_text_conditioned_unet() -> None:
    torch.manual_seed(0)
    net = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 16),
        norm_num_groups=4, layers_per_block=1, cross_attention_dim=12, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()  # fmt: skip
    text, empty = torch.randn(2, 5, 12), torch.zeros(1, 5, 12)
    denoiser = DiffusersDenoiser(net, VP, prediction_type="v_prediction", uncond=empty)
    v = net(X, TIMES, encoder_hidden_states=text).sample
    torch.testing.assert_close(denoiser(X, LEVEL, text), LEVEL.alpha * X - LEVEL.sigma * v)
    v = net(X, TIMES, encoder_hidden_states=empty.expand(2, -1, -1)).sample
    torch.testing.assert_close(denoiser(X, LEVEL), LEVEL.alpha * X - LEVEL.sigma * v)


@torch.no_grad()
def test_dit_with_learned_variance() -> None:
    torch.manual_seed(0)
    net = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=3, out_channels=6, num_layers=1,
        norm_num_groups=1, sample_size=8, patch_size=2, num_embeds_ada_norm=10,
    ).eval()  # fmt: skip
    labels = torch.tensor([1, 7])
    eps = net(X, timestep=TIMES, class_labels=labels).sample[:, :3]
    got = DiffusersDenoiser(net, VP)(X, LEVEL, labels)
    torch.testing.assert_close(got, (X - LEVEL.sigma * eps) / LEVEL.alpha)


@torch.no_grad()
def test_flow_transformer_with_a_dict_condition() -> None:
    torch.manual_seed(0)
    net = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=3, num_layers=1, attention_head_dim=4,
        num_attention_heads=2, joint_attention_dim=6, caption_projection_dim=8,
        pooled_projection_dim=5, out_channels=3, pos_embed_max_size=8,
    ).eval()  # fmt: skip
    cond = {"encoder_hidden_states": torch.randn(2, 4, 6), "pooled_projections": torch.randn(2, 5)}
    level = level_at(Flow(), 2.0)
    denoiser = DiffusersDenoiser(net, Flow(), prediction_type="flow_prediction")
    v = net(hidden_states=X, timestep=torch.full((2,), level.time), **cond).sample
    torch.testing.assert_close(denoiser(X, level, cond), X - level.sigma * v)


def test_network_sees_its_own_dtype_and_a_time_that_is_not_rounded() -> None:
    seen: dict[str, Tensor] = {}

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))

        def forward(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor]:
            seen.update(sample=sample, timestep=timestep)
            return (sample,)

    out = DiffusersDenoiser(Spy(), VP, time_scale=0.5)(X, Level(999.0, 0.5, 0.8))
    assert seen["sample"].dtype == torch.bfloat16
    assert seen["timestep"].tolist() == [499.5, 499.5]
    assert out.dtype == X.dtype


def test_unknown_signatures_are_errors() -> None:
    def strange(image: Tensor, when: Tensor) -> Tensor:
        return image

    with pytest.raises(ValueError, match="found image, when"):
        DiffusersDenoiser(strange, VP)

    def unnamed(sample: Tensor, timestep: Tensor) -> Tensor:
        return sample

    with pytest.raises(ValueError, match="cond_key"):
        DiffusersDenoiser(unnamed, VP)(X, LEVEL, torch.tensor([1, 2]))


@pytest.mark.parametrize("process", [VP, VE(), Flow()], ids=lambda p: type(p).__name__)
def test_edm_network_serves_every_process(process: NoiseProcess) -> None:
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.5]])
    on_ve = MixtureDenoiser(VE(), means, 0.3)

    def net(x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        return on_ve(x, Level(0.0, 1.0, float(sigma[0])))

    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for rho in (0.1, 1.0, 30.0):
        level = level_at(process, rho)
        expected = MixtureDenoiser(process, means, 0.3)(x, level)
        got = EDMDenoiser(net, process)(x, level)
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match="alpha = 0"):
        EDMDenoiser(net, process)(x, Level(1000.0, 0.0, 1.0))


def test_edm_null_condition() -> None:
    labels, one_hot = torch.tensor([1, 2]), torch.eye(3)
    denoiser = EDMDenoiser(lambda x, sigma, cond: x, VE(), null_class=10)
    for cond, null in ((labels, torch.tensor([10, 10])), (one_hot, torch.zeros(3, 3))):
        assert torch.equal(denoiser.null_cond(cond), null)  # type: ignore[arg-type]
    assert EDMDenoiser(lambda x, sigma, cond: x, VE()).null_cond(labels) is None


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("passes", ["time", "level"])
def test_callable_of_every_kind(kind: PredictionType, passes: Any) -> None:
    exact = GaussianDenoiser(VP, 0.2, 0.5)

    def fn(x: Tensor, where: Any) -> Tensor:
        level = where if passes == "level" else level_at(VP, float(VP.rho(float(where[0]))))
        x0 = exact(x, level)
        return network_output(kind, x0, (x - level.alpha * x0) / level.sigma, level)

    x = X.double()
    got = CallableDenoiser(fn, VP, prediction_type=kind, passes=passes)(x, LEVEL)
    torch.testing.assert_close(got, exact(x, LEVEL), rtol=1e-10, atol=1e-10)


def rk4_solution(denoiser: MixtureDenoiser, x: Tensor, steps: int, rho_end: float) -> Tensor:
    """dy/dlambda = D - y for y = x / alpha: another variable, another method."""
    process = denoiser.process
    lam, end = -torch.tensor([process.rho_max, rho_end], dtype=torch.float64).log()

    def slope(y: Tensor, at: float) -> Tensor:
        level = level_at(process, float(torch.tensor(-at, dtype=torch.float64).exp()))
        return denoiser(level.alpha * y, level) - y

    y, h, at = x / level_at(process, process.rho_max).alpha, float(end - lam) / steps, float(lam)
    for _ in range(steps):
        k1 = slope(y, at)
        k2 = slope(y + h / 2 * k1, at + h / 2)
        k3 = slope(y + h / 2 * k2, at + h / 2)
        k4 = slope(y + h * k3, at + h)
        y, at = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), at + h
    level = level_at(process, rho_end)
    return denoiser(level.alpha * y, level)


def test_reference_solution_agrees_with_runge_kutta() -> None:
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]])
    denoiser = MixtureDenoiser(VP, means, 0.15)
    noise = torch.randn(16, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected, coarse = (rk4_solution(denoiser, noise, steps, 1e-4) for steps in (600, 300))
    solved, calls = reference_solution(denoiser, noise, tolerance=1e-10, rho_end=1e-4)
    # Halving the step changes the Runge-Kutta solution by about 16 times its own error.
    error = (expected - coarse).abs().max().item()
    assert error < 1e-5
    assert (solved - expected).abs().max() < max(error, 1e-8)
    cheap, few = reference_solution(denoiser, noise, method="dopri5", tolerance=1e-4, rho_end=1e-4)
    assert few < calls / 3
    assert (cheap - expected).abs().max() < 0.02
