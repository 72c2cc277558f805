"""What ``fewstep doctor`` looks at: whether all is there before hours of sampling begin.

Nothing that takes seconds is imported: versions are those of the installed packages' metadata.
"""

import hashlib
import importlib.util
import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from fewstep.eval.cli.device import device_text
from fewstep.eval.common.folders import cache_folder, check_writable
from fewstep.eval.common.text import print_line, terminal_width, wrapped
from fewstep.eval.networks.families import EXTRACTORS
from fewstep.eval.networks.inception_weights import (
    INCEPTION_SHA256,
    URL,
    ExtractorUnavailableError,
    find_weights,
)
from fewstep.models import bundled, data

PACKAGES = (
    "torch", "diffusers", "numpy", "torchdiffeq", "safetensors", "matplotlib", "accelerate",
    "pydantic", "PyYAML", "jinja2",
)  # fmt: skip
NEEDED_BY_INCEPTION = ("pytorch_fid", "torchvision")
OPTIONAL = ("torchvision", "pytorch-fid", "transformers", "scipy")


INDENT = 39  # columns of names and states
COLOURS = {"ok": "32", "missing": "31", "-": "2"}  # of terminals


def show_health() -> bool:
    """Prints the state of the installation, whole; False if something needed is missing."""
    healthy, width = True, terminal_width()
    for what, (fine, text) in _checks().items():
        needed = not what.startswith("optional")
        healthy = healthy and (fine or not needed)
        mark = "ok" if fine else "missing" if needed else "-"
        rest = INDENT if width is None or width >= 2 * INDENT else 4
        line = wrapped(text, width, f"{what:<29} {mark:<8} ", " " * rest)
        if sys.stdout.isatty():
            state = f" {mark:<8} "
            line = line.replace(state, f" \033[{COLOURS[mark]}m{mark:<8}\033[0m ", 1)
        print_line(line)
    return healthy


def _checks() -> dict[str, tuple[bool, str]]:
    checks = {"python": (True, f"{platform.python_version()}, {platform.platform(terse=True)}")}
    checks |= {name: _installed(name) for name in PACKAGES}
    checks["device"] = (True, device_text())
    for weights in bundled.COMMANDS:
        checks[f"weights: {weights}"] = _weights(weights)
    checks["cache folder"] = _cache()
    try:
        checks["optional: dataset"] = (True, str(data.fashion_folder(download=False)))
    except FileNotFoundError as error:
        checks["optional: dataset"] = (False, str(error))
    checks |= {f"optional: {name}": _installed(name) for name in OPTIONAL}
    return checks | _extractors()


def _extractors() -> dict[str, tuple[bool, str]]:
    """Each family of extractors, and what it lacks here; nothing is fetched."""
    known: dict[str, Callable[[], tuple[bool, str]]] = {
        "inception": _inception,
        "fd-cnn": lambda: _weights("classifier"),
        "pixels": lambda: (True, "needs no weights"),
    }
    return {
        f"optional: extractor {family}": known.get(family, lambda: (True, "registered"))()
        for family in EXTRACTORS
    }


def _inception() -> tuple[bool, str]:
    """The FID network's packages and weights, and whether these are the published ones."""
    lacking = [name for name in NEEDED_BY_INCEPTION if importlib.util.find_spec(name) is None]
    if lacking:
        return False, f"needs {' and '.join(lacking)}; run pip install fewstep[fid]"
    try:
        path = find_weights(download=False)
    except ExtractorUnavailableError as error:
        return False, str(error)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != INCEPTION_SHA256:
        return False, f"{path} has SHA-256 {found[:16]}, not {INCEPTION_SHA256[:16]}; from {URL}"
    return True, f"{path}, sha256 {found[:16]}"


def _installed(name: str) -> tuple[bool, str]:
    try:
        return True, version(name)
    except PackageNotFoundError:
        return False, f"pip install {name}"


def _weights(name: str) -> tuple[bool, str]:
    try:
        return True, f"sha256 {bundled.weights_sha256(name)[:16]}"
    except FileNotFoundError as error:
        return False, str(error)


def _cache() -> tuple[bool, str]:
    try:
        check_writable(cache_folder())
    except ValueError as error:
        return False, f"{error}, in FEWSTEP_CACHE"
    return True, str(cache_folder())
