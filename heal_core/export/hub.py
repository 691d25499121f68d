"""A folder -> a repository on the Hugging Face hub, through its own library, which reads token and endpoint.

No message holds the token. What does not belong here: what is in the folder (`model`).
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.errors import HTTPError as ClientError  # type: ignore[attr-defined]  # of the client it uses
from huggingface_hub.utils._validators import validate_repo_id

from heal_core import __version__
from heal_core.errors import HubError, InputError

STALE_PATTERNS = ["*.safetensors", "*.safetensors.index.json", "adapter_*", "config.json"]
"""What an earlier push may have left that this folder lacks: loaders would take it for a part of the model."""

_WHY = {
    401: "the token is not valid",
    403: "the token may not write there: it needs write access to that user or organisation",
    404: "there is no such user or organisation, or it is hidden from this token",
    409: "it is in use for something else",
}


def check_push(name: str) -> None:
    """Check that a push can be tried, before anything is written.

    Raises:
        InputError: If the name is no repository's, the library is told to stay offline, or there is no token.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(f"--push-to-hub {name}: expected OWNER/NAME or NAME. {error}") from error
    if constants.is_offline_mode():
        raise InputError("HF_HUB_OFFLINE is set, so nothing can be pushed: unset it, or leave --push-to-hub out.")
    if get_token() is None:
        raise InputError(
            "there is no token for the hub: set HF_TOKEN, or log in with `hf auth login`. It needs write access."
        )


def push_folder(folder: Path, name: str, private: bool, message: str) -> str:
    """Upload a folder as a model's repository, which is made if it is not there, and return its address.

    Weights, adapters and `config.json` that a repository has and the folder lacks are deleted in the same commit.

    Args:
        private: Whether only its owner may see it; a repository that is there keeps what it is, so it is looked at.

    Raises:
        HubError: If the hub refuses or cannot be reached, or the repository is public and `private` was asked for. The
            folder stays, and the same command pushes it again.
    """
    api = HfApi(library_name="heal", library_version=__version__)
    try:
        address = api.create_repo(name, private=private, exist_ok=True, repo_type="model")
        if private and not api.repo_info(address.repo_id, repo_type="model").private:
            raise _failed(
                folder,
                name,
                "--private was given, but that repository exists and is public: make it private in its settings, give "
                "another name, or leave --private out",
            )
        api.upload_folder(
            repo_id=address.repo_id,
            folder_path=folder,
            repo_type="model",
            commit_message=message,
            delete_patterns=STALE_PATTERNS,
        )
    except HfHubHTTPError as error:
        status = error.response.status_code
        why = _WHY.get(status) or str(error).strip().splitlines()[-1]
        raise _failed(folder, name, f"{why} ({status})") from None
    except (ClientError, OfflineModeIsEnabled, OSError, ValueError) as error:
        raise _failed(folder, name, f"{type(error).__name__}: {error}") from None
    return str(address)


def _failed(folder: Path, name: str, why: str) -> HubError:
    """Return the error; it is not chained, since what lies beneath may show the request with its token."""
    token = get_token()
    told = why.replace(token, "(token)") if token else why
    return HubError(f"{name} was not pushed to {constants.ENDPOINT}: {told}. The folder {folder} is written and stays.")
