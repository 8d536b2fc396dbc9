"""The commands under torchrun and srun's variables: what several processes train together is what one trains alone.

A launch imports the lab in every process, most of ten seconds of a core each: one comparison alone is what all others
are held against.
"""

from __future__ import annotations

import csv
import itertools
import os
import socket
import subprocess
import sys

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from weince.lab.training.views import make_views, own_views_of, two_views_of

WORDS = ["--epochs", "2", "--device", "cpu", "--precision", "64-true"]


def weince(*words, count=1, **variables):
    run = [sys.executable, "-W", "ignore"]
    if count > 1:
        run += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONWARNINGS": "ignore", **variables}
    return [*run, "-m", "weince", *map(str, words)], environment


def finished(*words, **how):
    command, environment = weince(*words, **how)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)


def weights(folder):
    return {
        f"{part}.{key}": value
        for part in ("encoder", "projection")
        for key, value in load_file(folder / f"{part}.safetensors").items()
    }


def history(folder):
    with (folder / "history.csv").open(newline="") as file:
        return [[float(v) for k, v in row.items() if "second" not in k] for row in csv.DictReader(file)]


def check_same(found, alone):
    for name, value in weights(alone).items():
        torch.testing.assert_close(weights(found)[name], value, rtol=1e-9, atol=1e-11, msg=name)
    assert torch.allclose(torch.tensor(history(found)), torch.tensor(history(alone)), rtol=1e-9)


LOSSES = ("infonce", "weince", "weince-released")
SMALL = [*WORDS, "--subset", "800", "--batch-size", "128"]  # as many steps an epoch as with all images
COMPARED = ["compare", *SMALL, "--losses", *LOSSES, "--temperatures", "0.2", "--seeds", "1", "2"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, worker_id):
    """A comparison by one process, made once for all workers of the test run."""
    own = tmp_path_factory.getbasetemp()
    output = (own if worker_id == "master" else own.parent) / "alone"
    with FileLock(f"{output}.lock"):
        if not output.exists():
            done = finished(*COMPARED, "--output", output)
            assert done.returncode == 0, done.stderr[-3000:]
    return output / "digits"


@pytest.mark.exhaustive
def test_a_comparison_of_two_processes_says_what_one_says(alone, tmp_path):
    done = finished(*COMPARED, "--output", tmp_path, count=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "digits" / "scores.csv").read_text() == (alone / "scores.csv").read_text()
    assert (tmp_path / "digits" / "report.html").is_file()
    for loss, seed in itertools.product(LOSSES, (1, 2)):
        run = f"{loss}-t0.2-s{seed}"
        check_same(tmp_path / "digits" / "runs" / run, alone / "runs" / run)


def train(loss, output, **how):
    words = ["train", *SMALL, "--loss", loss, "--temperature", "0.2", "--seed", "1", "--output", output]
    return weince(*words, **how)


@pytest.mark.exhaustive
@pytest.mark.parametrize("loss", ["weince", "weince-released"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_torchrun_trains_to_the_weights_of_one_process(alone, loss, count, tmp_path):
    """And one process without torchrun to those of its comparison."""
    command, environment = train(loss, tmp_path, count=count)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("linear accuracy") == 1  # one of them speaks
    check_same(tmp_path / "digits" / "runs" / f"{loss}-t0.2-s1", alone / "runs" / f"{loss}-t0.2-s1")


@pytest.mark.parametrize("loss", [pytest.param("weince", marks=pytest.mark.exhaustive), "weince-released"])
def test_srun_trains_to_the_weights_of_one_process(alone, loss, tmp_path):
    """Two processes with the variables that srun gives its tasks; there is no SLURM here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    slurm = {
        "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_JOB_ID": "71",
        "SLURM_JOB_NAME": "train", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1", "SLURM_STEP_ID": "0",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    tasks = []
    for rank in range(2):
        command, environment = train(loss, tmp_path, **slurm, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank))
        tasks.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    said = [task.communicate(timeout=200)[0].decode() for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert sum(text.count("linear accuracy") for text in said) == 1  # one of them speaks
    check_same(tmp_path / "digits" / "runs" / f"{loss}-t0.2-s1", alone / "runs" / f"{loss}-t0.2-s1")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--batch-size", "255"], "multiple of the 2 processes"),
        pytest.param(["--subset", "100"], "`batch_size`", marks=pytest.mark.exhaustive),
    ],
)
def test_a_refusal_ends_every_process(words, says, tmp_path):
    done = finished("train", *WORDS, *words, "--output", tmp_path, count=2)
    assert done.returncode != 0
    assert says in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("data", "channels", "size"), [("digits", 1, 8), ("cifar10", 3, 32)])
@pytest.mark.parametrize("count", [8, 20])
def test_shares_of_a_batch_get_the_views_of_the_whole(data, channels, size, count, monkeypatch):
    pixels = torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8)
    views = make_views(data, size)
    torch.manual_seed(3)
    whole = two_views_of(views, pixels).unflatten(0, (2, count))
    monkeypatch.setattr("weince.lab.training.views.world_size", lambda: 4)
    shares = []
    for rank in range(4):
        monkeypatch.setattr("weince.lab.training.views.rank", lambda rank=rank: rank)
        torch.manual_seed(3)
        share = pixels[rank * count // 4 : (rank + 1) * count // 4]
        shares.append(own_views_of(views, share).unflatten(0, (2, count // 4)))
    torch.testing.assert_close(torch.cat(shares, dim=1), whole, rtol=0, atol=1e-6)
