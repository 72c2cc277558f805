"""Networks see one batch shape and one layout, whatever the caller's batch is."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fewstep.eval.networks.micro_batches import in_micro_batches, strict_float32

CPU = torch.device("cpu")


@given(n=st.integers(0, 20), size=st.integers(1, 7))
def test_every_call_has_the_same_shape_and_layout(n: int, size: int) -> None:
    images = torch.arange(1, n * 12 + 1).view(n, 2, 2, 3) % 251
    calls = []

    def compute(part: Tensor) -> Tensor:
        calls.append((tuple(part.shape), part.is_contiguous()))
        return part.flatten(1).float()

    for given_images in (images, images.contiguous(memory_format=torch.channels_last)):
        found = in_micro_batches(given_images, size, compute, CPU)
        assert torch.equal(found, images.flatten(1).float())
    assert set(calls) == {((size, 2, 2, 3), True)}
    assert len(calls) == 2 * max(1, -(-n // size))


def test_precision_of_the_caller_does_not_get_in() -> None:
    """On CUDA, TF32 is switched off as well, and comes back afterwards."""
    x = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with strict_float32(CPU):
            assert (x @ x).dtype == torch.float32
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    with strict_float32(torch.device("cuda")):
        assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.deterministic
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic) == before
