"""Guidance: sources of directions, modifiers of them, and hooks on a run.

``sample(guidance=(ICG(1.4) | Interval(0.28, 2.9)) + TSG())``.
"""

from typing import TYPE_CHECKING

if __name__ != "fewstep.guidance":
    raise ImportError(f"import fewstep.guidance, not {__name__}")

from fewstep.late import late

if TYPE_CHECKING:
    from fewstep.guidance.attachment import Attachment, attach, detach
    from fewstep.guidance.context import Context, Counters
    from fewstep.guidance.contrast import CFG, Autoguidance
    from fewstep.guidance.driver import GuidedDenoiser
    from fewstep.guidance.expression import Expression, Modifier, Source, guide
    from fewstep.guidance.gfcg import GFCG
    from fewstep.guidance.gradients import ClassifierGuidance, EnergyGuidance
    from fewstep.guidance.hooks import BoostAndSkip, FKSteering
    from fewstep.guidance.independent import ICG, TSG
    from fewstep.guidance.minority import Minority, SelfMinority
    from fewstep.guidance.modifiers import CFGpp, Every, Interval, ScaleSchedule
    from fewstep.guidance.parse import parse_guidance
    from fewstep.guidance.rows import Direction, Row
    from fewstep.guidance.shaping import DynamicThreshold, Project, Rescale, ZeroStar

__all__ = [
    "CFG",
    "GFCG",
    "ICG",
    "TSG",
    "Attachment",
    "Autoguidance",
    "BoostAndSkip",
    "CFGpp",
    "ClassifierGuidance",
    "Context",
    "Counters",
    "Direction",
    "DynamicThreshold",
    "EnergyGuidance",
    "Every",
    "Expression",
    "FKSteering",
    "GuidedDenoiser",
    "Interval",
    "Minority",
    "Modifier",
    "Project",
    "Rescale",
    "Row",
    "ScaleSchedule",
    "SelfMinority",
    "Source",
    "ZeroStar",
    "attach",
    "detach",
    "guide",
    "parse_guidance",
]

_NAMES = {
    "attachment": ("Attachment", "attach", "detach"),
    "context": ("Context", "Counters"),
    "contrast": ("CFG", "Autoguidance"),
    "driver": ("GuidedDenoiser",),
    "expression": ("Expression", "Modifier", "Source", "guide"),
    "gfcg": ("GFCG",),
    "gradients": ("ClassifierGuidance", "EnergyGuidance"),
    "hooks": ("BoostAndSkip", "FKSteering"),
    "independent": ("ICG", "TSG"),
    "minority": ("Minority", "SelfMinority"),
    "modifiers": ("CFGpp", "Every", "Interval", "ScaleSchedule"),
    "parse": ("parse_guidance",),
    "rows": ("Direction", "Row"),
    "shaping": ("DynamicThreshold", "Project", "Rescale", "ZeroStar"),
}
_HOMES = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}
__getattr__, __dir__ = late(__name__, _HOMES)
