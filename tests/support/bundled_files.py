"""Whether the data set and the bundled weights are on this machine."""

from fewstep.models.bundled import weights_sha256
from fewstep.models.data import fashion_folder


def present(what: str) -> bool:
    """``"data"``, or the name of a weight file."""
    try:
        fashion_folder(download=False) if what == "data" else weights_sha256(what)
    except FileNotFoundError:
        return False
    return True
