"""Downloads from a real server on this machine: whole, cut, refused, wrong, hostile."""

import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from torchvision import datasets

import published
from weince.__main__ import main
from weince.lab.data import download
from weince.lab.data.download import fetch
from weince.lab.data.sets import load
from weince.lab.tasks.recipe.images import ImagesRecipe as Recipe
from weince.shell.errors import UserError

SETS = {
    "cifar10": ("CIFAR10", published.cifar10),
    "cifar100": ("CIFAR100", published.cifar100),
    "stl10": ("STL10", published.stl10),
    "tiny-imagenet": (None, published.tiny_imagenet),
}


@pytest.fixture
def server():
    """Serves `content`, or a status that is no success; cuts the connection after `cut` bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state = self.server.state
            state["asked"] += 1
            if state["status"] != 200:
                self.send_error(state["status"])
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(state["content"])))
            self.end_headers()
            self.wfile.write(state["content"][: state["cut"]])
            self.close_connection = True

        def log_message(self, *words):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.state = {"content": b"", "cut": None, "status": 200, "asked": 0}
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def packed(folder, kind, name=None):
    """The folder as an archive; or one file under a name of its own."""
    buffer = io.BytesIO()
    paths = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as held:
            for inner, content in paths.items():
                held.writestr(name or inner, content)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as held:
            for inner, content in paths.items():
                entry = tarfile.TarInfo(name or inner)
                entry.size = len(content)
                held.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def serve(server, data, monkeypatch, content, port=None):
    """Let the set be found at the server."""
    server.state["content"] = content
    kind = SETS[data][0] and getattr(datasets, SETS[data][0])
    name = (kind.url if kind else download.TINY_IMAGENET.url).rsplit("/", 1)[1]
    url = f"http://127.0.0.1:{port or server.server_address[1]}/{name}"
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if kind:
        monkeypatch.setattr(kind, "url", url)
        monkeypatch.setattr(kind, "tgz_md5", md5)
    else:
        monkeypatch.setattr(download, "TINY_IMAGENET", download.TINY_IMAGENET._replace(url=url, md5=md5))
    return name


@pytest.fixture(params=SETS)
def data(request, server, tmp_path, monkeypatch):
    """A set that the server holds; what it is unpacked to lies in `made`."""
    SETS[request.param][1](tmp_path / "made", monkeypatch)
    serve(server, request.param, monkeypatch, packed(tmp_path / "made", "tar" if SETS[request.param][0] else "zip"))
    return request.param


def test_a_set_is_fetched_checked_unpacked_and_read(server, data, tmp_path, capsys):
    folder = tmp_path / "new" / "deep"
    assert main(["data", data, "--data-dir", str(folder)]) == 0
    assert f"weince compare --data {data}" in capsys.readouterr().out
    there, made = (load(Recipe(data=data, data_dir=place, batch_size=8)) for place in (folder, tmp_path / "made"))
    assert there.fingerprint == made.fingerprint
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    asked = server.state["asked"]
    fetch(data, folder)
    assert server.state["asked"] == asked  # what is there is not fetched again


def test_an_archive_that_lies_there_needs_no_connection(server, data, tmp_path, monkeypatch):
    name = serve(server, data, monkeypatch, server.state["content"], port=9)
    (tmp_path / name).write_bytes(server.state["content"])
    assert fetch(data, tmp_path).is_dir()
    assert server.state["asked"] == 0


def test_a_cut_connection_is_said_and_the_same_call_repairs_it(server, data, tmp_path):
    server.state["cut"] = 1000
    with pytest.raises(UserError, match=r"could not be fetched into .*(MD5|IncompleteRead|more expected).*starts anew"):
        fetch(data, tmp_path)
    server.state["cut"] = None
    assert fetch(data, tmp_path).is_dir()


def test_another_file_than_the_published_one_is_not_unpacked(server, data, tmp_path):
    server.state["content"] = b"another" + server.state["content"]
    with pytest.raises(UserError, match=r"should have the MD5 \w{32}\. Found \w{32}"):
        fetch(data, tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["made"]


def test_a_file_that_was_changed_after_unpacking_is_put_right(server, tmp_path, monkeypatch):
    published.cifar10(tmp_path / "made", monkeypatch)
    serve(server, "cifar10", monkeypatch, packed(tmp_path / "made", "tar"))
    changed = fetch("cifar10", tmp_path) / "data_batch_2"
    changed.write_bytes(b"half of it")
    with pytest.raises(UserError, match="data_batch_2 should be the published file"):
        load(Recipe(data="cifar10", data_dir=tmp_path, batch_size=8))
    fetch("cifar10", tmp_path)
    load(Recipe(data="cifar10", data_dir=tmp_path, batch_size=8))


@pytest.mark.parametrize("status", [404, 503])
def test_what_is_not_there_is_said_in_one_sentence(server, data, status, tmp_path, monkeypatch):
    server.state["status"] = status
    with pytest.raises(UserError, match=r"could not be fetched.*by hand") as error:
        fetch(data, tmp_path / "new")
    assert "\n" not in str(error.value)
    serve(server, data, monkeypatch, b"", port=9)
    with pytest.raises(UserError, match="Connection refused"):
        fetch(data, tmp_path / "new")


@pytest.mark.parametrize("data", ["cifar10", "tiny-imagenet"])
def test_an_archive_cannot_write_outside(server, data, tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "file").write_bytes(b"content")
    kind = "tar" if data == "cifar10" else "zip"
    serve(server, data, monkeypatch, packed(tmp_path / "one", kind, "../../outside.bin"))
    with pytest.raises(UserError, match="could not be fetched"):
        fetch(data, tmp_path / "a" / "b")
    assert not [path for path in tmp_path.rglob("outside.bin") if path.parents[0] != tmp_path / "a" / "b"]
    assert not list(tmp_path.rglob("*.draft"))


def test_the_command_says_what_it_cannot_fetch_and_what_is_needed(tmp_path, capsys):
    assert main(["data", "imagenet32", "--data-dir", str(tmp_path)]) == 2
    assert "log in" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["data", "--help"])
    said = capsys.readouterr().out
    assert "170 MB" in said
    assert "image-net.org" in said
