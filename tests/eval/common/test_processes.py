"""Processes find each other under every launcher, and a single one needs no launcher."""

import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch.distributed
from launchers import LAUNCHERS, launch

from fewstep.eval.common.processes import Processes, launched, resolve_device

SCRIPT = """
import sys
import torch
from fewstep.eval.common.processes import Processes
found = Processes.start(sys.argv[1])
meeting = found.gathered(found.rank * 10)
found.barrier()
if found.is_main:
    print(found.rank, found.world, found.device, meeting, torch.distributed.get_backend())
"""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_a_process_alone_makes_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for world in (None, "1"):
        if world is not None:
            monkeypatch.setenv("WORLD_SIZE", world)
        found = Processes.start("cpu")
        assert found == Processes(0, 1, "cpu")
        assert found.is_main
        found.barrier()
        assert found.gathered("mine") == ["mine"]
        assert not torch.distributed.is_initialized()


def test_a_process_alone_leaves_accelerate_alone() -> None:
    code = (
        "import sys; from fewstep.eval.common.processes import Processes; Processes.start('cpu'); "
        "print('accelerate.state' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_launchers_are_found_out_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched() == (0, 1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert launched() == (1, 3)

    class PartialState:
        _shared_state: ClassVar[dict[str, bool]] = {"made": True}
        process_index, num_processes = 4, 5

    module = type("module", (), {"PartialState": PartialState})
    monkeypatch.setitem(sys.modules, "accelerate.state", module)
    assert launched() == (4, 5)
    monkeypatch.setattr(PartialState, "_shared_state", {})
    assert launched() == (1, 3)


def test_several_processes_share_out_cpus_or_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"2 processes work on cpu or cuda, .* got 'meta'"):
        Processes.start("meta")


def test_a_device_must_be_here() -> None:
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("nosuch", "cuda:99"):
        with pytest.raises(ValueError, match=rf"device '{name}' cannot be used .*--device auto"):
            resolve_device(name)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_processes_of_a_launcher_meet(tmp_path: Path, launcher: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = launch(launcher, 2, str(script), "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0 2 cpu [0, 10] gloo\n"
    assert "destroy_process_group" not in done.stderr  # torch warns where it is forgotten


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE"])
def test_what_no_launcher_sets_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "abc")
    with pytest.raises(ValueError, match=f"{name} of the environment.* got 'abc': unset it"):
        launched()
