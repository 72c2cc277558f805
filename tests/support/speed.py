"""What takes how long, beside what was asked: ``make speed``, on a machine that does nothing else.

Nothing fails here: the ratios are of one machine in one minute. A line that falls short twice in a
row on an idle machine is worth a look.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from gaussians import features, gaussian
from launchers import launch
from peer_frechet import pytorch_fid_distance
from random_inception import pictures, random_tensors, released, save

from fewstep.eval.generate.generation import generate_images
from fewstep.eval.generate.units import Generation
from fewstep.eval.generate.verification import verify
from fewstep.eval.metrics.frechet import (
    FrechetReference,
    frechet_distance,
    frechet_distance_low_rank,
)
from fewstep.eval.networks.families import load_extractor
from fewstep.eval.networks.inception import InceptionExtractor
from fewstep.eval.problems import load_problem
from fewstep.samplers.tuning.dp import best_path
from fewstep.types import Level

Line = tuple[str, str, str]  # what, measured, asked

TWO_PROCESSES = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from generation_runs import blobs, small_run
from fewstep.eval.common.processes import Processes
from scaling import measure
processes = Processes.start("cpu")
found = measure(small_run(48, problem=blobs(pause=0.05)), processes, Path(sys.argv[1]))
if processes.is_main:
    print(found.speedup)
"""


def cpu_seconds(run: Callable[[], object], repeats: int = 3) -> float:
    """Median processor time of this thread."""
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        run()
        times.append(time.thread_time() - start)
    return sorted(times)[repeats // 2]


def network() -> Iterator[Line]:
    """By which every other time of the bundled model can be judged."""
    denoiser = load_problem("fashion").denoiser
    x, labels = torch.randn(64, 1, 28, 28), torch.arange(64) % 10
    with torch.no_grad():
        seconds = cpu_seconds(lambda: denoiser(x, Level(0.5, 1.0, 0.5), labels))
    yield "rows of the bundled network a second, of 64, one thread", f"{64 / seconds:.0f}", ""


def frechet() -> Iterator[Line]:
    """Against pytorch-fid, in processor time of one thread."""
    for decay in (0.0, 0.5, 1.0):
        first, second = (gaussian(features(6000, 2048, seed, decay)) for seed in (1, 5))
        ours = cpu_seconds(lambda a=first, b=second: frechet_distance(*a, *b))
        theirs = cpu_seconds(lambda a=first, b=second: pytorch_fid_distance(*a, *b), 1)
        yield ratio(f"Frechet distance, 2048-d, decay {decay}", theirs / ours, 10)
    rows, second = features(1000, 2048, 1), gaussian(features(6000, 2048, 5))
    theirs = cpu_seconds(lambda: pytorch_fid_distance(*gaussian(rows), *second), 1)
    held = FrechetReference(*second)
    held.distance_of_features(rows)  # which factorises
    ours = cpu_seconds(lambda: held.distance_of_features(rows))
    yield ratio("of 1,000 samples, reference held", theirs / ours, 30)
    ours = cpu_seconds(lambda: frechet_distance_low_rank(rows, *second))
    yield ratio("of 1,000 samples, reference new", theirs / ours, 20)


def inception() -> Iterator[Line]:
    """Features of random weights, against pytorch-fid's network, batch (50) and resize."""
    tensors, images = random_tensors(), pictures(50)
    with tempfile.TemporaryDirectory() as folder:
        sha256 = save(tensors, Path(folder) / "random.pth")
        ours = InceptionExtractor(
            "pytorch-fid", weights=Path(folder) / "random.pth", expected_sha256=sha256
        )
        net = released(tensors)
    with torch.no_grad():
        theirs = cpu_seconds(lambda: net(images / 255), 2) / 50
    each = cpu_seconds(lambda: ours(images[:48]), 2) / 48
    yield ratio("Inception features", theirs / each, 2)


def processes() -> Iterator[Line]:
    """A network that only waits leaves nothing to the machine: what is lost is our own."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.py"
        script.write_text(TWO_PROCESSES)
        out, here = Path(folder) / "out", Path(__file__).resolve().parent
        studies = here.parents[1] / "notebooks" / "studies"
        done = launch("torchrun", 2, str(script), str(out), str(here), str(studies))
    if done.returncode:
        raise RuntimeError(done.stderr)
    yield ratio("generation by two processes", float(done.stdout), 1.7)


def saving() -> Iterator[Line]:
    """Of every unit; without images it is 50 times as often as usual."""
    problem, judge = load_problem("fashion"), load_extractor("fd-cnn:fashion")
    for keep in ("images", "none"):
        run = Generation(problem, "unipc", 8, range(192), keep=keep, extractor=judge)
        with tempfile.TemporaryDirectory() as folder:
            generate_images(run, Path(folder), checkpoint_units=1)
            log = json.loads((Path(folder) / "log-0.jsonl").read_text())
            share = log["save_seconds"] / verify(Path(folder)).seconds
        yield f"saving beside sampling, keep {keep}", f"{share:.1%}", "2 % at most"


def small_things() -> Iterator[Line]:
    cost = np.random.default_rng(0).random((200, 200))
    seconds = cpu_seconds(lambda: best_path(cost, 20))
    yield "best path, 200 nodes and 20 jumps", f"{seconds * 1e3:.1f} ms", "1 s at most"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "fewstep", "--help"], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    yield "fewstep --help, processor time", f"{spent:.2f} s", "1 s at most"


def ratio(what: str, measured: float, asked: float) -> Line:
    return what, f"{measured:.1f} times", f"{asked:g} times"


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"{'':60}{'measured':>20}{'asked':>16}")
    for measure in (network, small_things, saving, processes, inception, frechet):
        for what, measured, asked in measure():
            print(f"{what:60}{measured:>20}{asked:>16}", flush=True)
