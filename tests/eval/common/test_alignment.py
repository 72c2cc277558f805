"""Where weights lie in memory decides which kernels run, and so last bits, on some processors."""

import copy
from collections.abc import Iterator

import pytest
import torch
from generation_runs import small_run
from saved_pipelines import saved
from torch import nn

from fewstep.eval.generate.units import arithmetic
from fewstep.eval.problems import load_problem
from fewstep.models.bundled import bundled_denoiser
from fewstep.samplers import sample

LINE = 64  # bytes of a line of the cache, at which torch begins each tensor of its own on a CPU


def weights(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from (*module.parameters(), *module.buffers())


def moved(module: nn.Module, offset: int) -> None:
    """Copies weights to addresses that are ``offset`` bytes past a line."""
    for part in weights(module):
        room = torch.empty(part.numel() * part.element_size() + 2 * LINE, dtype=torch.uint8)
        start = (offset - room.data_ptr()) % LINE
        place = room[start : start + part.numel() * part.element_size()].view(part.dtype)
        part.data = place.view(part.shape).copy_(part.data)
        assert part.data_ptr() % LINE == offset


@pytest.mark.parametrize("offset", [4, 16, 60])
def test_samples_are_the_same_to_rounding_wherever_weights_lie(offset: int) -> None:
    plain = bundled_denoiser()
    other = copy.copy(plain)
    other.net = copy.deepcopy(plain.net)
    moved(other.net, offset)
    options = {"shape": (4, 1, 28, 28), "cond": torch.arange(4), "seeds": range(4)}
    # float32 rounding, through 6 calls, on pixels in [-1, 1]. On some processors it is 0.
    torch.testing.assert_close(
        sample(other, "unipc", 6, **options), sample(plain, "unipc", 6, **options),
        rtol=0, atol=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["fashion", "ddpm", "sd"])
def test_networks_of_problems_begin_where_torch_begins_tensors(name: str, tmp_path) -> None:
    """Their samples have promised bits, so these may not depend on a file's order."""
    prompts = None
    if name == "sd":
        prompts = tmp_path / "prompts.txt"
        prompts.write_text("a b c")
    problem = load_problem(name if name == "fashion" else str(saved(name)), prompts=prompts)
    network = problem.denoiser.net if name == "fashion" else problem.denoiser.network
    assert {part.data_ptr() % LINE for part in weights(network)} == {0}


def test_a_folder_says_which_processor_made_it() -> None:
    """Libraries choose kernels by model, not by the set of instructions alone."""
    name = arithmetic("cpu")["device"]
    capability, _, model = name.partition(", ")
    assert capability == f"cpu {torch.backends.cpu.get_cpu_capability()}"
    assert model
    assert small_run().config["device"] == name
