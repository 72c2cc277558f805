"""Files of plans: one that is plan and scheduler config at once, and a folder with a start.

A tuned plan is kept as the config of a :class:`fewstep.PlanScheduler` that holds its table, in one
JSON file. ``Plan.load``, ``sample`` and ``fewstep bench`` read the table, and diffusers reads the
config. A folder has it as ``scheduler_config.json``, and ``start.safetensors`` with the Gaussian
that takes the noise to the first level, if the plan starts so.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewstep.samplers.adapter.schedulers import PlanScheduler
from fewstep.samplers.core.plan import CONFIG, Plan
from fewstep.samplers.gaussian.class_gaussians import START, ClassGaussians, save_gaussian
from fewstep.samplers.gaussian.gaussian import GaussianFit
from fewstep.writing import writing


def save_tuned(
    path: str | Path,
    plans: Sequence[Plan],
    config: Mapping[str, Any],
    gaussian: GaussianFit | ClassGaussians | None = None,
) -> None:
    """Writes plans as the config of a ``PlanScheduler``, whole or not at all.

    Args:
        path: a ``.json`` file, or a folder, which is made if needed and may hold other files.
        plans: of different numbers of calls, for the noise process of ``config``.
        config: of a pipeline's scheduler, or of
            :func:`fewstep.samplers.adapter.process_config.scheduler_config`.
        gaussian: that the plans start from; needed if one does, and no other time.

    Raises:
        ValueError: for plans that do not fit the config or each other, or a Gaussian to a file.
    """
    path = Path(path)
    landed = [plan for plan in plans if "landing" in plan.provenance]
    if bool(landed) != (gaussian is not None):
        raise ValueError(
            f"the plan {landed[0].name!r} starts from a Gaussian: pass gaussian="
            if landed
            else "none of these plans starts from a Gaussian: pass none"
        )
    single = path.suffix.lower() == ".json"
    if single and gaussian is not None:
        raise ValueError(
            f"a plan that starts from a Gaussian needs a folder, for {START} beside {CONFIG}; got "
            f"the file {path}"
        )
    if path.is_dir() if single else path.is_file():
        raise ValueError(f"{path} is a {'folder' if single else 'file'}: choose another name")
    text = _config_text(plans, config)
    if single:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace({path: text.encode()})
        return
    path.mkdir(parents=True, exist_ok=True)
    files = {path / CONFIG: text.encode()}
    if gaussian is not None:
        # First, since the config is what makes the folder one of a plan.
        files = {path / START: _gaussian_bytes(gaussian), **files}
    _replace(files)
    if gaussian is None:
        (path / START).unlink(missing_ok=True)  # of a plan that was here before


def _config_text(plans: Sequence[Plan], config: Mapping[str, Any]) -> str:
    """The JSON of a scheduler that holds the plans and can run them."""
    counts = [plan.calls for plan in plans]
    if not counts or len(set(counts)) < len(counts):
        raise ValueError(f"plans of different numbers of calls, at least one; got {counts}")
    scheduler = PlanScheduler.from_config(config, plans=list(plans))
    for n in counts:
        scheduler.set_timesteps(n)
    text: str = scheduler.to_json_string()
    json.loads(text, parse_constant=_refuse)
    return text


def _refuse(constant: str) -> None:
    raise ValueError(f"JSON has no {constant}: leave it out of the plan's provenance")


def _gaussian_bytes(gaussian: GaussianFit | ClassGaussians) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save_gaussian(gaussian, Path(folder) / START)
        return (Path(folder) / START).read_bytes()


def _replace(files: Mapping[Path, bytes]) -> None:
    """Writes all, and only then gives them their names."""
    parts = {path: path.with_name(f".{path.name}.part") for path in files}
    try:
        for path, content in files.items():
            with writing(path):
                parts[path].write_bytes(content)
        for path, part in parts.items():
            part.replace(path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
