"""What ``fewstep doctor`` looks at: whether all is there before hours of sampling begin."""

import hashlib
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fewstep.eval.cache import cache_folder
from fewstep.eval.networks.extractors import EXTRACTORS
from fewstep.eval.networks.inception import build_network
from fewstep.eval.networks.inception_weights import (
    INCEPTION_SHA256,
    URL,
    ExtractorUnavailableError,
    find_weights,
)
from fewstep.eval.processes import resolve_device
from fewstep.eval.reports.results import check_writable
from fewstep.models import bundled, data

PACKAGES = (
    "torch", "diffusers", "numpy", "torchdiffeq", "safetensors", "matplotlib", "accelerate",
    "pydantic", "PyYAML", "jinja2",
)  # fmt: skip
OPTIONAL = ("torchvision", "pytorch-fid", "transformers", "scipy")


def show_health() -> bool:
    """Prints the state of the installation; False if something needed is missing."""
    table = Table("what", "state", "", box=SIMPLE_HEAD)
    healthy = True
    for what, (fine, text) in _checks().items():
        needed = not what.startswith("optional")
        healthy = healthy and (fine or not needed)
        mark = "[green]ok[/green]" if fine else "[red]missing[/red]" if needed else "[dim]-[/dim]"
        table.add_row(what, mark, escape(text))
    Console().print(table)
    return healthy


def _checks() -> dict[str, tuple[bool, str]]:
    checks = {"python": (True, f"{platform.python_version()}, {platform.platform(terse=True)}")}
    checks |= {name: _installed(name) for name in PACKAGES}
    device = resolve_device("auto")
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    checks["device"] = (True, f"{device} ({name}), {torch.get_num_threads()} threads")
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
    try:
        build_network()
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
