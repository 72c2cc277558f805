"""One run of a pipeline under guidance: its levels, its samples' keys, its batches."""

import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fewstep.guidance.entry import guide
from fewstep.guidance.expression import Expression
from fewstep.guidance.pipelines.levels import facts_of, first_position, training_of
from fewstep.guidance.pipelines.networks import Call, Network, PipelineDenoiser
from fewstep.guidance.rows import taken

NULL_LABEL = 1000  # written into diffusers' DiT pipeline


class Run:
    """The evaluations of a run, one for each call of the network.

    What has to be read from a device is read here, once.

    Args:
        pipe: the pipeline.
        guidance: sources and modifiers.
        network: what it calls.
        forward: the network's own forward.
        first: the first call.

    Attributes:
        denoiser: the network as one.
        guided: the same under guidance, with the counters.

    Raises:
        ValueError: if guidance does not fit the run, or the batch is laid out in another way.
    """

    def __init__(
        self,
        pipe: Any,
        guidance: Expression,
        network: Network,
        forward: Callable[..., Any],
        first: Call,
    ) -> None:
        self._pipe, self._network = pipe, network
        training = training_of(pipe.scheduler)
        start = first_position(pipe.scheduler, first.time, network.kind.time_scale)
        facts = facts_of(pipe.scheduler, training.process, start)
        guidance.check(facts)
        self._levels, self._calls = facts.levels, 0
        samples = first.x.detach().float().cpu()
        self._labels_doubled = _null_labels(first, samples)
        rows, null = self._halves(first)
        if null is not None and not _equal_halves(samples):
            raise ValueError(
                f"a batch of {len(samples)} rows that are not twice the same samples, for prompt "
                f"and negative prompt: attach does not know how {type(pipe).__name__} calls its "
                "network, or guidance was attached to another pipeline with the same network"
            )
        # Draws depend on the sample alone, whatever it is batched with.
        seeds = [zlib.crc32(sample.numpy().tobytes()) for sample in samples[rows]]
        self.denoiser = PipelineDenoiser(pipe, network, forward, training)
        self.guided = guide(self.denoiser, guidance, seeds)

    def __call__(self, call: Call) -> Tensor:
        """What the network is to return, for all rows of the call."""
        if self._calls == len(self._levels):
            raise ValueError(
                f"the network was called more often than the {self._calls} times left in "
                "scheduler.timesteps: call scheduler.set_timesteps before each run, and detach "
                "guidance from the pipeline that it belongs to before another one uses its network"
            )
        rows, null = self._halves(call)
        level = self._levels[self._calls]
        self._calls += 1
        cond, x = taken(call.cond, rows), call.x[rows]
        self.denoiser.at(len(x), call, level, None if null is None else self._null(call, null))
        wide = torch.promote_types(x.dtype, torch.float32)
        made = self.denoiser.output(self.guided(x.to(wide), level, cond))
        return made if null is None else torch.cat([made, made])

    def _halves(self, call: Call) -> tuple[slice, slice | None]:
        """The rows to guide, and those of the negative prompt."""
        kind, count = self._network.kind, len(call.x)
        doubled = self._labels_doubled
        if kind.text is not None and kind.halves is not None:
            # Asked at each call, since callbacks may end the pipeline's guidance in a run.
            flag: bool | None = getattr(self._pipe, "do_classifier_free_guidance", None)
            if flag is None:  # it raises AttributeError in a pipeline that has not been called
                raise ValueError(
                    f"{type(self._pipe).__name__} does not tell whether it is guiding by "
                    "do_classifier_free_guidance: attach to the pipeline that is called, not to "
                    "one that shares its network"
                )
            doubled = flag
        if not doubled:
            return slice(0, count), None
        halves = slice(0, count // 2), slice(count // 2, count)
        return halves if kind.halves == 0 else halves[::-1]

    def _null(self, call: Call, rows: slice) -> dict[str, Any]:
        null: dict[str, Any] = taken(call.cond, rows)
        if self._labels_doubled:  # the network's own null label, of however many classes
            labels = null["class_labels"]
            null["class_labels"] = torch.full_like(labels, self._network.num_classes or NULL_LABEL)
        return null


def _null_labels(call: Call, samples: Tensor) -> bool:
    """Whether a batch is DiT's [labels, null labels]; its pipeline has no attribute that tells."""
    if call.cond is None or "encoder_hidden_states" in call.cond:
        return False
    labels = call.cond.get("class_labels")
    if labels is None or not _equal_halves(samples):
        return False
    return bool((labels.cpu()[len(samples) // 2 :] == NULL_LABEL).all())


def _equal_halves(samples: Tensor) -> bool:
    if len(samples) % 2:
        return False
    return torch.equal(*samples.chunk(2))
