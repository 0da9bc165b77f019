"""A random id that lies in a folder: whoever goes on there has the same."""

import uuid
from pathlib import Path


def kept_id(path: Path, digits: int) -> str:
    """The id in a file, made if there is none, or an empty one as a full disk leaves it."""
    if not path.is_file() or not path.read_text(encoding="utf-8"):
        path.write_text(uuid.uuid4().hex[:digits], encoding="utf-8")
    return path.read_text(encoding="utf-8")
