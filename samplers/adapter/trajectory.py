"""One run of a scheduler, from ``set_timesteps`` to the last ``step``.

Everything that a run changes is in one object, which ``set_timesteps`` replaces in one piece: a
thread that is in the middle of a step goes on with the run that it began.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.samplers.adapter.index import Position, Runs
from fewstep.samplers.adapter.public import PublicTensors
from fewstep.samplers.core.execute import Executor
from fewstep.samplers.core.ops import Evaluation
from fewstep.samplers.core.plan import Plan
from fewstep.schedules.grids import Grid


@dataclass(frozen=True)
class Asked:
    """What ``set_timesteps`` was called with where the automatic rule placed the levels.

    Attributes:
        count: network calls.
        sigmas: what a flow pipeline sent to say that count, or None.
        mu: of dynamic shifting.
    """

    count: int
    sigmas: Any
    mu: float | None


@dataclass(frozen=True)
class Planned:
    """A plan, the grid that it was made on if there is one, and why it is this one.

    Attributes:
        asked: set where the automatic rule placed the levels, which a late start may then move.
    """

    plan: Plan
    grid: Grid | None
    reason: str
    asked: Asked | None = None


class Trajectory:
    """A plan that is walked.

    Args:
        planned: what ``set_timesteps`` decided.
        execute: the executor of a plan.
        native: whether ``sigmas`` shows sigma itself (flows) or sigma / alpha.
        tables: more public tensors, of the training process.
        device: of ``timesteps``.
        runs: of the scheduler.

    Attributes:
        planned: what ``set_timesteps`` decided, or what a late start made of it.
        executor: walks the plan, or the rest of it.
        offset: the entry of ``timesteps`` that the executor's first evaluation belongs to.
        first: that of the planned plan's.
        public: ``timesteps``, ``sigmas`` and the tables.
        position: counts the entries.
        moved_to: the entry at which :meth:`move` has put the start, if it has.
        moved_from: the time that this entry had before.
        noised: whether ``add_noise`` has made the sample that this run starts from.
    """

    def __init__(
        self,
        planned: Planned,
        execute: Callable[[Plan], Executor],
        *,
        native: bool,
        tables: dict[str, Tensor],
        device: torch.device | str | None,
        runs: Runs,
    ) -> None:
        plan = planned.plan
        self.planned, self._execute, self._native = planned, execute, native
        self.executor, self.offset, self.first = execute(plan), -plan.history, -plan.history
        times, sigmas = self._tensors(plan)
        self.public = PublicTensors(
            {"timesteps": times, "sigmas": sigmas, **tables}, device, ["timesteps"]
        )
        self.position = Position(self.public["timesteps"], times, runs)
        self.moved_to: int | None = None
        self.moved_from: float | None = None
        self.noised = False

    def row(self, entry: int) -> Evaluation:
        """The evaluation of an entry of ``timesteps``."""
        return self.executor.plan.evaluations[entry - self.offset]

    def enter(self, entry: int, rest: Plan) -> None:
        """Goes on with a plan for the entries from ``entry`` on."""
        self.executor, self.offset = self._execute(rest), entry

    def move(self, entry: int, planned: Planned) -> None:
        """Starts at an entry with levels of its own, written where views of ``timesteps`` see them.

        Args:
            entry: the first.
            planned: the rest, of as many calls as there are entries left.
        """
        self.moved_to, self.moved_from = entry, float(self.position.values[entry])
        self.enter(entry, planned.plan)
        self.planned, self.first = planned, entry
        times, sigmas = self._tensors(planned.plan)
        self.public.rewrite("timesteps", entry, times)
        self.public.rewrite("sigmas", entry, sigmas)

    def check_start(self, timestep: Any) -> None:
        """Refuses a first step at a time that was read before :meth:`move`; the one read of a run.

        Raises:
            ValueError: for a time that is not the one which the network has to be told.
        """
        if self.moved_to is None or self.position.view(timestep) is not None:
            return
        time, value = torch.as_tensor(timestep), float(self.position.values[self.moved_to])
        if time.numel() != 1 or not same_time(float(time), time.dtype, value):
            raise ValueError(
                f"the run starts at t = {value:g}, where add_noise() has put it, and step() got "
                "another time: read timesteps after add_noise()"
            )

    def follow(self) -> None:
        """Counts the entries of ``timesteps`` that were moved to another device or dtype."""
        self.position.follow(self.public["timesteps"])

    def _tensors(self, plan: Plan) -> tuple[Tensor, Tensor]:
        """(calls,) network times and (calls + 1,) levels."""
        rows = plan.evaluations[plan.history :]
        levels = plan.sigmas(self._native)[plan.history :]
        with torch.inference_mode(False):  # a late start may write them in another mode
            times = torch.tensor([row.time for row in rows], dtype=torch.float32)
            times = times if self.planned.asked is None else told_apart(times)
            return times, torch.tensor(levels, dtype=torch.float32)


def told_apart(times: Tensor) -> Tensor:
    """Times of which no two are equal: a later one is lower by a bit of float32 for each before.

    Some pipelines tell add_noise() their first entry by a copy of its time and by nothing else,
    and solvers of several calls a step call at the same time twice.
    """
    if len(set(times.tolist())) == len(times):
        return times
    apart: list[np.float32] = []
    for time in times.numpy():
        while time in apart:
            time = np.nextafter(time, np.float32(-np.inf))
        apart.append(time)
    return torch.tensor(np.array(apart))


def same_time(time: float, dtype: torch.dtype, value: float) -> bool:
    """Whether a time is a value in another dtype: cast, or cut or rounded to a whole number."""
    if not dtype.is_floating_point:
        return abs(time - value) < 1
    return time == float(torch.tensor(value).to(dtype))
