"""Files of plans: one that is plan and scheduler config at once, and a folder with a start.

A tuned plan is kept as the config of a :class:`fewstep.PlanScheduler` that holds its table, in one
JSON file. ``Plan.load``, ``sample`` and ``fewstep bench`` read the table, and diffusers reads the
config. A folder has it as ``scheduler_config.json``, and ``start.safetensors`` with the Gaussian
that takes the noise to the first level, if the plan starts so.
"""

import json
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewstep.samplers.core.plan import NO_PLAN, Plan
from fewstep.samplers.files.json_values import parse_json, read_bounded
from fewstep.samplers.files.plan_tables import read_plan
from fewstep.samplers.solvers.spec import SAMPLERS
from fewstep.writing import writing

if TYPE_CHECKING:  # a start is tensors, and takes torch; plans do not
    from fewstep.samplers.gaussian.class_gaussians import ClassGaussians
    from fewstep.samplers.gaussian.gaussian import GaussianFit

CONFIG, START = "scheduler_config.json", "start.safetensors"


def names_file(sampler: str | Path) -> bool:
    """Whether a sampler is given as a file or folder; a folder called as a solver needs ``./``."""
    text = str(sampler)
    if text.endswith(".json"):
        return True
    return text.partition(":")[0] not in SAMPLERS and os.path.isdir(text)


def load_plans(path: str | Path) -> tuple[Plan, ...]:
    """The plans of a file or folder, by their numbers of calls.

    Args:
        path: what ``Plan.save`` or :func:`save_tuned` wrote, or any config of a ``PlanScheduler``.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it holds none, or one that this version cannot read.
    """
    table = read_table(path)
    if table.get("kind") == "fewstep.plan":
        return (read_plan(table, str(path)),)
    held = table.get("plans")
    if not isinstance(held, list) or not held:
        raise ValueError(f"{path}: {NO_PLAN}, and no scheduler config with plans")
    return tuple(sorted(read_plans(held, str(path)), key=lambda plan: plan.calls))


def read_plans(tables: Sequence[Any], where: str) -> list[Plan]:
    """Plans of different numbers of calls.

    Raises:
        ValueError: for a table that is none, or two of as many calls.
    """
    plans = [read_plan(table, f"{where}, plans[{i}]") for i, table in enumerate(tables)]
    calls = [plan.calls for plan in plans]
    if twice := [n for i, n in enumerate(calls) if n in calls[:i]]:
        raise ValueError(f"{where} holds two plans of {twice[0]} calls: leave one out")
    return plans


def load_plan(path: str | Path, calls: int | None = None) -> Plan:
    """The plan of a file or folder that makes so many calls, or the only one.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if there is no such plan, or several and no number.
    """
    plans = load_plans(path)
    found = [plan for plan in plans if calls in (None, plan.calls)]
    if len(found) == 1:
        return found[0]
    numbers = ", ".join(str(plan.calls) for plan in plans)
    if calls is None:
        raise ValueError(f"{path} holds plans of {numbers} calls, say which by nfe")
    if len(plans) == 1:
        raise ValueError(
            f"{path}: the plan {plans[0].name!r} makes {numbers} calls, not {calls}: leave nfe "
            f"out, or make it {numbers}"
        )
    raise ValueError(f"{path} holds plans of {numbers} calls, not of {calls}")


def read_table(path: str | Path) -> dict[str, Any]:
    """The JSON object of a file, or of a folder's ``scheduler_config.json``.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is no JSON object, or a file too large for one.
    """
    file = Path(path) / CONFIG if Path(path).is_dir() else Path(path)
    if not file.exists():
        missing = f"{CONFIG} in the folder {path}" if Path(path).is_dir() else f"plan at {path}"
        raise FileNotFoundError(
            f"no {missing}; `fewstep tune` and `fewstep plan SPEC --nfe N --save` write plans"
        )
    content = read_bounded(file)
    try:
        table = parse_json(content, str(file))
    except ValueError as error:
        raise ValueError(f"this file is not a fewstep plan: {error}") from error
    if not isinstance(table, dict):
        raise ValueError(f"{file}: {NO_PLAN}")
    return table


def load_start(path: str | Path) -> "GaussianFit | ClassGaussians | None":
    """The Gaussian of a folder; None if it has none, and for a file."""
    file = Path(path) / START
    if not file.is_file():
        return None
    from fewstep.samplers.gaussian.class_gaussians import load_gaussian

    return load_gaussian(file)


def save_tuned(
    path: str | Path,
    plans: Sequence[Plan],
    config: Mapping[str, Any],
    gaussian: "GaussianFit | ClassGaussians | None" = None,
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
    from fewstep.samplers.adapter.schedulers import PlanScheduler  # which reads these files

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


def _gaussian_bytes(gaussian: "GaussianFit | ClassGaussians") -> bytes:
    from fewstep.samplers.gaussian.class_gaussians import save_gaussian

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


def check_prediction(plan: Plan, prediction_type: str) -> None:
    """Raises ValueError if a plan was tuned for a network that predicts something else."""
    wanted = plan.provenance.get("tuned", {}).get("prediction_type")
    if wanted is not None and wanted != prediction_type:
        raise ValueError(
            f"the plan {plan.name!r} was tuned for prediction_type {wanted!r}, this scheduler has "
            f"{prediction_type!r}: tune one for this model"
        )


def warn_other_model(plan: Plan, fingerprint: str, guidance: str | None = None) -> None:
    """Warns if a plan was tuned on another model than the one of this fingerprint.

    Args:
        plan: any.
        fingerprint: of the model.
        guidance: of the run, written as for the tuning; None if it is not known. Another one than
            the plan's is warned about too.
    """
    tuned = plan.provenance.get("tuned", {})
    under = tuned.get("guidance")
    if guidance is not None and under is not None and under != guidance:
        warnings.warn(
            f"the plan {plan.name!r} was tuned under guidance {under!r} and runs under "
            f"{guidance!r}: its errors do not carry over; tune one for this guidance",
            stacklevel=3,
        )
    known = tuned.get("model")
    if known is not None and known != fingerprint:
        warnings.warn(
            f"the plan {plan.name!r} was tuned on another model ({tuned.get('problem')}, "
            f"{known[:8]}) than this one ({fingerprint[:8]}): its errors do not carry over; tune "
            "one for this model",
            stacklevel=3,
        )
