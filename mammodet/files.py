"""Files are written whole or not at all, to a temporary name that is renamed; CSV is safe to open."""

import csv
import hashlib
import io
import json
import math
import os
import re
import stat
import tempfile
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree
from xml.parsers.expat import ExpatError, ParserCreate

import yaml
from filelock import FileLock, Timeout

from mammodet.errors import InputError

_MOST_LISTS = 2 * 10**7  # and objects, of one JSON text: about 2 GB
_KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "pipe",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFSOCK: "socket",
}


def check_is_file(path: Path, what: str = "a file") -> None:
    """Refuse what is not the regular file that `what` names, before it is opened: a pipe blocks, a device never ends.

    Raises InputError: the path does not exist, or is a folder, pipe, device, socket or of unknown kind.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no such {what.split()[-1]}") from None
    except (OSError, ValueError) as error:  # no permission, a name too long or with a NUL, a circle of links
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if kind != stat.S_IFREG:
        remedy = "" if kind == stat.S_IFDIR else "; save its content as a file first"
        raise InputError(f"{path}: is a {_KINDS.get(kind, 'special file')}; expected {what}{remedy}")


def file_stamp(path: Path) -> list[int] | None:
    """Size and times of change of a file, which tell a replaced one without reading it; None where it is missing.

    What copies or unpacks a file may set its time of modification, but not that of its inode.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends, removed when it fails.

    The temporary name keeps the suffix of `path`, since writers choose a format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


#: A name that `atomic_path` makes; its random part has up to eight characters.
_TEMPORARY = re.compile(r"\.(?P<stem>.+)\.[a-z0-9_]{3,8}\.tmp(?P<suffix>\.[^.]*)?", re.DOTALL)


def short_names(paths: Iterable[Path]) -> list[str]:
    """The shortest ends of paths that tell them apart, all equally deep, with `/`; of equal paths the whole."""
    parts = [path.absolute().parts for path in paths]
    names: list[str] = []
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(each[-depth:]) for each in parts]
        if len(set(names)) == len(names):
            break
    return names


def remove_leftovers(folder: Path, *, names: Iterable[str] | None = None) -> int:
    """Remove what a killed `atomic_path` left in a folder; returns the number of files.

    Only for a folder without another writer, whose temporary files would be lost.

    Args:
        names: files of the folder itself whose temporary ones are meant; None: all, in its folders too. Links to
            folders are not followed.
    """
    removed = 0
    wanted = None if names is None else {(Path(name).stem, Path(name).suffix) for name in names}
    for place, folders, files in os.walk(folder):
        for name in files:
            found = _TEMPORARY.fullmatch(name)
            if found and (wanted is None or (found["stem"], found["suffix"] or "") in wanted):
                Path(place, name).unlink(missing_ok=True)
                removed += 1
        if wanted is not None:
            break
        for name in [name for name in folders if _TEMPORARY.fullmatch(name)]:  # of a link (converters/base.py)
            Path(place, name, "link").unlink(missing_ok=True)
            with suppress(OSError):  # holds something else: not ours
                Path(place, name).rmdir()
    return removed


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV. Text that a spreadsheet would read as a formula gets a leading apostrophe; numbers do not.

    See OWASP, CSV injection.
    """
    return "".join(csv_lines(rows))


def csv_lines(rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    """Lines of `csv_text`."""
    for row in rows:
        buffer = io.StringIO(newline="")
        # Cells are quoted for characters of the line's end alone: with "\n" a carriage return would tear its row.
        csv.writer(buffer, lineterminator="\r\n").writerow([_safe_cell(cell) for cell in row])
        yield buffer.getvalue().removesuffix("\r\n") + "\n"


def _safe_cell(cell: Any) -> Any:
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines as UTF-8, one at a time, whole or not at all; bytes that are no letters become `\\xfc`."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(lines)


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any, *, indent: int | None = None) -> None:
    """Write JSON, whole or not at all; NaN and infinity are refused, since JSON has neither."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises InputError: what `check_is_file` refuses, the file is not UTF-8, or what `parse_json` refuses.
    """
    path = Path(path)
    check_is_file(path, "a JSON file")
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors put a byte order mark
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from None
    return parse_json(text, str(path))


_MOST_YAML_BYTES = 2**18  # a config of every setting has 2**14


class _YamlLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which would silently let the last of two equal keys win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        seen = set()
        for key in keys:
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a key is a list or keys", node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_yaml(path: Path) -> Any:
    """The value of a YAML file.

    Raises InputError: missing, no regular file, too large or too deep, or not YAML; a key that stands twice is a fault.
    """
    check_is_file(path, "a YAML file")
    if path.stat().st_size > _MOST_YAML_BYTES:
        raise InputError(f"{path}: has {path.stat().st_size} bytes; expected YAML of {_MOST_YAML_BYTES} or less")
    try:
        value = _YamlLoader(path.read_text(encoding="utf-8-sig")).get_single_data()
        check_tree(value, str(path), most=10**5)
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or a date such as 2026-13-01
        raise InputError(f"{path}: is not valid YAML: {error}") from None
    return value


def parse_xml(content: bytes, where: str) -> ElementTree.Element:
    """The root of an XML text.

    Raises InputError: it is damaged, or defines entities, by which a small file grows beyond the memory or reads
    others.
    """

    def refuse(*_: object) -> NoReturn:
        raise InputError(f"{where}: defines entities; expected XML without a document type definition")

    checker = ParserCreate()
    checker.EntityDeclHandler = refuse
    try:
        checker.Parse(content, True)
        return ElementTree.fromstring(content)
    except (ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: is no XML ({error}); it is damaged or cut short") from None


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text.

    Args:
        where: the file, or the part of it, for messages.
    Raises:
        InputError: cut short, nested too deep, of so many lists and objects that they fill the memory, or holding NaN,
            infinity, a number that is too large, or half a character (a lone surrogate).
    """
    with json_faults(where):
        check_nesting(text, where)
        value = json_decoder(where).decode(text)
        check_letters(value, text)
        return value


