"""One run of a scheduler, from ``set_timesteps`` to the last ``step``.

Everything that a run changes is in one object, which ``set_timesteps`` replaces in one piece: a
thread that is in the middle of a step goes on with the run that it began.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.samplers.execute import Executor
from fewstep.samplers.index import Position, Runs
from fewstep.samplers.plan import Evaluation, Plan
from fewstep.samplers.public import PublicTensors
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
        moved_from: the time that the first entry had before :meth:`move`.
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
        self.moved_from = float(self.public["timesteps"][entry])
        self.enter(entry, planned.plan)
        self.planned, self.first = planned, entry
        times, sigmas = self._tensors(planned.plan)
        self.public.rewrite("timesteps", entry, times)
        self.public.rewrite("sigmas", entry, sigmas)

    def follow(self) -> None:
        """Counts the entries of ``timesteps`` that were moved to another device or dtype."""
        self.position.follow(self.public["timesteps"])

    def _tensors(self, plan: Plan) -> tuple[Tensor, Tensor]:
        """(calls,) network times and (calls + 1,) levels."""
        times = [row.time for row in plan.evaluations[plan.history :]]
        sigmas = plan.sigmas(self._native)[plan.history :]
        return torch.tensor(times, dtype=torch.float32), torch.tensor(sigmas, dtype=torch.float32)
