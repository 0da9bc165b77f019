"""Why some of many prompts failed: equal causes are counted together, whatever they name."""

import re
from collections import Counter
from collections.abc import Sequence

from services.errors import CAUSE_CHARACTERS, GAP, shortened

_SHOWN = 3
"""Causes that are written out."""
_NUMBERS = re.compile(r"\b0x[0-9a-f]+\b|\b[0-9a-f]{8}[0-9a-f-]*\b|\d+(\.\d+)?")
"""Addresses, hashes, numbers."""
_QUOTED = re.compile(r"(?<!\w)'[^']*(?:'|$)|\"[^\"]*(?:\"|$)")
"""What follows a gap that `shortened` has left is cut off before: a quote may be open then."""
_QUOTED_BUT_KEYS = re.compile(r"(?<!KeyError: )(?:" + _QUOTED.pattern + ")")


def causes(failures: Sequence[tuple[str, str]]) -> str:
    """(prompt ID, its error) as "30 x ..., 2 x ...", the most frequent first; "" for none.

    The prompt, the numbers and the texts that an error names do not make it another error; the key
    of a KeyError does, unless that makes more than three. The first of a kind is shown; what is
    rarer than three others is only counted.
    """
    errors = [error.replace(id, "a prompt") if id else error for id, error in failures]
    heads = [error.partition(GAP)[0] for error in errors]
    kinds = [_QUOTED_BUT_KEYS.sub("#", _NUMBERS.sub("#", head)) for head in heads]
    if len(set(kinds)) > _SHOWN:
        kinds = [_QUOTED.sub("#", kind) for kind in kinds]
    first = dict(zip(reversed(kinds), reversed(errors), strict=True))
    counted = Counter(kinds).most_common()
    told = [f"{n} x {shortened(first[kind], CAUSE_CHARACTERS)}" for kind, n in counted[:_SHOWN]]
    if others := [n for _, n in counted[_SHOWN:]]:
        told.append(f"{sum(others)} x {len(others)} other errors")
    return ", ".join(told)


def too_many_lost(lost: int, of: int, allowed: float) -> bool:
    """Whether more than the share `allowed`, or every one, of so many prompts were lost."""
    return lost > allowed * of or lost >= max(1, of)


def lost_to_errors(lost: int, of: int, why: str, budget: str = "") -> str:
    """ "3 of 20 prompts were lost to an error (<budget>): <why>"; no budget is named for all."""
    if lost >= of:
        return f"every prompt was lost to an error: {why}"
    allowed = f" ({budget})" if budget else ""
    return f"{lost} of {of} prompts were lost to an error{allowed}: {why}"
