"""The weak denoiser of autoguidance, and what guidance may ask of a denoiser."""

import pytest
import torch
from bundled_files import present
from torch import Tensor, nn

from fewstep.models import (
    CallableDenoiser,
    DiffusersDenoiser,
    EDMDenoiser,
    bundled_denoiser,
    bundled_weak_denoiser,
    level_at,
)
from fewstep.models.data import load_fashion, to_signed
from fewstep.models.fashion import NULL_CLASS, FashionEDM, FashionUNet, NoiseEmbedding
from fewstep.schedules import VE, discrete_vp

VP = discrete_vp("linear")


needs_data = pytest.mark.skipif(not present("data"), reason="no Fashion-MNIST")
needs_weak = pytest.mark.skipif(not present("fashion_weak"), reason="no weights; train_fashion")


@needs_weak
@needs_data
def test_weak_denoiser_is_weaker() -> None:
    images, labels = (part[:100] for part in load_fashion("test"))
    x0, level = to_signed(images), level_at(VP, 1.0)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    errors = {}
    for name, denoiser in (("strong", bundled_denoiser(VP)), ("weak", bundled_weak_denoiser(VP))):
        with torch.no_grad():
            restored = denoiser(level.alpha * x0 + level.sigma * noise, level, labels)
        errors[name] = (restored - x0).square().mean().item()
    assert 1.1 * errors["strong"] < errors["weak"] < 0.3 * (x0 - x0.mean(0)).square().mean()


@needs_weak
def test_both_denoisers_say_the_same_of_themselves() -> None:
    strong, weak = bundled_denoiser(), bundled_weak_denoiser()
    assert type(strong.process) is type(weak.process) is VE
    assert strong.num_classes == weak.num_classes == 10
    assert strong.null_class == weak.null_class == NULL_CLASS
    sizes = [sum(p.numel() for p in d.network.parameters()) for d in (strong, weak)]
    assert sizes[1] < 0.1 * sizes[0]


def test_adapters_name_their_network_and_classes() -> None:
    net = FashionEDM(FashionUNet(outer=8, inner=8, depth=1, embed=8, heads=1))
    assert EDMDenoiser(net, VE()).network is net
    assert EDMDenoiser(net, VE()).num_classes is None
    assert EDMDenoiser(net, VE(), num_classes=10).num_classes == 10
    assert EDMDenoiser(lambda x, sigma, labels: x, VE()).network is None
    compiled = nn.Module()
    compiled._orig_mod = net  # as torch.compile returns, which does not see hooks
    assert EDMDenoiser(compiled, VE()).network is None
    assert CallableDenoiser(net, VE()).network is net
    assert CallableDenoiser(lambda x, t: x, VE()).network is None

    class Labelled(nn.Module):
        def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor) -> Tensor:
            return sample

    model = Labelled()
    denoiser = DiffusersDenoiser(model, VP, num_classes=5)
    assert denoiser.network is model
    assert denoiser.num_classes == 5


def test_time_embedding_can_be_hooked_apart_from_the_label() -> None:
    torch.manual_seed(0)
    embedding = NoiseEmbedding(8, 3)
    c_noise, labels = torch.tensor([0.1, 0.1]), torch.tensor([0, 1])
    seen: list[Tensor] = []
    plain = embedding(c_noise, labels)
    handle = embedding.time_embedding.register_forward_hook(lambda m, i, o: seen.append(o))
    torch.testing.assert_close(embedding(c_noise, labels), plain, rtol=0, atol=0)
    handle.remove()
    assert torch.equal(seen[0][0], seen[0][1])  # the label is not in it
    assert not any("time_embedding" in name for name in embedding.state_dict())
    embedding.time_embedding.register_forward_hook(lambda m, i, o: o + 1)
    assert (embedding(c_noise, labels) != plain).all()