def json_decoder(where: str) -> json.JSONDecoder:
    """A decoder that refuses numbers that JSON has not."""

    def refuse(constant: str) -> NoReturn:
        raise InputError(f"{where}: holds {constant}, which is not JSON; expected finite numbers or null")

    def finite(digits: str) -> float:
        number = float(digits)
        return refuse(digits) if math.isinf(number) else number  # 1e999

    return json.JSONDecoder(parse_constant=refuse, parse_float=finite)


def check_nesting(text: str, where: str) -> None:
    """Refuse JSON of so many lists and objects that they fill the memory: three letters make one of 64 bytes.

    Raises InputError: more than `_MOST_LISTS`.
    """
    if text.count("[") + text.count("{") > _MOST_LISTS:
        raise InputError(f"{where}: holds more than {_MOST_LISTS} lists and objects; expected fewer")


def check_letters(value: Any, text: str) -> None:
    """Refuse half a character in the value of a JSON text. Raises UnicodeEncodeError: with it."""
    if r"\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode()


@contextmanager
def json_faults(where: str) -> Iterator[None]:
    """What is wrong with a JSON text, in words. Raises InputError: for what the decoder raises."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: holds half a character ({error.object[error.start]!r}); expected Unicode text"
        ) from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}: is not valid JSON, or was cut short: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise InputError(f"{where}: is nested too deep to be a data file") from None
    except (InputError, UnicodeDecodeError):
        raise
    except ValueError as error:  # Python's limit on the digits of a whole number
        raise InputError(f"{where}: holds a number that is too large ({error})") from None


@contextmanager
def locked(folder: Path, refusal: str) -> Iterator[None]:
    """Lock a folder until the block or the process ends; `refusal` is the message if another process holds the lock.

    Raises InputError: another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout:
        raise InputError(f"{folder}: {refusal}") from None
    with lock:
        yield


def check_tree(value: Any, where: str, *, most: int = 5 * 10**6, depth: int = 100) -> None:
    """Refuse too many or too deeply nested plain values; a shared value counts each time.

    YAML and pickles can reference one list many times, so a few hundred bytes may exhaust memory.

    Raises InputError: more than `most` values, or deeper than `depth`.
    """
    level, count = [value], 0
    for _ in range(depth):
        count += len(level)
        below: list[Any] = []
        for each in level:
            members = each.values() if isinstance(each, dict) else each if isinstance(each, list | tuple) else ()
            if count + len(below) + len(members) > most:
                raise InputError(f"{where}: holds more than {most} values, perhaps one list many times; expected less")
            below.extend(members)
        if not below:
            return
        level = below
    raise InputError(f"{where}: is nested deeper than {depth} levels; expected a few")


def dig(value: Any, *keys: str) -> Any:
    """What lies below keys in plain values of others; None where one is missing, or no object."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def canonical_hash(value: Any) -> str:
    """SHA-256 of a JSON value, independent of key order and white space, as 64 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
