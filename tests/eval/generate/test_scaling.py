"""The comparison of one process with several compares what it says."""

import os
from pathlib import Path

import pytest
from launchers import launch

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
from pathlib import Path
import torch
from generation_runs import blobs, small_run
from fewstep.eval.common.processes import Processes
from scaling import measure
processes = Processes.start("cpu")
run = small_run(48, problem=blobs(pause=0.05))
found = measure(run, processes, Path(sys.argv[1]))
if processes.is_main:
    print(found.alone, found.together, found.speedup, found.equal)
"""


@pytest.mark.slow
def test_one_process_beside_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that only waits: twelve units of three calls, by one process and by two."""
    folders = (ROOT / "tests" / "support", ROOT / "notebooks" / "studies")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = launch("torchrun", 2, str(script), str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    alone, together, speedup, equal = done.stdout.split()
    assert float(alone) > 36 * 0.05
    assert float(together) > 18 * 0.05
    assert float(speedup) == float(alone) / float(together)
    assert equal == "True"


@pytest.mark.slow
def test_one_process_has_nothing_to_compare() -> None:
    done = launch(
        "torchrun", 1, str(Path(__file__).parents[3] / "notebooks" / "studies" / "scaling.py")
    )
    assert done.returncode != 0
    assert "torchrun --nproc-per-node 2 notebooks/studies/scaling.py" in done.stderr
