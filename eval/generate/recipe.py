"""What ``fewstep gen`` is told, in a form that ``config.json`` keeps: it makes the run again."""

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fewstep.eval.common.processes import resolve_device
from fewstep.eval.generate.seeds import read_seeds, seeds_text
from fewstep.eval.generate.shards import ShardFolder
from fewstep.eval.generate.units import Classes, Generation, Keep
from fewstep.eval.networks.families import load_extractor
from fewstep.eval.problems import Problem, ProblemDtype, load_problem
from fewstep.samplers import Plan
from fewstep.samplers.solvers.registry import names_file


@dataclass(frozen=True)
class Recipe:
    """Samples to be generated, by names.

    Attributes:
        model: as :func:`load_problem` reads it.
        sampler: a spec, or the table of a plan.
        nfe: calls of the sampler.
        seeds: as in ``0-49999`` or ``1,2,5-9``.
        guidance: as ``parse_guidance`` reads it.
        classes, unit, keep: as in :class:`Generation`.
        extractor: as :func:`load_extractor` reads it, or None.
        weights: a file of its weights, or None for the usual ones.
        prompts: texts, one a line, for a model that takes text.
        dtype: of a pipeline's network: ``float32``, ``float16``, ``bfloat16``.
    """

    model: str
    sampler: str | dict[str, Any]
    nfe: int
    seeds: str = "0-49999"
    guidance: str = "none"
    classes: Classes = "uniform"
    unit: int = 64
    keep: Keep = "images"
    extractor: str | None = None
    weights: str | None = None
    prompts: str | None = None
    dtype: ProblemDtype = "float32"

    @classmethod
    def of(cls, run: Generation) -> "Recipe":
        """As far as a run can tell: prompts and dtype of a pipeline are not known."""
        given = run.sampler
        spec = None if isinstance(given, Plan) or names_file(given) else given
        return cls(
            run.problem.name, spec or run.plan.table(), run.nfe, seeds_text(run.seeds),
            run.guidance, run.classes, run.unit_size, run.keep,
            None if run.extractor is None else run.extractor.name,
        )  # fmt: skip

    def options(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def build(self, device: str, problem: Problem | None = None) -> Generation:
        """The run; the extractor is looked for before all else, and nothing is sampled.

        Args:
            device: a torch device.
            problem: that of :meth:`problem`, if it is there already; loaded if None.

        Raises:
            ValueError: for whatever does not fit.
            FileNotFoundError: if weights or a plan are missing.
            ExtractorUnavailableError: if the extractor cannot be had (exit status 3).
        """
        extractor = None
        if self.extractor is not None:
            weights = None if self.weights is None else Path(self.weights)
            extractor = load_extractor(self.extractor, device, weights)
        elif self.weights is not None:
            raise ValueError(f"weights are of an extractor, and none was named; got {self.weights}")
        sampler = self.sampler if isinstance(self.sampler, str) else Plan.from_table(self.sampler)
        return Generation(
            problem or self.problem(device), sampler, self.nfe, read_seeds(self.seeds),
            self.guidance, self.unit, self.classes, self.keep, extractor,
        )  # fmt: skip

    def problem(self, device: str) -> Problem:
        """The model alone.

        Raises:
            ValueError, FileNotFoundError: if it cannot be had, in one line.
        """
        if self.prompts is None:
            return load_problem(self.model, device, dtype=self.dtype)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "prompts.txt"
            path.write_text(self.prompts)
            return load_problem(self.model, device, prompts=path, dtype=self.dtype)


def run_from_folder(folder: str | Path, device: str = "auto") -> Generation:
    """The run that a folder was made by, to go on with it or to make units again.

    Args:
        folder: where samples were generated.
        device: a torch device, or ``auto``: CUDA where there is one.

    Raises:
        FileNotFoundError: if nothing was generated there, or weights are missing.
        ValueError: if the model or the extractor cannot be had by name, as those of a run that was
            put together in python.
        ExtractorUnavailableError: if the extractor cannot be had (exit status 3).
    """
    return Recipe(**ShardFolder(folder).options()).build(resolve_device(device))
