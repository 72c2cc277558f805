"""Runs guidance around a denoiser: rows merged, one forward a round, costs counted."""

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from einops import repeat
from torch import Tensor, nn

from fewstep.guidance.context import Context, Counters, Draws, fresh_leaf
from fewstep.guidance.rows import Row, Steps, column, joined, signature, taken
from fewstep.guidance.sizes import deviation
from fewstep.guidance.time_embedding import shifted, time_embeddings
from fewstep.schedules import NoiseProcess
from fewstep.types import Denoiser, Level


class Planner(Protocol):
    """Anything that plans its rows and returns a direction."""

    def plan(self, ctx: Context) -> Steps: ...


class GuidedDenoiser:
    """A denoiser under guidance: its base prediction plus the planned direction.

    At each evaluation the rows that are asked for are de-duplicated and packed into one call for
    each network, level and kind of condition. An evaluation of index 0 begins a new run.

    Args:
        denoiser: the unguided one.
        guidance: plans rows and the direction.
        seeds: one integer for each sample, which key all draws; None means 0 .. n - 1.
        max_rows: most rows in a call; None means no limit.

    Attributes:
        counters: costs since it was made.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        guidance: Planner,
        seeds: Sequence[int] | None = None,
        *,
        max_rows: int | None = None,
    ) -> None:
        if max_rows is not None and max_rows < 1:
            raise ValueError(f"max_rows must be at least 1, got {max_rows}")
        warn_of_training(denoiser)
        self.denoiser, self.guidance, self.seeds = denoiser, guidance, seeds
        self.max_rows, self.counters = max_rows, Counters()
        self._memory: dict[str, Any] = {}

    @property
    def process(self) -> NoiseProcess:
        return self.denoiser.process

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        if level.index == 0:
            self._memory.clear()
        ctx = self._context(x, level, cond)
        plan = self.guidance.plan(ctx)
        answers: list[Tensor] | None = None
        while True:
            try:
                rows = next(plan) if answers is None else plan.send(answers)
            except StopIteration as end:
                direction = end.value
                break
            self._evaluate(ctx, [ctx.base, *rows])
            answers = [ctx.known[row.key] for row in rows]
        if answers is None:
            self._evaluate(ctx, [ctx.base])
        self._memory["started"] = True
        base = ctx.prediction
        return (base if direction is None else base + direction.total).to(x.dtype)

    def select(self, ancestors: Tensor) -> None:
        """Sample i goes on as sample ancestors[i] (resampling): what sources remember follows."""
        for kept in self._memory.values():
            if isinstance(kept, dict):
                for name, value in kept.items():
                    if isinstance(value, Tensor):
                        kept[name] = value[ancestors]

    def _context(self, x: Tensor, level: Level, cond: Any) -> Context:
        seeds = range(len(x)) if self.seeds is None else self.seeds
        if len(seeds) != len(x):
            raise ValueError(
                f"guidance has {len(seeds)} seeds for {len(x)} samples; give one for each"
            )
        first = "started" not in self._memory
        with torch.inference_mode(False):  # a classifier's backward pass may need the condition
            cond = _cloned(cond)
        if first:
            _check_rows(cond, len(x))
        return Context(
            x, level, cond, self.denoiser, Draws(seeds), self._memory, self.counters, first
        )

    def _evaluate(self, ctx: Context, rows: Sequence[Row]) -> None:
        """Makes the predictions of rows that are not known yet."""
        # A prediction with its graph is the plain one too.
        rows = sorted(rows, key=lambda row: not row.graph)
        groups: dict[Hashable, list[Row]] = {}
        asked: set[Hashable] = set(ctx.known)
        for row in rows:
            if row.key in asked:
                continue
            asked.add(row.key)
            if row.graph:
                self._with_graph(ctx, row)
                asked.add("cond")
                continue
            at = None if row.at is None else (id(row.at[0]), row.at[1])
            groups.setdefault((id(row.model), at, signature(row.cond)), []).append(row)
        for group in groups.values():
            self._call(ctx, group)

    def _with_graph(self, ctx: Context, row: Row) -> None:
        with torch.inference_mode(False), torch.enable_grad():
            ctx.leaf = fresh_leaf(ctx.x)
            made = _wide(self._in_pieces(ctx.denoiser, ctx.leaf, ctx.level, row.cond))
        ctx.known[row.key], ctx.known["cond"] = made, made.detach()

    def _call(self, ctx: Context, group: Sequence[Row]) -> None:
        model = ctx.denoiser if group[0].model is None else group[0].model
        x, level = group[0].at or (ctx.x, ctx.level)
        packed = repeat(x, "n ... -> (r n) ...", r=len(group)) if len(group) > 1 else x
        sizes = [len(x) if row.subset is None else len(row.subset) for row in group]
        if any(row.subset is not None for row in group):
            packed = packed[_kept(group, len(x), x.device)]
        cond = joined([row.cond for row in group])
        noises = _noises_of(ctx, model, group, sizes)
        made = _wide(self._in_pieces(model, packed, level, cond, noises))
        if made.shape != packed.shape:
            raise ValueError(
                f"a network returned {tuple(made.shape)} for {tuple(packed.shape)}: a second "
                "model must predict samples of the same shape"
            )
        for row, part in zip(group, made.split(sizes), strict=True):
            ctx.known[row.key] = part

    def _in_pieces(
        self, model: Denoiser, x: Tensor, level: Level, cond: Any, noises: Sequence["Noise"] = ()
    ) -> Tensor:
        size = self.max_rows or len(x)
        made = []
        for start in range(0, len(x), size):
            rows = slice(start, min(start + size, len(x)))
            with ExitStack() as stack:
                for noise in noises:
                    stack.enter_context(shifted(noise.modules, noise.of(rows)))
                whole = rows == slice(0, len(x))
                made.append(model(x[rows], level, cond if whole else taken(cond, rows)))
            self._count(rows.stop - rows.start)
        return made[0] if len(made) == 1 else torch.cat(made)

    def _count(self, rows: int) -> None:
        self.counters.rows += rows
        self.counters.calls += 1


class Noise:
    """Noise on the time embeddings of a packed batch: one draw that all embedders share."""

    def __init__(self, modules: Sequence[nn.Module], draw: Callable[[int], Tensor]) -> None:
        self.modules, self._draw = modules, draw
        self._made: dict[int, Tensor] = {}

    def of(self, rows: slice) -> Callable[[Tensor], Tensor]:
        """Adds the noise of some rows of the batch to an embedding (rows, d)."""

        def add(embedding: Tensor) -> Tensor:
            count = rows.stop - rows.start
            if len(embedding) != count:
                raise ValueError(
                    f"time-step guidance needs a time embedding for each of {count} rows, the "
                    f"module it hooks makes {len(embedding)}; name another one with module="
                )
            width = embedding.shape[-1]
            if width not in self._made:
                self._made[width] = self._draw(width)
            noise = self._made[width][rows].to(embedding.device)
            # Relative to the spread of each row's own embedding.
            return (embedding + column(deviation(embedding), noise) * noise).to(embedding.dtype)

        return add


def _noises_of(
    ctx: Context, model: Denoiser, group: Sequence[Row], sizes: Sequence[int]
) -> list[Noise]:
    """One for each module that rows of the group name."""

    def noise_at(name: str | None) -> Noise:
        def draw(width: int) -> Tensor:
            parts = []
            for row, size in zip(group, sizes, strict=True):
                part = torch.zeros(size, width)
                if (noise := row.time_noise) is not None and noise.module == name:
                    part = noise.scale * ctx.draws.normal((width,), ctx.level.step, noise.site)
                parts.append(part)
            return torch.cat(parts).to(ctx.x.device, non_blocking=True)

        return Noise(time_embeddings(network_of(model), name), draw)

    named = [row.time_noise.module for row in group if row.time_noise is not None]
    return [noise_at(name) for name in dict.fromkeys(named)]


def network_of(denoiser: Any) -> nn.Module | None:
    """The module behind a denoiser, if it tells."""
    found = denoiser if isinstance(denoiser, nn.Module) else getattr(denoiser, "network", None)
    return found if isinstance(found, nn.Module) else None


def warn_of_training(denoiser: Any) -> None:
    """Warns of a network that is not in evaluation mode."""
    network = network_of(denoiser)
    if network is not None and network.training:
        warnings.warn(
            f"{type(network).__name__} is in training mode; call .eval() before sampling",
            stacklevel=4,
        )


def _check_rows(cond: Any, n: int) -> None:
    """Raises ValueError unless a tensor condition has a row for each of n samples."""
    if isinstance(cond, Tensor) and cond.shape[:1] != (n,):
        raise ValueError(
            f"guidance needs a row of the condition for each of {n} samples, got shape "
            f"{tuple(cond.shape)}; repeat it to (n, ...)"
        )


def _kept(group: Sequence[Row], n: int, device: torch.device) -> Tensor:
    whole = torch.arange(n, device=device)
    parts = [whole if row.subset is None else row.subset for row in group]
    return torch.cat([part + i * n for i, part in enumerate(parts)])


def _wide(x: Tensor) -> Tensor:
    """In float32 at least: differences of half-precision predictions keep few digits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _cloned(cond: Any) -> Any:
    """Inference tensors cannot be saved for a backward pass; their clones can."""
    if isinstance(cond, Mapping):
        return {key: _cloned(value) for key, value in cond.items()}
    return cond.clone() if isinstance(cond, Tensor) and cond.is_inference() else cond
