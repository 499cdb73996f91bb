"""An exported folder onto the model hub, where the user is logged in; never a part of anything else."""

from pathlib import Path
from typing import Literal

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id

from videogpa.errors import InputError

CARD = "README.md"
PRIVATE_FILES = [".*", "**/.*"]


def push(folder: Path, repository: str, kind: Literal["model", "dataset"], *, public: bool = False) -> str:
    """Create the repository where there is none, upload the folder, and return its address.

    The endpoint and the token are huggingface_hub's own (`hf auth login`, `HF_TOKEN`, `HF_ENDPOINT`). A repository
    that is new is private unless `public`.

    Raises:
        InputError: nothing to push, a name that the hub does not take, nobody is logged in, or the hub refuses.
    """
    if not (folder / CARD).is_file():
        raise InputError(f"{folder} holds no {CARD}: push what an export has written")
    require_repository(repository)
    api = HfApi()
    try:
        # Without a token the hub's answer would not say what is wrong.
        api.whoami()
        address = api.create_repo(repository, repo_type=kind, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            repo_type=kind,
            folder_path=folder,
            ignore_patterns=PRIVATE_FILES,
            commit_message="Upload by videogpa",
        )
    except LocalTokenNotFoundError as error:
        raise InputError("nobody is logged in to the hub: run `hf auth login` first") from error
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        raise InputError(f"cannot push to {repository}: {' '.join(str(error).split())}") from error
    return str(address)


def require_repository(name: str) -> None:
    """What can be known of a repository's name without the hub; to be asked before a long export.

    Raises:
        InputError: the hub does not take such a name.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(f"cannot push to {name}: {' '.join(str(error).split())}") from error
