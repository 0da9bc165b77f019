"""A path that is nothing here: which folder or file was likely meant."""

import difflib
from pathlib import Path


def taken_for_hub(path: str) -> str:
    """What is wrong with owner/name when a folder `owner` is here; "" when there is none.

    It can be no hub name by then: whoever has such a folder means what is in it.
    """
    parent = Path(path).parent
    if not parent.is_dir():
        return ""
    return f"there is no folder {path}{meant(path) or f' (there is a folder {parent})'}"


def meant(path: str) -> str:
    """ "; did you mean X?" for the name beside it that is nearest, or ""."""
    wanted = Path(path)
    try:
        there = sorted(each.name for each in wanted.parent.iterdir())
    except OSError:
        return ""
    close = difflib.get_close_matches(wanted.name, there, n=1)
    return f"; did you mean {wanted.parent / close[0]}?" if close else ""


def models_in(folder: str) -> str:
    """ "; the models in it: X, Y" for the folder of a run, or ""."""
    try:
        found = sorted(str(each.parent) for each in Path(folder).glob("*/config.json"))
    except OSError:
        return ""
    return f"; models in it: {', '.join(found)}" if found else ""
