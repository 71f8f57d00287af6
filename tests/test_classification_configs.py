"""Every classification config, from a synthetic archive through the tools to an evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mammodet.commands import convert, subset
from mammodet.commands import train as train_net
from mammodet.phantom.cbis_ddsm import write_cbis_archive
from mammodet.phantom.ddsm_patches import write_ddsm_patches
from mammodet.phantom.folder import write_folder_archive
from mammodet.phantom.mias import write_mias_archive
from mammodet.phantom.rsna import write_rsna_archive

CONFIGS = Path(__file__).parent.parent / "configs" / "classification"
SHORT = (
    "data.image.max_size=64",
    "data.batch_size=8",
    "data.epoch_size=16",
    "data.num_workers=0",
    "train.epochs=1",
    "train.accelerator=cpu",
    "train.precision=32",
    "train.ema_decay=null",
)


def test_every_classification_config_is_tested_here() -> None:
    tested = {name for names in ARCHIVES.values() for name in names}
    assert {path.stem for path in CONFIGS.glob("*.yaml")} - {"base"} == tested


#: Archive to the configs that train on it.
ARCHIVES = {
    "mias": ("mias_abnormal_cnn", "mias_abnormal_lite0", "tumor_timm", "leakage_patients", "leakage_rotated_copies"),
    "cbis_ddsm": ("cbis_mass_cc_cnn",),
    "folder": ("density_pathology_cnn",),
    "ddsm_patches": ("ddsm_patches_cnn",),
    "rsna": ("rsna_resnext50", "rsna_resnet18", "rsna_resnet50", "rsna_efficientnet", "rsna_views_attention"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted phantom of each archive."""
    root = tmp_path_factory.mktemp("archives ö")
    write_mias_archive(root / "mias", patients=14, size=128, difficulty="easy", progress=False)
    write_cbis_archive(root / "cbis_ddsm", patients=24, size=128, abnormality="mass", quirks=(), progress=False)
    write_folder_archive(root / "folder", images=96, size=128, progress=False)
    write_ddsm_patches(root / "ddsm_patches", images=200, size=64, progress=False)
    write_rsna_archive(root / "rsna", patients=16, size=128, positive_fraction=0.5, progress=False)
    options = {"cbis_ddsm": ["--abnormality", "mass", "--split", "holdout"], "ddsm_patches": ["--size", "64"]}
    for name in ARCHIVES:
        arguments = [
            name,
            "--source",
            str(root / name),
            "--output",
            str(root / "data" / name),
            "--test-fraction",
            "0.3",
        ]
        assert convert.main([*arguments, "--val-fraction", "0.3", *options.get(name, [])]) == 0
    assert subset.main(["--data", str(root / "data/cbis_ddsm"), "--name", "cc", "--view", "CC"]) == 0
    return root / "data"


@pytest.mark.parametrize(
    ("archive", "name"), [(archive, name) for archive, names in ARCHIVES.items() for name in names]
)
def test_config_trains_and_evaluates(data: Path, tmp_path: Path, archive: str, name: str) -> None:
    arguments = [
        "--config-file",
        str(CONFIGS / f"{name}.yaml"),
        f"data.root={data / archive}",
        f"output_dir={tmp_path}",
    ]
    short = [*SHORT, *(["data.unsafe_copies=4"] if "copies" in name else [])]
    assert train_net.main([*arguments, *short]) == 0
    checkpoint = f"model.weights={tmp_path / 'best.ckpt'}"
    if "copies" in name:
        with pytest.raises(Exception, match="unsafe split"):
            train_net.main([*arguments, *short, "--eval-only", checkpoint])
        return
    assert train_net.main([*arguments, *short, "--eval-only", checkpoint]) == 0
    (folder,) = tmp_path.glob("eval_*")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    (model,) = metrics["models"]
    assert model["kind"] == "classifier"
    config = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))["model"]["config"]
    heads = config["model"]["classifier"]["heads"]
    for question in heads:
        if question in ("tumor", "malignant"):
            assert 0 <= model["image"][question]["roc_auc"]["value"] <= 1
        else:
            assert model["classes"][question]["n"] > 0
    assert (folder / "report.html").stat().st_size > 10_000
