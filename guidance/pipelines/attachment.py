"""Guidance in the stock pipelines of diffusers.

``attach(pipe, guidance)`` replaces the ``forward`` of the one module that the pipeline denoises
with, on the instance: class, config, dtype and saving stay what they were. Each call of it is one
evaluation, and the guided prediction is returned in the network's own terms.
"""

import functools
import types
import warnings
from typing import Any

from torch import Tensor, nn

from fewstep.guidance.context import Counters
from fewstep.guidance.entry import guide, written
from fewstep.guidance.expression import Expression
from fewstep.guidance.pipelines.levels import is_ours, looks_back, training_of
from fewstep.guidance.pipelines.networks import Call, Network, PipelineDenoiser
from fewstep.guidance.pipelines.run import Run
from fewstep.guidance.sources.contrast import CFG
from fewstep.guidance.sources.independent import ICG

KEY = "_fewstep_guidance"  # of the attachment, among the attributes of the network


def attach(pipe: Any, guidance: Expression | str) -> "Attachment":
    """Guides a diffusers pipeline until ``detach(pipe)``.

    In a batch of [negative, positive] rows (``guidance_scale`` > 1; DiT: [labels, null labels]) the
    guided tensor is computed once, from the positive rows, and returned in both halves, so that the
    pipeline's own u + w (c - u) changes nothing whatever its w. The negative rows are the null
    branch of CFG. Flux's second forward, of ``true_cfg_scale``, gets the tensor of the first.

    Draws are keyed by the initial latents of each sample: no seed is needed, and results do not
    depend on how samples are batched.

    Args:
        pipe: DDPM, DiT, Stable Diffusion, SDXL, SD3 or Flux, also from an image or inpainting, with
            the scheduler it is to run with. One of ours puts nodes on ``guidance.breakpoints()``.
        guidance: sources and modifiers, or a text such as ``"cfg:7.5|interval:0.3,6"``.

    Returns:
        The attachment, with the ``counters`` of the last run.

    Raises:
        TypeError: for what is no guidance, run hooks included.
        ValueError: if something is attached, or guidance does not fit the pipeline.
    """
    module = _module_of(pipe)
    if KEY in vars(module):
        raise ValueError("guidance is attached to this pipeline's network: detach(pipe) first")
    guidance = written(guidance) if isinstance(guidance, str) else guidance
    return Attachment(pipe, module, guidance)


def detach(pipe: Any) -> None:
    """Makes the pipeline what it was before ``attach``.

    Raises:
        ValueError: if nothing is attached, or something replaced the same methods later.
    """
    attachment = vars(_module_of(pipe)).get(KEY)
    if attachment is None:
        raise ValueError("no guidance is attached to this pipeline: attach(pipe, guidance) does it")
    attachment.detach()


