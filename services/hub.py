"""Names on the Hugging Face hub: the one answer to what such a name is and where it is found.

A path that is there is a path. Anything else of the form owner/name, not ending in a data file's
suffix, is a hub name. What a run needs from the hub is asked for before anything starts.
"""

import re
from pathlib import Path
from typing import Literal

from services.errors import ArtifactError, UnreachableError

RepoType = Literal["model", "dataset"]

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_DATA_FILES = (".json", ".jsonl", ".parquet", ".csv", ".tsv", ".txt", ".gz", ".zst", ".zip")
_ASK_S = 4.0


def is_hub_name(path: str) -> bool:
    """Whether a path that is nothing here can be a name on the hub: "owner/name"."""
    if not _NAME.fullmatch(path) or Path(path).suffix in _DATA_FILES:
        return False
    return not Path(path).exists()


def find_model(path: str, folder: str = "") -> str:
    """The folder of a model, or its hub name where there is no such folder.

    A relative path starts at `folder`. Raises ArtifactError when it is neither.
    """
    local = Path(folder, path)
    if (local / "config.json").is_file():
        return str(local)
    if local.exists():
        raise ArtifactError(f"{path}: no config.json in it, so this is no model folder")
    if not is_hub_name(path):
        raise ArtifactError(f"{path}: there is no such model folder (a hub name is owner/model)")
    return path


def require_on_hub(name: str, kind: RepoType, key: str) -> None:
    """Return when the hub's cache here holds it or the hub says that it is there.

    Raises UnreachableError, within some five seconds, when there is no such name, it is not to be
    read without a token, or the hub does not answer. `key` is where a user finds the name.
    """
    # Imported here: most runs name nothing on the hub.
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError

    if _cached(name, kind):
        return
    if constants.HF_HUB_OFFLINE:
        raise UnreachableError(
            f"'{key}': {name} is not in the hub's cache here and HF_HUB_OFFLINE is set; unset it,"
            " or give a folder"
        )
    try:
        HfApi().repo_info(name, repo_type=kind, timeout=_ASK_S)
    except RepositoryNotFoundError:
        raise UnreachableError(
            f"'{key}': there is no folder {name}, and no such {kind} on the hub that can be read"
            " without a token (HF_TOKEN); correct the name, or give a folder"
        ) from None
    except Exception as error:  # noqa: BLE001 - of whichever HTTP client the hub's library has
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UnreachableError(
            f"'{key}': there is no folder {name}, and the hub at {constants.ENDPOINT} does not"
            f" answer ({reason}); give a folder, or reach the hub"
        ) from None


def cached_model(name: str) -> Path | None:
    """The folder of a model's newest revision in the hub's cache here; nothing is asked for."""
    found = [path.parent for path in _cached(name, "model") if path.name == "config.json"]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _cached(name: str, kind: RepoType) -> list[Path]:
    """Files of the revisions that were fetched before."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)
    return list((folder / "snapshots").glob("*/*"))
