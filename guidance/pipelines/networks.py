"""The networks of diffusers' pipelines: what a call of one says, and the network as a denoiser."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from fewstep.guidance.pipelines.levels import Training
from fewstep.guidance.pipelines.text import random_text
from fewstep.models.prediction import to_data
from fewstep.types import Level

# What is made of a row each, and what all rows share.
PER_ROW = (
    "encoder_hidden_states", "added_cond_kwargs", "class_labels", "pooled_projections",
    "timestep_cond", "attention_mask", "encoder_attention_mask", "guidance",
)  # fmt: skip
SHARED = ("img_ids", "txt_ids", "cross_attention_kwargs", "joint_attention_kwargs")
CHANNELS = "channels beside the noisy sample"  # of inpainting networks: the mask and the image


@dataclass(frozen=True)
class Call:
    """A call of a network by its pipeline.

    Attributes:
        whole: the network's input as it was given.
        x: (rows, ...) the noisy sample in it.
        time: a number, or a tensor of equal ones.
        cond: what belongs to the rows, by keyword, or None.
        shared: what does not.
        returns_dict: whether the pipeline wants an output class or a tuple.
    """

    whole: Tensor
    x: Tensor
    time: Any
    cond: dict[str, Any] | None
    shared: dict[str, Any]
    returns_dict: bool


@dataclass(frozen=True)
class Kind:
    """What a class of networks has of its own.

    Attributes:
        state: keyword of the noisy sample.
        time_scale: what the network is told for one unit of the scheduler's time.
        channel_dim: where channels are.
        halves: for the batches of guidance, which half is conditional; None if there are none.
        text: how random text is encoded; None where the condition is no text.
        twice: whether the negative prompt is a call of its own.
    """

    state: str
    time_scale: float = 1.0
    channel_dim: int = 1
    halves: int | None = None
    text: str | None = None
    twice: bool = False


KINDS: dict[str, Kind] = {
    "UNet2DModel": Kind("sample"),
    "UNet2DConditionModel": Kind("sample", halves=1, text="unet"),
    "DiTTransformer2DModel": Kind("hidden_states", halves=0),
    "SD3Transformer2DModel": Kind("hidden_states", halves=1, text="sd3"),
    "FluxTransformer2DModel": Kind(
        "hidden_states", time_scale=1e-3, channel_dim=2, text="flux", twice=True
    ),
}


class Network:
    """A network that pipelines call, by the name of its class.

    Args:
        module: of one of the classes in ``KINDS``.

    Raises:
        ValueError: for another class, or a compiled module.
    """

    def __init__(self, module: nn.Module) -> None:
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None):
            raise ValueError(
                "a compiled module does not see the forward that attach sets: attach to the plain "
                "one, without torch.compile"
            )
        names = [kind.__name__ for kind in type(module).__mro__]
        found = next((KINDS[name] for name in names if name in KINDS), None)
        if found is None:
            raise ValueError(
                f"attach does not know how pipelines call {names[0]}; it knows {', '.join(KINDS)}. "
                "Use sample(DiffusersDenoiser(...), guidance=...)"
            )
        self.module, self.kind = module, found
        self.name = names[0]
        self.config = cast(Mapping[str, Any], module.config)
        self._signature = inspect.signature(type(module).forward)
        into = int(self.config["in_channels"])
        self.width = min(into, int(self.config.get("out_channels") or into))

    @property
    def num_classes(self) -> int | None:
        """How many classes its labels name, without the null one; None if it takes none."""
        for key in ("num_embeds_ada_norm", "num_class_embeds"):
            if self.config.get(key):
                return int(self.config[key])
        return None

    @property
    def unconditional(self) -> bool:
        return self.kind.text is None and self.num_classes is None

    def read(self, args: Any, kwargs: Any) -> Call:
        """Takes the arguments of a call apart.

        Raises:
            ValueError: for an argument that cannot be split into rows.
        """
        given = self._signature.bind(self.module, *args, **kwargs).arguments
        given = {key: value for key, value in given.items() if value is not None}
        given.pop("self")
        whole, time = given.pop(self.kind.state), given.pop("timestep")
        returns_dict = given.pop("return_dict", True)
        dim = self.kind.channel_dim
        x, rest = whole.split([self.width, whole.shape[dim] - self.width], dim)
        cond = {key: given.pop(key) for key in PER_ROW if key in given}
        if rest.shape[dim]:
            cond[CHANNELS] = rest
        shared = {key: given.pop(key) for key in SHARED if key in given}
        strange = [key for key, value in given.items() if value is not False]
        strange += [key for key, value in cond.items() if not _in_rows(value)]
        strange += [key for key in SHARED[2:] if not _without_rows(shared.get(key, {}))]
        if strange:
            raise ValueError(
                f"the pipeline passes {self.name} {min(strange)!r}, which attach cannot split into "
                "rows: leave ControlNets, adapters and skip_guidance_layers out, or detach(pipe)"
            )
        return Call(whole, x, time, cond or None, shared, returns_dict)


def _in_rows(value: Any) -> bool:
    return isinstance(value, Tensor) or (
        isinstance(value, Mapping) and all(isinstance(entry, Tensor) for entry in value.values())
    )


def _without_rows(value: Mapping[str, Any]) -> bool:
    return all(isinstance(entry, bool | int | float | str | None) for entry in value.values())


class PipelineDenoiser:
    """A pipeline's network as a denoiser, during one call after another of the pipeline.

    Args:
        pipe: for its text encoders.
        network: what it calls.
        forward: the network's own forward.
        training: process and prediction type.

    Attributes:
        null: the condition of the unconditional rows, if the pipeline gave them.
    """

    def __init__(
        self, pipe: Any, network: Network, forward: Callable[..., Any], training: Training
    ) -> None:
        self.process, self._type = training.process, training.prediction_type
        self._pipe, self._description, self._forward = pipe, network, forward
        self.network, self.num_classes = network.module, network.num_classes
        self.latent = any(getattr(pipe, name, None) is not None for name in ("vae", "vqvae"))
        self.null: dict[str, Any] | None = None

    def at(self, count: int, call: Call, level: Level, null: dict[str, Any] | None) -> None:
        """Begins an evaluation of ``count`` samples."""
        self._count, self._call, self._level, self.null = count, call, level, null
        self._base: tuple[Tensor, Tensor] | None = None

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        kind, cond = self._description.kind, dict(cond or {})
        own = x.to(self._call.x.dtype)
        channels = cond.pop(CHANNELS, None)
        if channels is not None:
            own = torch.cat([own, channels], kind.channel_dim)
        inputs = {kind.state: own, "timestep": self._times(level, x), **cond, **self._call.shared}
        made = self._forward(**inputs, return_dict=True)
        self.output_class = type(made)
        output = made.sample.narrow(kind.channel_dim, 0, self._description.width).to(x.dtype)
        x0 = to_data(output, x, level, self._type)  # type: ignore[arg-type]
        if self._base is None:  # the first rows of the first call are those to be guided
            self._base = made.sample[: self._count].detach(), x0[: self._count].detach()
        return x0

    def _times(self, level: Level, x: Tensor) -> Tensor:
        """What the pipeline told the network, bit for bit, or the time of another level."""
        told = self._call.time
        if level is self._level:
            told = told if isinstance(told, Tensor) else torch.tensor(told, device=x.device)
            return told.reshape(-1)[:1].to(x.device, non_blocking=True).expand(len(x))
        time = level.time * self._description.kind.time_scale
        return torch.full((len(x),), time, dtype=torch.float32, device=x.device)

    def null_cond(self, cond: Any) -> Any:
        """The pipeline's unconditional rows.

        Raises:
            ValueError: if it gave none.
        """
        if self.null is None:
            raise ValueError(
                "CFG needs unconditional rows: call the pipeline with guidance_scale > 1, so that "
                "it encodes the negative prompt (or adds the null label)"
            )
        return self.null

    def random_text(self, cond: Any, tokens: Callable[[int, int], Tensor]) -> Any:
        """The condition with random text; see :func:`.text.random_text`."""
        return random_text(self._pipe, self._description.kind.text, cond, tokens)

    def output(self, guided: Tensor) -> Tensor:
        """What the network would have to return for a guided data prediction (n, ...).

        Channels beside the prediction (a learned variance) are those of the guided rows. Without
        guidance it is the network's output, bit for bit.
        """
        assert self._base is not None
        raw, base = self._base
        kind, width = self._description.kind, self._description.width
        alpha, sigma = self._level.alpha, self._level.sigma
        per_x0 = {  # the derivative of each output by x0 at fixed x
            "epsilon": -alpha / sigma,
            "sample": 1.0,
            "v_prediction": -(alpha**2 + sigma**2) / sigma,
            "flow_prediction": -(alpha + sigma) / sigma,
        }[self._type]
        dim = kind.channel_dim
        own, rest = raw.split([width, raw.shape[dim] - width], dim)
        made = (own.to(guided.dtype) + per_x0 * (guided - base)).to(raw.dtype)
        return torch.cat([made, rest], dim)
