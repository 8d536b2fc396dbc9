"""What files can do: a full disk, a folder that cannot be written, checkpoints that are damaged, strange or hostile."""

import os
import pickle
import subprocess
import sys

import pytest
import torch

from commands import finished
from weince.__main__ import main

WORDS = ["train", "--epochs", "3", "--device", "cpu", "--seed", "1"]
RUN = "weince-t0.5-s1"


def on_a_disk(options, program, tmp_path):
    """Run a shell program with a small file system of its own at $DISK; its output, and what it copies to $KEPT."""
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()
    weince = f"{sys.executable} -W ignore -m weince"
    script = f"set -u; mount -t tmpfs -o {options} none $DISK; {program.replace('weince ', weince + ' ')}"
    environment = {**os.environ, "DISK": str(disk), "KEPT": str(kept), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    return done, kept


def test_a_full_disk_is_said_and_what_was_finished_stays(tmp_path):
    words = " ".join(WORDS)
    program = f"weince {words} --projection 20000 --output $DISK; echo status $?; cp -r $DISK/digits $KEPT"
    done, kept = on_a_disk("size=24m", program, tmp_path)  # room for one checkpoint of 16 MB
    assert "status 2" in done.stdout, done.stdout + done.stderr
    assert "No space left on device" in done.stderr
    folder = kept / "digits" / "runs" / RUN
    for path in folder.glob("*.ckpt"):
        torch.load(path, weights_only=True)
    assert list(folder.glob("*.ckpt"))
    assert not list(folder.glob(".*.ckpt.*"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    done, kept = on_a_disk("ro", f"weince {' '.join(WORDS)} --output $DISK; echo status $?", tmp_path)
    assert "status 2" in done.stdout, done.stdout + done.stderr
    assert "Read-only file system" in done.stderr
    assert not list(kept.iterdir())


@pytest.fixture
def stopped(tmp_path):
    """A folder with a checkpoint of an unfinished run."""
    from weince.lab.data.sets import load
    from weince.lab.settings import write
    from weince.lab.tasks.recipe.images import ImagesRecipe
    from weince.lab.training.fit import train
    from weince.lab.training.settings import Run
    from weince.shell.files import write_text

    recipe = ImagesRecipe(epochs=3, device="cpu", output=tmp_path)
    folder = recipe.folder / "runs" / RUN

    def stop(done):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe.image_settings(), Run("weince", 0.5, 1), load(recipe).training, folder, stop)
    write_text(recipe.folder / "recipe.toml", write(recipe))
    (checkpoint,) = folder.glob("*.ckpt")
    return checkpoint


def damaged(path, change):
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["weince"].update(layout=1), "another version (layout 1; expected layout 2)"),
        (lambda c: c.pop("weince"), "another version (no note of its origin"),
        (
            lambda c: c["weince"].update(run=["infonce", 0.5, 1]),
            "run: ['infonce', 0.5, 1] there, ['weince', 0.5, 1] now",
        ),
        (
            lambda c: c["weince"].update(
                settings=c["weince"]["settings"].replace('"batch_size":256', '"batch_size":64')
            ),
            "batch_size: 64 there, 256 now",
        ),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(stopped, change, says, tmp_path, capsys):
    damaged(stopped, change)
    before = stopped.read_bytes()
    assert main([*WORDS, "--output", str(tmp_path)]) == 2
    assert says in capsys.readouterr().err
    assert stopped.read_bytes() == before


def test_a_checkpoint_cut_short_starts_the_run_anew(stopped, tmp_path):
    stopped.write_bytes(stopped.read_bytes()[:7000])
    status, said = finished(*WORDS, "--output", tmp_path)
    assert status == 0, said


def test_a_hostile_checkpoint_runs_nothing(stopped, tmp_path, capsys):
    trap = tmp_path / "trapped"

    class Trap:
        def __reduce__(self):
            return os.system, (f"touch {trap}",)

    stopped.write_bytes(pickle.dumps(Trap()))
    torch.save({"weince": Trap()}, stopped.with_name("00002.ckpt"))
    assert main([*WORDS, "--output", str(tmp_path)]) == 2
    assert "not a checkpoint of weince" in capsys.readouterr().err
    assert not trap.exists()
