"""Downloads from a real server on this machine: cut, refused, wrong, taken up again."""

import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from weince.__main__ import main
from weince.lab.data.download import ARCHIVES, Archive, fetch
from weince.shell.errors import UserError

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()


def packed(kind, name="images/data_batch_1.bin"):
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as held:
            held.writestr(name, CONTENT)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as held:
            entry = tarfile.TarInfo(name)
            entry.size = len(CONTENT)
            held.addfile(entry, io.BytesIO(CONTENT))
    return buffer.getvalue()


@pytest.fixture
def server():
    """Serves `content`; cuts the connection after `cut` bytes as long as `cuts` are left; may ignore ranges."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state = self.server.state
            state["asked"].append(self.headers.get("Range"))
            if state.get("status"):
                self.send_error(state["status"])
                return
            start = 0
            if self.headers.get("Range") and state["ranges"]:
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                if start >= len(state["content"]):
                    self.send_error(416)
                    return
            body = state["content"][start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if state["cuts"]:
                state["cuts"] -= 1
                body = body[: state["cut"]]
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *words):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.state = {"content": packed("tar"), "cut": 100_000, "cuts": 0, "ranges": True, "asked": []}
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def archive(server, content=None, name="set.tar.gz"):
    content = server.state["content"] if content is None else content
    url = f"http://127.0.0.1:{server.server_address[1]}/{name}"
    return Archive(url, hashlib.md5(content, usedforsecurity=False).hexdigest(), "images")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_is_fetched_checked_and_unpacked(server, kind, tmp_path):
    server.state["content"] = packed(kind)
    told = []
    place = fetch(archive(server), tmp_path / "new", lambda *words: told.append(words))
    assert (place / "data_batch_1.bin").read_bytes() == CONTENT
    assert any(done == total == len(server.state["content"]) for _, done, total in told)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["images", "set.tar.gz"]
    fetch(archive(server), tmp_path / "new")
    assert len(server.state["asked"]) == 1  # what is there is not fetched again


def test_a_cut_connection_is_taken_up_where_it_was(server, tmp_path):
    server.state["cuts"] = 2
    assert (fetch(archive(server), tmp_path) / "data_batch_1.bin").read_bytes() == CONTENT
    assert server.state["asked"] == [None, "bytes=100000-", "bytes=200000-"]


def test_another_call_goes_on_from_what_lies_there(server, tmp_path):
    server.state |= {"cuts": 99, "cut": 10_000}
    with pytest.raises(UserError, match="goes on where it stopped"):
        fetch(archive(server), tmp_path)
    left = (tmp_path / "set.tar.gz.part").stat().st_size
    assert left == 50_000
    server.state["cuts"] = 0
    assert (fetch(archive(server), tmp_path) / "data_batch_1.bin").read_bytes() == CONTENT
    assert server.state["asked"][-1] == "bytes=50000-"


def test_a_server_without_ranges_starts_anew(server, tmp_path):
    (tmp_path / "set.tar.gz.part").write_bytes(b"x" * 1000)
    server.state["ranges"] = False
    assert (fetch(archive(server), tmp_path) / "data_batch_1.bin").read_bytes() == CONTENT


def test_a_part_that_is_whole_is_only_checked(server, tmp_path):
    (tmp_path / "set.tar.gz.part").write_bytes(server.state["content"])
    assert (fetch(archive(server), tmp_path) / "data_batch_1.bin").read_bytes() == CONTENT


def test_another_checksum_is_refused_and_nothing_is_left(server, tmp_path):
    with pytest.raises(UserError, match=r"MD5 should be .* Found .* removed"):
        fetch(archive(server, b"another"), tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "set.tar.gz").write_bytes(b"put here by hand, damaged")
    with pytest.raises(UserError, match=r"set\.tar\.gz should have the MD5"):
        fetch(archive(server), tmp_path)


def test_what_lies_there_by_hand_needs_no_connection(server, tmp_path):
    (tmp_path / "set.tar.gz").write_bytes(server.state["content"])
    gone = archive(server)._replace(url="http://127.0.0.1:9/set.tar.gz")
    assert (fetch(gone, tmp_path) / "data_batch_1.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("status", [404, 503])
def test_what_is_not_there_is_said_in_one_sentence(server, status, tmp_path):
    server.state["status"] = status
    with pytest.raises(UserError, match=rf"{status}.*by hand"):
        fetch(archive(server), tmp_path)
    with pytest.raises(UserError, match="Connection refused"):
        fetch(archive(server)._replace(url="http://127.0.0.1:9/set.tar.gz"), tmp_path)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_cannot_write_outside(server, kind, tmp_path):
    server.state["content"] = packed(kind, "../../outside.bin")
    with pytest.raises(UserError, match=r"cannot be unpacked|should unpack to"):
        fetch(archive(server), tmp_path / "a" / "b")
    assert not list(tmp_path.rglob("outside.bin"))
    assert not list(tmp_path.rglob("*.draft"))


def test_the_command_unpacks_what_lies_there_and_says_where(tmp_path, capsys, monkeypatch, server):
    monkeypatch.setitem(ARCHIVES, "cifar10", archive(server))
    assert main(["data", "cifar10", "--data-dir", str(tmp_path)]) == 0
    assert (tmp_path / "images" / "data_batch_1.bin").is_file()
    assert "weince compare --data cifar10" in capsys.readouterr().out


def test_the_command_says_what_it_cannot_fetch(tmp_path, capsys):
    assert main(["data", "imagenet32", "--data-dir", str(tmp_path)]) == 2
    assert "log in" in capsys.readouterr().err