class Attachment:
    """Guidance on a pipeline, made by :func:`attach`.

    Attributes:
        guidance: what was attached.
        counters: costs of the last run, summed over its samples.
    """

    def __init__(self, pipe: Any, module: nn.Module, guidance: Expression) -> None:
        self.guidance, self.counters = guidance, Counters()
        self._pipe, self._scheduler, self._network = pipe, pipe.scheduler, Network(module)
        # accelerate's hooks call _old_forward, and put it back as forward after each run.
        self._original = vars(module).get("_old_forward", module.forward)
        training = training_of(pipe.scheduler)
        guide(PipelineDenoiser(pipe, self._network, self._original, training), guidance)
        _check_fits(guidance, self._network)
        self._run: Run | None = None
        self._asked = False  # whether set_timesteps was called
        self._given: Tensor | None = None
        self._wrap_scheduler()
        self._wrap_network()

    @property
    def active(self) -> bool:
        """Whether it has not been detached."""
        return vars(self._network.module).get(KEY) is self

    def detach(self) -> None:
        """See :func:`detach`."""
        module, scheduler = self._network.module, self._scheduler
        slots = [s for s in ("forward", "_old_forward") if vars(module).get(s) is self._forward]
        ours = vars(scheduler).get("set_timesteps") is self._set_timesteps
        if not slots or not ours:
            what = "set_timesteps of its scheduler" if slots else "forward of its network"
            raise ValueError(
                f"the pipeline cannot be detached: {what} was replaced after attach; undo that "
                "first"
            )
        for slot in slots:
            _restore(module, slot, self._original)
        _restore(scheduler, "set_timesteps", self._original_set_timesteps)
        if self._breakpoints is not None:
            _restore(scheduler, "breakpoints", self._breakpoints)
        del vars(module)[KEY]

    def _wrap_network(self) -> None:
        module = self._network.module

        @functools.wraps(self._original)
        def forward(*args: Any, **kwargs: Any) -> Any:
            return self._call(*args, **kwargs)

        self._forward = forward
        slot = "_old_forward" if "_old_forward" in vars(module) else "forward"
        vars(module)[slot] = forward
        vars(module)[KEY] = self

    def _wrap_scheduler(self) -> None:
        scheduler, edges = self._scheduler, self.guidance.breakpoints()
        self._breakpoints = None
        if is_ours(scheduler):
            self._breakpoints, scheduler.breakpoints = scheduler.breakpoints, edges
        elif edges and looks_back(scheduler) > 1:
            warnings.warn(
                f"{type(scheduler).__name__} looks back across the edges of the interval and loses "
                "its order there; ours, as fewstep.UniPC, restart at them",
                stacklevel=5,
            )
        self._original_set_timesteps = scheduler.set_timesteps

        @functools.wraps(self._original_set_timesteps)
        def set_timesteps(*args: Any, **kwargs: Any) -> Any:
            # The time alone does not tell a new run: two-stage schedulers repeat it.
            self._run, self._given, self._asked = None, None, True
            return self._original_set_timesteps(*args, **kwargs)

        self._set_timesteps = set_timesteps
        scheduler.set_timesteps = set_timesteps

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        call = self._network.read(args, kwargs)
        # Flux calls again with the same tensor, for the negative prompt.
        if not (self._network.kind.twice and call.whole is self._given):
            run = self._running(call)
            self._made, self._given = run(call), call.whole
            self._output_class = run.denoiser.output_class
        return self._output_class(sample=self._made) if call.returns_dict else (self._made,)

    def _running(self, call: Call) -> Run:
        if self._pipe.scheduler is not self._scheduler:
            raise ValueError(
                "the pipeline's scheduler was replaced after attach: set it first, or detach(pipe) "
                "and attach again"
            )
        if self._run is None:
            if not self._asked:
                raise ValueError(
                    "guidance is attached, and no run has begun: call the pipeline, or "
                    "scheduler.set_timesteps(n) before a loop of your own"
                )
            self._run = Run(self._pipe, self.guidance, self._network, self._original, call)
            self.counters = self._run.guided.counters
        return self._run


def _module_of(pipe: Any) -> nn.Module:
    """What the pipeline denoises with."""
    for name in ("transformer", "unet"):
        module = getattr(pipe, name, None)
        if isinstance(module, nn.Module) and hasattr(pipe, "scheduler"):
            return module
    raise ValueError(
        f"attach needs a diffusers pipeline with a unet or transformer and a scheduler, got "
        f"{type(pipe).__name__}"
    )


def _restore(owner: Any, name: str, value: Any) -> None:
    """Sets an attribute back; one that the class has anyway goes from the instance."""
    own = getattr(type(owner), name, None)
    plain = isinstance(value, types.MethodType) and value.__func__ is own
    if value is own or (plain and value.__self__ is owner):
        del vars(owner)[name]
    else:
        vars(owner)[name] = value


def _check_fits(guidance: Expression, network: Network) -> None:
    """Raises ValueError for sources that cannot work in a pipeline with this network."""
    for source in guidance.sources():
        if not isinstance(source, CFG | ICG):
            continue
        if network.unconditional:
            raise ValueError(
                f"{source} needs a condition, and {network.name} is unconditional: use TSG(), or "
                "leave it out"
            )
        if isinstance(source, CFG):
            if network.kind.twice:
                raise ValueError(
                    f"{source} needs the negative prompt beside the prompt, and {network.name} is "
                    "told them one after the other: use true_cfg_scale without attach, or TSG() or "
                    "ICG(3, mode='text')"
                )
        elif source.mode == "class" and network.num_classes is None:
            raise ValueError(
                f"{source} draws classes, and this pipeline is told text: use "
                f"ICG({source.scale:g}, mode='text') or mode='gaussian'"
            )
        elif source.mode != "class" and network.kind.text is None:
            raise ValueError(
                f"{source} in {source.mode} mode draws text, and this pipeline is told classes: "
                f"use ICG({source.scale:g}, mode='class')"
            )
