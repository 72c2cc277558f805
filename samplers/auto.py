"""The grid of a sampler for which none was chosen."""

from fewstep.schedules.grids import Grid, make_grid
from fewstep.schedules.process import NoiseProcess


def auto_grid(
    sampler: str, process: NoiseProcess, steps: int, nfe: int, *, shift: float = 1.0
) -> Grid:
    """The default grid of ``sampler`` with ``steps`` steps."""
    return make_grid(process, steps, "karras", shift=shift)
