"""What ``fewstep tune`` found, as its file, table and page have it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

import fewstep
from fewstep.eval.tune.judge import Error
from fewstep.eval.tune.landings import Fit
from fewstep.eval.tune.setup import Setup
from fewstep.samplers import Plan
from fewstep.samplers.tuning.result import Tuned


def calls_text(count: int) -> str:
    """As in ``5 calls``."""
    return "1 call" if count == 1 else f"{count} calls"


NEEDED = 5.0  # times better than the student: then a teacher's error hides nothing


@dataclass(frozen=True)
class Tuning:
    """A tuned plan, and how good it is on noises that took no part.

    Attributes:
        setup: the model and what was asked for.
        found: what the tuning gave back; its plan has no provenance of ours.
        plan: the tuned plan with its provenance, or the start's.
        gaussian: that it starts from, or None.
        error: of the plan on the noises to report on.
        before: of the start there.
        fixed: by spec and network calls, the errors of fixed samplers there.
        teacher: the teacher's own error.
        pictures: images (n, c, h, w) in [-1, 1] by sampler, from the same noises; may be empty.
        seconds: by stage.
    """

    setup: Setup
    found: Tuned
    gaussian: Fit | None
    error: Error
    before: Error
    fixed: Mapping[str, Mapping[int, Error]]
    teacher: float
    pictures: Mapping[str, Tensor] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        found = self.found.plan
        return replace(found, provenance={**found.provenance, "tuned": self.provenance()})

    @property
    def nfe(self) -> int:
        return self.setup.settings.nfe

    def best(self, nfe: int) -> tuple[str, Error] | None:
        """The best fixed sampler at a number of calls."""
        there = {spec: found[nfe] for spec, found in self.fixed.items() if nfe in found}
        return min(there.items(), key=lambda item: item[1].rms) if there else None

    def provenance(self) -> dict[str, Any]:
        """What the file says of the plan, as JSON values."""
        setup, found, settings = self.setup, self.found, self.setup.settings
        search = settings.search(setup.problem)
        objective: dict[str, Any] = {"kind": settings.objective, "power": search.power}
        if setup.featured is not None:
            objective["features"] = settings.features
        return {
            "version": fewstep.__version__,
            "model": setup.problem.fingerprint,
            "prediction_type": setup.prediction_type,
            "problem": setup.problem.name,
            "guidance": setup.guidance.text,
            "nfe": settings.nfe,
            "family": settings.family,
            "improved": found.improved,
            "size": found.size,
            "objective": objective,
            "seed": settings.seed,
            "seeds": {name: split.seed for name, split in setup.splits.items()},
            "noises": {name: len(split) for name, split in setup.splits.items()},
            "start": {"spec": found.spec, "plan": found.start.table()},
            "error": {
                "tune": found.tune, "select": found.select, "report": self.error.rms,
                "select_before": found.select_before, "report_before": self.before.rms,
                "teacher": self.teacher,
            },
            "curve": [[entry.tune, entry.select] for entry in found.history],
            "calls": found.calls,
            "seconds": round(found.seconds, 2),
            "fixed": {
                spec: {str(nfe): error.rms for nfe, error in errors.items()}
                for spec, errors in self.fixed.items()
            },
        }  # fmt: skip

    def notes(self) -> list[str]:
        """What a reader of the figures has to know."""
        found, error, lines = self.found, self.error.rms, []
        if not found.improved:
            lines.append(f"nothing was gained: the plan is that of {found.spec}, the start")
        elif error >= self.before.rms:
            lines.append(
                f"on the noises to report on the tuned plan is no better than the start "
                f"({error:.4g} and {self.before.rms:.4g}): tune with more noises"
            )
        best = self.best(self.nfe)
        if best is not None and best[1].rms < min(error, self.before.rms):
            lines.append(
                f"{best[0]} is better at {calls_text(self.nfe)} ({best[1].rms:.4g}), but was not "
                "on the noises to tune: tune with more of them"
            )
        if self.teacher * NEEDED > error:
            lines.append(
                f"the teacher's own error {self.teacher:.2g} is more than a fifth of the plan's "
                f"{error:.2g}, so that part of it may be the teacher's"
            )
        return lines

    def summary(self) -> list[str]:
        """The result in a few lines."""
        found, setup, nfe = self.found, self.setup, self.nfe
        lines = [
            f"error {self.error.rms:.4g} at {calls_text(nfe)}, {self.before.rms:.4g} of the start "
            f"{found.spec}"
        ]
        for calls in (nfe, 2 * nfe):
            if (best := self.best(calls)) is not None:
                ratio = self.error.rms / best[1].rms if best[1].rms else float("nan")
                lines[0] += f"; {ratio:.2f} of the best fixed sampler at {calls} ({best[0]})"
        ratio = found.select / found.tune if found.tune else float("nan")
        units = "" if setup.featured is None else ", in units of the objective"
        lines.append(
            f"on fresh noises the error is {ratio:.2f} times that on the noises to tune on "
            f"({found.select:.4g} and {found.tune:.4g}{units}; near 1 it holds for others); "
            f"{found.size} numbers"
        )
        if found.landing is not None:
            above = found.plan.history
            history = f", and looks back at {above} of its predictions" if above else ""
            lines.append(
                f"starts below the first level: a Gaussian fitted to the model's samples is solved "
                f"in one step down to sigma/alpha = {found.landing:.4g}{history}"
            )
        return lines
