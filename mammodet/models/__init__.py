"""The starter model of the package: a packed file, and a JSON file with its size and hash."""

from pathlib import Path

from mammodet.errors import InputError
from mammodet.files import file_hash, read_json, write_json

#: Its name for `--checkpoint`.
STARTER = "starter"
_FOLDER = Path(__file__).parent


def model_path(name: str | Path) -> Path:
    """The file that is named; `starter` is the model in the package.

    Raises InputError: this installation has no starter model.
    """
    return starter_path() if str(name) == STARTER else Path(name)


def starter_path(folder: Path = _FOLDER) -> Path:
    """The path of the starter model, after checking size and SHA-256 against `starter.json`.

    Raises InputError: the file is missing, or is not the pinned one.
    """
    path = folder / f"{STARTER}.safetensors"
    pin = path.with_suffix(".json")
    missing = [one.name for one in (path, pin) if not one.is_file()]
    if missing:
        raise InputError(
            f"{folder}: holds no {' and no '.join(missing)}: this installation comes without the starter model. Give "
            "another model: --checkpoint FILE (best.ckpt of a training, or a packed model)"
        )
    pinned, found = read_json(pin), _pin_of(path)
    if pinned != found:
        raise InputError(
            f"{path}: has {found['size']} bytes and the SHA-256 {found['sha256']}; {pin.name} names {pinned!r:.200}. "
            "It is cut short or was exchanged: install the package again, or give another model by --checkpoint FILE"
        )
    return path


def write_pin(path: Path) -> Path:
    """Write size and SHA-256 of a packed model to the JSON file beside it; returns its path."""
    pin = path.with_suffix(".json")
    write_json(pin, _pin_of(path), indent=1)
    return pin


def _pin_of(path: Path) -> dict[str, str | int]:
    return {"file": path.name, "sha256": file_hash(path), "size": path.stat().st_size}
