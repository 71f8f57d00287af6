"""Which precision a training chooses, and that it keeps it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from conftest import SMALL

from mammodet.config import load_config
from mammodet.engine import precision

CLASSIFIER = ("model.kind=classifier", "model.classifier.network=cnn", "data.image.max_size=288", "data.batch_size=2")


@pytest.mark.parametrize("overrides", [SMALL, CLASSIFIER])
@pytest.mark.parametrize(("seconds", "expected"), [((3.0, 2.0), "bf16-mixed"), ((2.0, 3.0), "32")])
def test_faster_step_is_chosen(overrides, seconds, expected, monkeypatch):
    answers = iter((2.0, 1.0, *seconds))  # of a convolution in both, of a step in both
    reduced = []

    def in_32_bits(device, dtype, enabled):
        reduced.append(enabled)
        return nullcontext()  # emulated bfloat16 takes minutes

    def timed(call):
        call()
        return next(answers)

    monkeypatch.setattr(torch, "autocast", in_32_bits)
    monkeypatch.setattr(precision, "_seconds", timed)
    chosen, why = precision.fastest_on_cpu(load_config(None, list(overrides)), 1)
    assert (chosen, reduced) == (expected, [False, True])
    assert f"{seconds[0]:.2f} s in 32 bits, {seconds[1]:.2f} s with bfloat16" in why


def test_processor_without_bfloat16_takes_no_step(monkeypatch):
    answers = iter((1.0, 2.0))
    monkeypatch.setattr(precision, "_seconds", lambda call: next(answers))
    assert precision.fastest_on_cpu(load_config(None, list(SMALL)), 1)[0] == "32"


def test_small_images_take_32_bits_without_a_step(monkeypatch):
    monkeypatch.setattr(precision, "_seconds", lambda call: pytest.fail("a step was taken"))
    assert precision.fastest_on_cpu(load_config(None, ["data.image.max_size=256"]), 1)[0] == "32"
