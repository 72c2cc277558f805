"""Ctrl-C and SIGTERM: one line, of several processes from rank 0, and the status of the signal."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import call
from launchers import LAUNCHERS

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
LINE = "interrupted; what is finished is kept\n"
ASLEEP = """
import sys, time
from fewstep.eval import cli
from fewstep.eval.cli import lists
def sleep(*given):
    print("asleep", flush=True)
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        if PEERS_LOST:
            raise RuntimeError("[gloo] Connection closed by peer")
        raise
lists.show_lists = sleep
cli.main(["list"])
"""


@pytest.mark.parametrize("number", STATUS)
def test_a_process_alone(
    number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [signal.getsignal(each) for each in STATUS]
    monkeypatch.setattr(
        "fewstep.eval.cli.lists.show_lists", lambda *given: os.kill(os.getpid(), number)
    )
    assert call("list") == STATUS[number]
    assert capsys.readouterr() == ("", LINE)
    assert [signal.getsignal(each) for each in STATUS] == before


def test_another_thread_handles_no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewstep.eval.cli.lists.show_lists", lambda *given: None)
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(call("list")))
    thread.start()
    thread.join()
    assert found == [0]


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("number", STATUS)
@pytest.mark.parametrize("lost", [False, True], ids=["alone", "after its peers"])
def test_a_process_among_several(number: int, rank: str, lost: bool) -> None:
    """A second signal, as launchers send it, and lost connections change nothing."""
    process = subprocess.Popen(
        [sys.executable, "-c", ASLEEP.replace("PEERS_LOST", str(lost))],
        env={**os.environ, "RANK": rank, "WORLD_SIZE": "2"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "asleep\n"
    for _ in range(2):
        process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert errors == (LINE if rank == "0" else "")
    assert process.returncode == STATUS[number]


@pytest.mark.slow
@pytest.mark.parametrize("number", STATUS)
def test_under_torchrun(number: int, tmp_path: Path) -> None:
    """What its own process prints aside, a signal to all, as from a terminal, is one line."""
    command = ["-m", "fewstep", "gen", "-s", "ddim", "--nfe", "20", "-m", "fashion-exact",
               "--seeds", "0-99999", "--unit", "4", "-o", "run"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", *LAUNCHERS["torchrun"], "2", *command],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not _ranks_at_work(tmp_path / "run") and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=120)
    ours, _, theirs = errors.partition("Traceback (most recent call last)")
    said = [line for line in ours.splitlines() if "torch/distributed" not in line]
    assert [line for line in said if "fewstep" in line or "interrupted" in line] == [
        "interrupted; the same command goes on with what is finished"
    ]
    assert "fewstep/" not in theirs


def _ranks_at_work(folder: Path) -> bool:
    files: list[Any] = [folder / f"journal-{rank}.jsonl" for rank in (0, 1)]
    return all(path.is_file() and path.stat().st_size for path in files)
