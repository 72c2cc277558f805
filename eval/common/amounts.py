"""Bytes, seconds, small numbers and long texts as people read them."""

from fewstep.progress import minutes_text

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def bytes_text(count: float) -> str:
    """As in ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def seconds_text(seconds: float) -> str:
    """As in ``3.2 s``, ``5 min`` or ``2 h 10 min``."""
    return f"{seconds:.1f} s" if seconds < 60 else minutes_text(seconds)


def time_text(seconds: float) -> str:
    """Three digits in the unit that fits, as in ``50 µs``, ``38.2 ms`` or ``1.5 s``."""
    if seconds >= 60:
        return seconds_text(seconds)
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= 0.9995 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns" if seconds else "0 s"


def number_text(value: float) -> str:
    """A number of an axis, as in ``0.05`` or ``2×10⁻⁵``, and never as in ``2e-05``."""
    if value == 0 or 1e-4 <= abs(value) < 1e5:
        return f"{value:g}"
    digits, _, power = f"{value:.2e}".partition("e")
    digits = f"{float(digits):g}"
    raised = str(int(power)).translate(RAISED)
    return f"10{raised}" if digits == "1" else f"{digits}\u00d710{raised}"


def short_mean(mean: float) -> int | float:
    """A mean for a file: whole where it is, else with two digits."""
    return int(mean) if mean == int(mean) else round(mean, 2)


def shortened(text: str, longest: int) -> str:
    """The text, or its beginning and an ellipsis, in at most ``longest`` letters."""
    return text if len(text) <= longest else f"{text[: longest - 1].rstrip(',- ')}\u2026"
