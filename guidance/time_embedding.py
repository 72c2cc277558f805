"""Finds the modules that embed the network's time, and shifts what they return."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

# Last parts of the names under which diffusers and the bundled network have it. DiT has one for
# each block, and calls the first again for its output layer.
NAMES = ("time_embedding", "timestep_embedder", "time_embedder", "time_mlp", "map_layer1")


def time_embeddings(network: nn.Module | None, name: str | None = None) -> list[nn.Module]:
    """The modules whose outputs (rows, d) embed the time.

    Args:
        network: of the denoiser.
        name: a dotted name inside it; None looks for the usual ones.

    Raises:
        ValueError: if there is none, with what there is.
    """
    if network is None:
        raise ValueError(
            "time-step guidance needs a network with a time embedding; this denoiser has no "
            "network: use a contrast such as CFG"
        )
    plain: Any = getattr(network, "_orig_mod", network)
    modules = dict(plain.named_modules())
    if name is not None:
        if name not in modules:
            near = [known for known in modules if known and "time" in known] or list(modules)[1:]
            raise ValueError(f"no module {name!r} in the network; it has {', '.join(near[:12])}")
        return [modules[name]]
    found = [m for known, m in modules.items() if known.rpartition(".")[2] in NAMES]
    if not found:
        raise ValueError(
            f"no time embedding found in {type(plain).__name__} (looked for {', '.join(NAMES)}); "
            "name it, as in TSG(module='embed.mlp')"
        )
    return found


@contextmanager
def shifted(modules: Sequence[nn.Module], add: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the block ``add`` is applied to what the modules return."""

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return add(output)

    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
