"""`mammodet view`, the page's script, and the page in one file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from small_view import HOSTILE

from mammodet.commands import main
from mammodet.errors import InputError
from mammodet.files import locked
from mammodet.serving.page import STATIC, write_pages
from mammodet.serving.uploads import Uploads


def test_view_of_an_evaluation_shows_what_it_was_made_of(study, tmp_path, monkeypatch):
    made_of = [str(tmp_path / "test.json"), str(tmp_path / "preds" / "predictions.json")]
    options = [
        "--match",
        "center",
        "--second-detections",
        "ignored",
        "--resamples",
        "0",
        "--output",
        str(tmp_path / "eval"),
    ]
    main(["evaluate", "--ground-truth", made_of[0], "--predictions", made_of[1], "--no-report", *options])
    seen = []
    monkeypatch.setattr(
        "mammodet.serving.server.serve", lambda uploads, *_, **more: seen.append((uploads.shown, more)) or 0
    )
    main(["view", str(tmp_path / "eval"), "--no-browser"])
    ((shown,), more) = seen[0]
    assert (shown.study.rule, shown.study.count_seconds, more["report"]) == ("center", False, None)
    assert shown.store.path == tmp_path / "preds" / "verdicts.json"
    (tmp_path / "eval" / "report.html").write_text("made")
    main(["view", str(tmp_path / "eval")])
    assert seen[1][1]["report"] == tmp_path / "eval" / "report.html"
    with open(made_of[1], "a", encoding="utf-8") as file:
        file.write(" ")
    with pytest.raises(InputError, match=r"predictions\.json: is not what .*metrics\.json was made of"):
        main(["view", str(tmp_path / "eval")])
    Path(made_of[0]).unlink()
    with pytest.raises(InputError, match=r"was made of .*test\.json, which is not there"):
        main(["view", str(tmp_path / "eval")])


def test_view_without_images_waits_for_uploads(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("mammodet.serving.server.serve", lambda uploads, *_, **more: seen.append(uploads) or 0)
    monkeypatch.chdir(tmp_path)
    main(["view", "--output", str(tmp_path / "out")])
    main(["view"])
    assert seen == [Uploads(tmp_path / "out" / "uploads", []), Uploads(Path("mammodet_view", "uploads"), [])]
    with pytest.raises(InputError, match="name what was read"):
        main(["view", "--export", str(tmp_path / "x.json")])


def test_page_in_one_file_needs_nothing_else_and_escapes_names(study, tmp_path):
    (path,) = write_pages(study, tmp_path / "pages")
    text = path.read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert "\\u003cscript>alert(1)" in text
    assert "http://" not in text
    assert "https://" not in text
    assert " src=" not in text
    assert "default-src &#39;none&#39;" in text
    assert "unsafe" not in text
    assert text.count("data:image/jpeg;base64,") == 2


def test_viewer_shows_predictions_without_a_data_set(study, tmp_path, capsys):
    with pytest.raises(InputError, match=r"2 of 2 predicted images.*--images"):
        main(["view", str(tmp_path / "preds"), "--export", str(tmp_path / "x.json")])
    with pytest.raises(InputError, match="no image is marked as done"):
        main(["view", str(tmp_path / "preds"), "--images", str(tmp_path), "--export", str(tmp_path / "x.json")])


def test_script_functions():
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    checks = Path(__file__).with_name("check_viewer.js")
    done = subprocess.run([node, str(checks), str(STATIC / "viewer.js")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_predict_refuses_a_page_where_patient_ids_are_hashed(tmp_path, capsys):
    arguments = ["predict", "--input", str(tmp_path), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        main([*arguments, "--page", "--patient-key", str(tmp_path / "key")])
    assert "--patient-key" in capsys.readouterr().err


def test_second_view_of_a_folder_is_refused(study, store, tmp_path):
    arguments = ["view", str(tmp_path / "test.json"), "--predictions", str(tmp_path / "preds")]
    with locked(tmp_path / "preds", "held"), pytest.raises(InputError, match="another mammodet view"):
        main([*arguments, "--export", str(tmp_path / "x.json")])
