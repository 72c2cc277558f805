"""What the classes of a model are called, for pictures."""

from collections.abc import Sequence

from fewstep.eval.common.amounts import shortened
from fewstep.models.data import CLASS_NAMES

# Problems whose labels are the classes of Fashion-MNIST; a model of a user may be called alike.
FASHION = ("fashion", "fashion-edm", "fashion-exact", "fashion-exact-scaled")
LONGEST = 24


def class_names(problem: str, labels: Sequence[int], prompts: Sequence[str] = ()) -> list[str]:
    """A name for each label: a class of Fashion-MNIST, a prompt, or as in ``class 207``.

    Args:
        problem: as ``load_problem`` reads it.
        labels: of samples.
        prompts: of a model that takes text, label i for prompt i; long ones are cut.
    """
    known = [shortened(text, LONGEST) for text in prompts] or list(
        CLASS_NAMES if problem in FASHION else ()
    )
    return [known[i] if i < len(known) else f"class {i}" for i in labels]
