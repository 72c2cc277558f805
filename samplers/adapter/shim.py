"""A saved pipeline that loads where fewstep is installed but was not imported.

``model_index.json`` calls our schedulers ``["fewstep", "UniPC"]``. diffusers reads that as a file
``fewstep.py`` beside the scheduler's config if there is one, which it runs if told
``trust_remote_code=True``, and else as a module that must be imported already. The shim is that
file. The index stays as it is, so a scheduler can still be passed with ``scheduler=``, which
diffusers refuses for libraries that it does not know.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from fewstep.writing import writing

INDEX = "model_index.json"
NAME = "fewstep.py"
MARK = '"""Where diffusers finds the scheduler of this pipeline'
# The same for each class: diffusers copies the shims of all local pipelines to one place.
SHIM = f'''{MARK}; written by fewstep.write_shim().

Load the pipeline with trust_remote_code=True, in an environment with the package fewstep.
"""

try:
    import fewstep
except ImportError as error:
    raise ImportError(
        "the scheduler of this pipeline is part of the package fewstep: run `pip install fewstep`"
    ) from error


def __getattr__(name):
    return getattr(fewstep, name)
'''


def write_shim(folder: str | os.PathLike[str]) -> Path:
    """Lets people load a saved pipeline of ours without ``import fewstep``.

    They say ``DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)``. From then on
    ``trust_remote_code=True`` is needed where fewstep was imported, too, unless a scheduler is
    passed with ``scheduler=``. A pipeline on the Hub cannot be loaded without the shim at all.
    ``save_pretrained`` does not write it again elsewhere. Calling this twice changes nothing.

    Args:
        folder: what ``pipe.save_pretrained(folder)`` wrote.

    Returns:
        The shim, ``folder/scheduler/fewstep.py``.

    Raises:
        ValueError: if the folder is not a saved pipeline, none of its schedulers is ours, or a file
            of that name is there that this function did not write. Nothing is written then.
    """
    root = Path(folder)
    shims = [root / component / NAME for component in _components_of_ours(root)]
    for path in shims:
        if not path.parent.is_dir():
            raise ValueError(f"{root} has no folder {path.parent.name!r}: {_save_again(root)}")
        if path.exists() and not path.read_text().startswith(MARK):
            raise ValueError(f"{path} is not a shim of ours: move it away and call this again")
    for path in shims:
        _replace(path, SHIM)
    return shims[0]


def _components_of_ours(root: Path) -> list[str]:
    """The components of a saved pipeline that come from this package, ``scheduler`` first."""
    index = _read_index(root)
    pairs = {
        name: entry for name, entry in index.items() if isinstance(entry, list) and len(entry) == 2
    }
    ours = [name for name, (library, _) in pairs.items() if library == "fewstep"]
    if not ours:
        library, name = pairs.get("scheduler", ("no", "scheduler"))
        raise ValueError(
            f"the scheduler of {root} is {library}.{name}, not one of fewstep: set pipe.scheduler "
            "= fewstep.UniPC.from_config(pipe.scheduler.config) and save the pipeline again"
        )
    return sorted(ours, key=lambda name: name != "scheduler")


def _read_index(root: Path) -> dict[str, Any]:
    try:
        index = json.loads((root / INDEX).read_text())
    except (OSError, ValueError):
        index = None
    if not isinstance(index, dict):
        raise ValueError(
            f"{root} is not a saved pipeline, no readable {INDEX}: {_save_again(root)}"
        )
    return index


def _save_again(root: Path) -> str:
    return f"call pipe.save_pretrained({str(root)!r}) first"


def _replace(path: Path, text: str) -> None:
    """Writes a file in one step: whoever reads it finds the old one or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with writing(path), os.fdopen(handle, "w") as file:
            file.write(text)
        os.chmod(name, 0o644)  # mkstemp makes files that nobody else can read
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
