"""Guidance: wrappers from denoiser to denoiser."""

if __name__ != "fewstep.guidance":
    raise ImportError(f"import fewstep.guidance, not {__name__}")

from fewstep.guidance.cfg import CFG, GuidedDenoiser, parse_guidance

__all__ = ["CFG", "GuidedDenoiser", "parse_guidance"]
