"""kill -9 of workers of a comparison, on SQLite and PostgreSQL: every trial finished once, and as it would be."""

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from optuna.trial import TrialState

from commands import finished, start
from conftest import FULL
from weince.lab.engine.choice import wanted
from weince.lab.engine.conclusion import concluded
from weince.lab.engine.store import Store
from weince.lab.tasks.recipe.images import METRICS

KILLS = 12 if FULL else 2
PATIENCE = ["--beat", "0.5", "--dead", "8", "--threads", "1"]
PLAN = """
task = "images"
data = "digits"
device = "cpu"
epochs = 20
subset = 600
seeds = {seeds}
confirm_seeds = {confirm}
[arms.infonce]
loss = "infonce"
temperature = {temperatures}
[arms.weince]
loss = "weince"
temperature = {temperatures}
"""
# 30 trials: 2 x 4 x 3 and 2 x 3; or 6: 2 x 2 x 1 and 2 x 1.
BIG = {"seeds": [1, 2, 3], "confirm": [4, 5, 6], "temperatures": [0.1, 0.2, 0.3, 0.5]}
SMALL = {"seeds": [1], "confirm": [4], "temperatures": [0.1, 0.5]}


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "tiny.toml"
    path.write_text(PLAN.format(**(BIG if FULL else SMALL)))
    return path


@pytest.fixture(scope="module")
def undisturbed(plan, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed")
    status, said = finished("compare", plan, "--output", output)
    assert status == 0, said
    with closing(Store(f"sqlite:///{output / 'tiny' / 'trials.db'}", "tiny")) as store:
        return scores(store)


def scores(store):
    plan, _ = store.held()
    return {(r.point, r.seed): (r.validation["scores"], r.test and r.test["scores"]) for r in store.records(plan)}


class Postgres:
    """A server of the test's own, run by an unprivileged user: it refuses root."""

    def __init__(self):
        self.bin = max(Path("/usr/lib/postgresql").glob("*/bin"))
        self.folder = Path(tempfile.mkdtemp(prefix="weince-postgres-"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        self.run("initdb", "-D", str(self.folder / "data"), "-U", "weince", "--auth", "trust")
        self.start()
        self.url = f"postgresql://weince@127.0.0.1:{self.port}/postgres"

    def run(self, program, *words):
        who = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        subprocess.run([*who, str(self.bin / program), *words], check=True, stdout=subprocess.DEVNULL, cwd="/")

    def start(self):
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        self.run(
            "pg_ctl", "-D", str(self.folder / "data"), "-w", "-l", str(self.folder / "log"), "-o", options, "start"
        )

    def stop(self):
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def postgres():
    server = Postgres()
    yield server
    server.stop()
    shutil.rmtree(server.folder)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("kind", [pytest.param("sqlite", marks=pytest.mark.exhaustive), "postgresql"])
def test_every_trial_is_finished_once(kind, plan, undisturbed, tmp_path, request, capsys):
    server = request.getfixturevalue("postgres") if kind == "postgresql" else None
    url = server.url if server else f"{kind}:///{tmp_path / 'trials.db'}"
    storage = ["--storage", url, "--name", "tiny"]
    status, said = finished("compare", plan, "--output", tmp_path, "--workers", "0", *storage)
    assert status == 0, said
    work = ["compare", "work", tmp_path / "tiny", *storage, *PATIENCE]
    moments, kills, outages = random.Random(kind), 0, 0
    workers = [start(*work) for _ in range(3)]
    store = Store(url, "tiny")
    request.addfinalizer(store.close)
    held, _ = store.held()
    while any(worker.poll() is None for worker in workers):
        time.sleep(moments.uniform(1, 3) if FULL else moments.uniform(0.5, 1.5))
        if kills < KILLS:
            busy = {
                trial.user_attrs["worker"][1]
                for study in store._studies(held).values()
                for trial in study.get_trials()
                if trial.state == TrialState.RUNNING
            }
            victims = [at for at, worker in enumerate(workers) if worker.process.pid in busy and worker.poll() is None]
            if victims:
                victim = moments.choice(victims)
                workers[victim].kill()
                workers[victim].communicate()
                kills += 1
                workers[victim] = start(*work)
        elif server and not outages:
            server.stop()  # for a while, under running trials
            time.sleep(4)
            server.start()
            outages += 1
    told = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], told
    assert kills >= (KILLS if not FULL else KILLS // 2)

    found = {arm: store._study(arm, held).get_trials() for arm in held.arms}
    done = Counter(
        (arm, *map(str, t.user_attrs["point"][1:])) for arm, those in found.items() for t in those
        if t.state == TrialState.COMPLETE
    )  # fmt: skip
    records = store.records(held)
    points = wanted(held, records)
    assert set(done) == {(p.arm, p.settings, str(list(p.seeds)), str(p.tested)) for p in points}
    assert set(done.values()) == {1}
    assert not [t for those in found.values() for t in those if t.state in (TrialState.RUNNING, TrialState.WAITING)]
    assert scores(store) == undisturbed
    lost = sum(t.state == TrialState.FAIL for those in found.values() for t in those)
    assert lost >= kills // 2  # a trial may end between the look and the kill
    with capsys.disabled():
        print(f"\n{kind}: {len(done)} trials, {kills} kills, {lost} trials taken back, {outages} outages")

    # The report comes from the database: the folder may be gone.
    shutil.rmtree(tmp_path / "tiny")
    status, said = finished("compare", "report", tmp_path / "tiny", *storage)
    assert status == 0, said
    assert concluded(held, records, METRICS)["sentences"][0] in " ".join(said.split())
    assert (tmp_path / "tiny" / "report.html").is_file()


def test_a_database_that_stays_away_is_named(plan, tmp_path):
    url = "postgresql://nobody@127.0.0.1:9/none"
    status, said = finished("compare", "work", tmp_path, "--storage", url, "--name", "x", "--away", "1")
    assert status == 2
    assert "could not be reached for 1 s" in said
    assert "goes on" in said
