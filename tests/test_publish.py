"""Upload to the hub: what is sent, and what is said when the hub refuses. Nothing leaves the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from grainline.errors import ModelError
from grainline.publish import publish


class Hub:
    """Stands in for the hub's client."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    def create_repo(self, repository: str, **options: Any) -> Any:
        self.asked.append((repository, options))
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repository}")

    def upload_folder(self, **options: Any) -> None:
        self.asked.append(("upload", options))


def test_a_folder_is_sent_as_one_commit_to_a_private_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    assert publish(tmp_path, "me/mine") == "https://huggingface.co/me/mine"
    (made, options), (_, sent) = hub.asked
    assert (made, options) == ("me/mine", {"private": True, "exist_ok": True})
    assert (sent["repo_id"], sent["folder_path"]) == ("me/mine", tmp_path)


@pytest.mark.parametrize("name", ["a b/c", "a/b/c", "", "-x/y"])
def test_a_name_that_is_none(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is no name of a repository\. Write owner/name"):
        publish(tmp_path, name)


def test_a_refusal_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("401 Client Error.\nlong text")

    hub = Hub()
    hub.create_repo = refuse  # type: ignore[method-assign, assignment]
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    with pytest.raises(ModelError) as caught:
        publish(tmp_path, "me/mine")
    assert str(caught.value).startswith("me/mine: the hub does not take it: 401 Client Error. Log in")
