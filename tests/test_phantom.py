"""The synthetic archive: does it hold what its summary and its Info.txt say?"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from mammodet.errors import InputError
from mammodet.geometry import circle_mask
from mammodet.phantom import FILE_QUIRKS, FILM_QUIRKS, LESION_QUIRKS, MiasPhantom
from mammodet.phantom import lesions as drawing
from mammodet.phantom import mias as phantom
from mammodet.phantom.mias import write_mias_archive

SIZE = 160
MASSES = ("CIRC", "SPIC", "MISC")


def make(output: Path, **options):
    return write_mias_archive(output, **{"patients": 12, "size": SIZE, "progress": False} | options)


def info_lines(archive: Path) -> list[str]:
    text = (archive / "Info.txt").read_bytes().decode("ascii")
    return [line for line in text.split("\n") if re.match(r"mdb\d{3} ", line)]


def circles(archive: Path) -> list[tuple[str, str, int, int, int, int]]:
    """(image id, class, k of its line, x, y, radius) of every line that has a place."""
    found, seen = [], {}
    for line in info_lines(archive):
        image_id, _, kind, *rest = line.split()
        seen[image_id] = seen.get(image_id, 0) + 1
        if len(rest) == 4:
            found.append((image_id, kind, seen[image_id], *(int(word) for word in rest[1:])))
    return found


def truth_of(number: int) -> tuple[np.ndarray, ...]:
    return phantom.draw_phantom(phantom.plan_image(number, seed=0), seed=0, size=SIZE).truth


def hashes(archive: Path) -> dict[str, str]:
    files = (path for path in archive.rglob("*") if path.is_file())
    return {str(p.relative_to(archive)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    output = tmp_path_factory.mktemp("phantom") / "mias"
    return output, make(output)


def test_archive_has_the_layout_of_mini_mias(archive):
    output, summary = archive
    names = sorted(path.name for path in output.iterdir())
    assert names == ["Info.txt", "Licence.txt", *(f"mdb{k:03d}.pgm" for k in range(1, 25))]
    assert summary.images == 24
    assert summary.patients == 12
    header = f"P5\n{SIZE} {SIZE}\n255\n".encode()
    content = (output / "mdb001.pgm").read_bytes()
    assert content.startswith(header)
    assert len(content) == len(header) + SIZE * SIZE
    image = cv2.imread(str(output / "mdb001.pgm"), cv2.IMREAD_UNCHANGED)
    assert image.dtype == np.uint8
    assert image.tobytes() == content[len(header) :]
    assert (output / "Licence.txt").read_text().startswith("SYNTHETIC")


def test_info_lines_have_the_forms_of_the_original(archive):
    lines = info_lines(archive[0])
    form = re.compile(r"mdb\d{3} [FGD] (NORM |CALC M \*NOTE 3\* |(CIRC|SPIC|MISC|CALC|ARCH|ASYM) [BM]( \d+ \d+ \d+)?)")
    assert [line for line in lines if not form.fullmatch(line)] == []
    assert [line[:6] for line in lines] == sorted(line[:6] for line in lines)
    densities = {line[:6]: line[7] for line in lines}
    assert all(densities[f"mdb{k:03d}"] == densities[f"mdb{k + 1:03d}"] for k in range(1, 25, 2))


def test_summary_counts_what_info_says(archive):
    output, summary = archive
    lines = [line.split() for line in info_lines(output)]
    assert summary.classes == {kind: sum(f[2] == kind for f in lines) for kind in sorted({f[2] for f in lines})}
    assert sum(summary.severities.values()) == sum(f[2] != "NORM" for f in lines)
    assert summary.circles == len(circles(output))
    assert len(summary.abnormal_images) == 12
    assert summary.classes["NORM"] == 12


def test_every_quirk_occurs_and_is_where_the_summary_says(archive):
    output, summary = archive
    assert tuple(summary.quirks) == MiasPhantom.USUAL
    assert all(summary.quirks.values())
    lines: dict[str, list[list[str]]] = {}
    for line in info_lines(output):
        lines.setdefault(line[:6], []).append(line.split()[2:])
    several = set(summary.quirks["several_lesions"]) | set(summary.quirks["benign_and_malignant"])
    assert {name for name, found in lines.items() if len(found) > 1} == several
    for name in summary.quirks["benign_and_malignant"]:
        assert {found[1] for found in lines[name]} == {"B", "M"}
    noted = {name for name, found in lines.items() if found == [["CALC", "M", "*NOTE", "3*"]]}
    assert noted == set(summary.quirks["note3"])
    placeless = {name for name, found in lines.items() if found == [["CIRC", "B"]]}
    assert placeless == set(summary.quirks["no_coordinates"])


def test_circle_on_background_is_dark_wherever_y_is_counted_from(archive):
    output, summary = archive
    (name,) = summary.quirks["circle_on_background"]
    ((_, kind, _, x, y, radius),) = [circle for circle in circles(output) if circle[0] == name]
    image = cv2.imread(str(output / f"{name}.pgm"), cv2.IMREAD_UNCHANGED)
    assert kind == "CALC"
    for row in (y, SIZE - 1 - y):
        assert image[circle_mask((x + 0.5, row + 0.5), radius + 1, image.shape)].max() <= 40


def test_circle_encloses_the_true_lesion_counted_from_the_bottom(archive):
    output, summary = archive
    for name, _, k, x, y, radius in circles(output):
        if name in summary.quirks["circle_on_background"]:
            continue
        truth = truth_of(int(name[3:]))[k - 1]
        inside = circle_mask((x + 0.5, SIZE - 1 - y + 0.5), radius + 0.01, truth.shape)
        assert truth.any()
        assert not (truth & ~inside).any()
        assert truth.sum() >= 0.15 * inside.sum()


def test_every_abnormal_line_has_a_true_mask_and_no_normal_has(archive):
    _, summary = archive
    masks = {f"mdb{number:03d}" for number in range(1, 25) if truth_of(number)}
    assert masks == set(summary.abnormal_images)
    (noted,) = summary.quirks["note3"]
    spread = np.nonzero(truth_of(int(noted[3:]))[0])
    assert np.ptp(spread[0]) > 0.2 * SIZE


def test_masses_are_brighter_than_around_with_y_from_the_bottom_only(tmp_path):
    make(tmp_path, patients=40, size=128, abnormal_fraction=0.9, quirks=())
    brighter = {"bottom": 0, "top": 0}
    masses = [circle for circle in circles(tmp_path) if circle[1] in MASSES]
    for name, _, _, x, y, radius in masses:
        image = cv2.imread(str(tmp_path / f"{name}.pgm"), cv2.IMREAD_UNCHANGED)
        for origin, row in (("bottom", 127 - y), ("top", y)):
            centre = (x + 0.5, row + 0.5)
            core = circle_mask(centre, 0.6 * radius, image.shape)
            ring = circle_mask(centre, 1.6 * radius, image.shape) & ~circle_mask(centre, 1.1 * radius, image.shape)
            brighter[origin] += image[core].mean() > image[ring].mean() + 2
    assert len(masses) > 30
    assert brighter["bottom"] >= 0.9 * len(masses)
    assert brighter["top"] <= 0.75 * len(masses)


def test_chest_wall_is_on_the_right_for_odd_numbers(archive):
    for number in range(1, 25):
        image = cv2.imread(str(archive[0] / f"mdb{number:03d}.pgm"), cv2.IMREAD_UNCHANGED)
        film = image[SIZE // 4 : SIZE // 2, np.flatnonzero(image.any(axis=0))].astype(float)
        half = film.shape[1] // 2
        assert (film[:, half:].mean() > film[:, :half].mean()) == (number % 2 == 1)


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make(tmp_path / name, patients=2, size=128, seed=seed)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    assert hashes(tmp_path / "a") != hashes(tmp_path / "c")


def test_smaller_archive_is_the_beginning_of_a_larger_one(tmp_path):
    make(tmp_path / "small", patients=1, size=128)
    make(tmp_path / "large", patients=3, size=128)
    small, large = hashes(tmp_path / "small"), hashes(tmp_path / "large")
    assert all(large[name] == digest for name, digest in small.items() if name.endswith(".pgm"))
    assert info_lines(tmp_path / "large")[: len(info_lines(tmp_path / "small"))] == info_lines(tmp_path / "small")


def test_two_processes_write_what_one_writes(tmp_path):
    make(tmp_path / "one", patients=2, size=128)
    make(tmp_path / "two", patients=2, size=128, jobs=2)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


def test_optional_quirks_are_placed_where_asked_for(tmp_path):
    assert not {*FILE_QUIRKS, "crlf"} & set(MiasPhantom.USUAL)
    summary = make(tmp_path, size=128, quirks=(*FILE_QUIRKS, "crlf"))
    (lost,), (silent,), (cut,) = (summary.quirks[name] for name in FILE_QUIRKS)
    named = {line[:6] for line in info_lines(tmp_path)}
    assert not (tmp_path / f"{lost}.pgm").exists()
    assert lost in named
    assert (tmp_path / f"{silent}.pgm").exists()
    assert silent not in named
    assert (tmp_path / f"{cut}.pgm").stat().st_size < 128 * 128
    assert summary.images == 23
    text = (tmp_path / "Info.txt").read_bytes()
    assert text.count(b"\n") == text.count(b"\r\n")


def test_no_quirks_and_no_lesions_give_normals_only(tmp_path):
    summary = make(tmp_path, patients=3, size=128, abnormal_fraction=0)
    assert summary.classes == {"NORM": 6}
    assert summary.abnormal_images == ()
    assert summary.quirks["note3"] == ()
    clean = make(tmp_path, patients=3, size=128, quirks=())
    assert clean.quirks == {}


def test_older_phantom_archive_is_replaced_whole(tmp_path):
    make(tmp_path, patients=3, size=128)
    make(tmp_path, patients=1, size=128, abnormal_fraction=0)
    assert sorted(path.name for path in tmp_path.glob("*.pgm")) == ["mdb001.pgm", "mdb002.pgm"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patients": 0}, "patients 0"),
        ({"patients": 500}, "patients 500"),
        ({"size": 127}, "size 127"),
        ({"seed": -1}, "seed -1"),
        ({"abnormal_fraction": 1.5}, "--abnormal-fraction 1.5"),
        ({"abnormal_fraction": float("nan")}, "--abnormal-fraction nan"),
        ({"jobs": 0}, "jobs 0"),
        ({"quirks": ["label"]}, "quirks label: expected some of several_lesions"),
    ],
)
def test_option_out_of_range_is_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_folder_with_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mdb001.pgm").write_bytes(b"a real image")
    (tmp_path / "Licence.txt").write_text("MAMMOGRAPHIC IMAGE ANALYSIS SOCIETY")
    with pytest.raises(InputError, match="holds no phantom archive"):
        make(tmp_path)
    assert (tmp_path / "mdb001.pgm").read_bytes() == b"a real image"
    with pytest.raises(InputError, match="is a file"):
        make(tmp_path / "mdb001.pgm")


@pytest.mark.parametrize("kind", drawing.CLASSES)
@pytest.mark.parametrize("radius", [3, 12, 40])
def test_mass_stays_within_its_radius(kind, radius):
    patch = drawing.draw_mass(np.random.default_rng(radius), kind, radius, 0.2)
    side = 2 * radius + 1
    assert patch.added.shape == patch.mask.shape == (side, side)
    beyond = ~circle_mask((radius + 0.5, radius + 0.5), radius + 0.5, (side, side))
    assert not patch.added[beyond].any()
    assert not patch.mask[beyond].any()
    assert patch.mask.any()
    assert patch.added.max() > 0.03


def test_mass_of_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind 'NORM'"):
        drawing.draw_mass(np.random.default_rng(0), "NORM", 10, 0.2)


def test_every_plan_of_a_quirk_occurs_once_in_the_first_block():
    for seed in range(20):
        plans = [phantom.plan_image(n, seed=seed, abnormal_fraction=0.05) for n in range(1, 25)]
        for quirk in LESION_QUIRKS:
            assert sum(quirk in plan.quirks for plan in plans) == 1
        for quirk in FILM_QUIRKS:
            assert any(quirk in plan.quirks for plan in plans)


def test_only_their_command_imports_phantoms():
    root = Path(__file__).parent.parent
    files = [*root.glob("mammodet/**/*.py"), *root.glob("converters/**/*.py")]
    users = [
        path.relative_to(root).as_posix()
        for path in files
        if "phantom" not in path.parts and re.search(r"^\s*(from|import) .*\bphantom\b", path.read_text("utf-8"), re.M)
    ]
    assert users == ["mammodet/commands/phantoms.py"]
