"""kill -9 of training, at random moments and while a checkpoint is written: the end is that of an undisturbed run."""

import csv
import random
import time

import pytest
import torch
from safetensors.torch import load_file

from commands import finished, start
from conftest import FULL
from weince.shell.files import json_text, read_json

KILLS = 20 if FULL else 2
# Wide projections make checkpoints of 25 MB, so that some kills fall into their writing.
EPOCHS = 24 if FULL else 4  # more than kills: each comes after a new checkpoint
WORDS = ["train", "--epochs", EPOCHS, "--device", "cpu", "--projection", "30000", "--subset", "700"]
RUN = "weince-t0.5-s7"


def end(folder):
    with (folder / "history.csv").open(newline="") as file:
        history = [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]
    found = read_json(folder / "validation.json")
    weights = {name: load_file(folder / f"{name}.safetensors") for name in ("encoder", "projection")}
    return history, json_text([found["scores"], found["inverse_penalty"]]), weights


@pytest.mark.timeout(1500)
def test_killed_training_ends_bit_for_bit_like_an_undisturbed_one(tmp_path, capsys):
    status, said = finished(*WORDS, "--output", tmp_path / "whole")
    assert status == 0, said
    whole = end(tmp_path / "whole" / "digits" / "runs" / RUN)

    folder = tmp_path / "killed" / "digits" / "runs" / RUN
    moments, random_moments, writing, at_once = random.Random(5), 0, 0, 0
    while random_moments + writing < KILLS and not (folder / "validation.json").exists():
        process = start(*WORDS, "--output", tmp_path / "killed")
        known = {path.name for path in folder.glob("*.ckpt")}
        deadline = time.monotonic() + 120
        # Every other one while a checkpoint is being written; the others some time after training has begun.
        on_draft = (random_moments + writing) % 2 == 1
        until = None
        while process.poll() is None and time.monotonic() < deadline:
            drafts = list(folder.glob(".0*.ckpt.*"))
            if on_draft and drafts:
                break
            if until is None and {path.name for path in folder.glob("*.ckpt")} - known:
                until = time.monotonic() + moments.uniform(0, 1.2)
            if not on_draft and until is not None and time.monotonic() > until:
                break
            time.sleep(0.0005)
        process.kill()
        process.communicate()
        if on_draft:
            writing += 1
            at_once += bool(list(folder.glob(".0*.ckpt.*")))
        else:
            random_moments += 1
    status, said = finished(*WORDS, "--output", tmp_path / "killed")
    assert status == 0, said
    with capsys.disabled():
        print(f"\ntraining: {random_moments} random kills, {writing} at a draft ({at_once} left half of one)")
    assert random_moments + writing >= min(KILLS, 2)
    history, judged, weights = end(folder)
    assert history == whole[0]
    assert judged == whole[1]
    for name, half in whole[2].items():
        assert all(torch.equal(weights[name][key], value) for key, value in half.items())
    left = {path.name for path in folder.iterdir() if path.name.startswith(".") or path.name.endswith(".ckpt")}
    assert not left
