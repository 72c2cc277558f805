"""Which device torch will take, asked of its build and of the driver; torch is not imported."""

import ast
import ctypes
import importlib.util
import os
import platform
import sys
from pathlib import Path

_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def device_text() -> str:
    """As in ``cpu (x86_64), 8 CPUs`` or ``cuda (NVIDIA H200), 16 CPUs``, and why it is no GPU."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS")
    cpus = f"{count} CPUs" + (f", OMP_NUM_THREADS={threads}" if threads else "")
    cpu = f"cpu ({platform.machine()}), {cpus}"
    build = torch_build()
    if hip := build.get("hip"):
        return f"{cpu}; torch is built for ROCm {hip}, whose devices only torch itself can list"
    if not (wanted := build.get("cuda")):
        return f"{cpu}; torch is built without CUDA"
    names, version = nvidia_devices()
    if not names:
        return f"{cpu}; torch is built for CUDA {wanted}, and no NVIDIA device is found"
    if version[0] < int(wanted.partition(".")[0]):
        old = ".".join(map(str, version))
        return f"{cpu}; {names[0]}'s driver is of CUDA {old}, too old for torch's CUDA {wanted}"
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"cuda ({names[0]}{more}), {cpus}"


def torch_build() -> dict[str, str | None]:
    """The plain values of torch's ``version.py``; none if it is not there."""
    spec = importlib.util.find_spec("torch")
    places = (spec.submodule_search_locations if spec else None) or ()
    for path in (Path(place) / "version.py" for place in places):
        if path.is_file():
            return {
                target.id: None if node.value.value is None else str(node.value.value)
                for node in ast.parse(path.read_text()).body
                if isinstance(node, ast.Assign | ast.AnnAssign)
                and isinstance(node.value, ast.Constant)
                for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
                if isinstance(target, ast.Name)
            }
    return {}


def nvidia_devices() -> tuple[list[str], tuple[int, int]]:
    """Names of the devices that the driver lets this process see, and the driver's CUDA version."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return [], (0, 0)
    count, version = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return [], (0, 0)
    driver.cuDriverGetVersion(ctypes.byref(version))
    names, text = [], ctypes.create_string_buffer(256)
    for number in range(count.value):
        driver.cuDeviceGetName(text, len(text), number)
        names.append(text.value.decode(errors="replace"))
    return names, (version.value // 1000, version.value % 1000 // 10)
