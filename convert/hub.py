"""Where the source of a conversion lies: a folder here, or one that is downloaded from the hub."""

import dataclasses
from pathlib import Path

from lrd_jax.convert.safetensors_io import ConversionError
from lrd_jax.models import CHECKPOINTS

_FILES = ["*.safetensors", "*.json", "*.jinja", "merges.txt"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """A local folder, and the name and commit that it was had under (no commit: it was local)."""

    folder: Path
    name: str
    revision: str | None


def find_source(source: str | Path, revision: str | None = None) -> Origin:
    """A local folder of that name, else the preset or hub id of that name, downloaded.

    Raises:
      ConversionError: there is neither, or the hub cannot be reached.
    """
    folder = Path(source)
    if folder.is_dir():
        if revision is not None:
            problem = f"revision {revision!r} can be chosen on the hub only"
            raise ConversionError(f"{folder} is a local folder", [problem])
        return Origin(folder=folder, name=str(source), revision=None)
    if folder.exists():
        raise ConversionError(
            f"{folder} is not a folder", ["a folder with config.json and safetensors files was wanted"]
        )
    preset = CHECKPOINTS.get(str(source))
    hub_id = preset.hub_id if preset else str(source)
    parts = hub_id.split("/")
    if isinstance(source, Path) or len(parts) != 2 or not all(parts) or parts[0] in (".", "..", "~"):
        known = f"a hub id has the form owner/name; presets: {', '.join(CHECKPOINTS)}"
        raise ConversionError(f"there is no folder {source}", [known])
    return _download(hub_id, revision)


def _download(hub_id: str, revision: str | None) -> Origin:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(huggingface_hub.snapshot_download(hub_id, revision=revision, allow_patterns=_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        what = f"{hub_id} is not a folder here, and cannot be downloaded from the Hugging Face hub"
        advice = "check the name and the network, or download it elsewhere and give the folder"
        raise ConversionError(
            what, [f"{type(error).__name__}: {str(error).strip().splitlines()[0]}", advice]
        ) from error
    return Origin(folder=folder, name=hub_id, revision=folder.name)  # a snapshot's folder is named by its commit
