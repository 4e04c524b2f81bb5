"""A folder onto the Hugging Face hub. The one place that sends anything anywhere, and only when it is asked to."""

from __future__ import annotations

from pathlib import Path

from grainline.errors import ModelError


def publish(folder: str | Path, repository: str, *, private: bool = True) -> str:
    """Upload ``folder`` as the model repository ``repository`` ("owner/name"), made if it is not there; its address.

    Who one is is what ``hf auth login`` or HF_TOKEN say. An upload is one commit: all files or none.

    Raises:
        ModelError: no such name, not logged in, not allowed, offline.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ModelError(f"{repository!r} is no name of a repository.", instead="Write owner/name.") from error
    api = HfApi()
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="Made with Grainline")
    except Exception as error:  # the client raises many kinds; all mean the same to the user
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"the hub does not take it: {reason.rstrip('.')}.",
            where=repository,
            instead="Log in (hf auth login), and check the owner's name and HF_HUB_OFFLINE. What was written stays.",
        ) from error
    return str(made)
