"""Blocks that several machines share: in a folder, and in S3 behind a real HTTP server."""

import errno
import os
import shutil
import socket
from urllib.parse import urlsplit

import pytest
import torch
from mmq_plugins.quantizers.rtn import Rtn
from stored_layers import KEY, layer

from mmq.artifacts.remote import RemoteStore, is_transient
from mmq.artifacts.store import Store
from mmq.cli import main
from mmq.errors import InputError

BUCKET = "blocks"


@pytest.fixture(scope="module")
def s3_server():
    """The address of a running moto server."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'mmq[s3]'")
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def url(request, tmp_path, monkeypatch):
    """A shared store's URL."""
    if request.param == "folder":
        return str(tmp_path / "shared")
    import s3fs

    host, port = request.getfixturevalue("s3_server")
    settings = {"AWS_ACCESS_KEY_ID": "worker", "AWS_SECRET_ACCESS_KEY": "never-shown",
                "AWS_ENDPOINT_URL": f"http://{host}:{port}",
                "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"{BUCKET}-{abs(hash(tmp_path))}"
    s3fs.S3FileSystem().mkdir(name)
    return f"s3://{name}/mmq"


def machine(tmp_path, name, url):
    return Store(tmp_path / name, RemoteStore(url))


def block():
    return {"a": layer(Rtn().quantize(torch.arange(256.0).sin().reshape(4, 64), 4))}


def weight(store):
    result = store.get(KEY)
    return None if result is None else result["a"].weight.dequantize()


def test_another_machine_fetches_what_one_has_stored(tmp_path, url):
    RemoteStore(url).check()
    first, second = (machine(tmp_path, name, url) for name in ("first", "second"))
    assert not second.has(KEY)
    assert second.get(KEY) is None
    first.put(KEY, block(), seconds=2.5)
    assert second.has(KEY)
    assert torch.equal(weight(second), weight(first))
    assert second.seconds(KEY) == 2.5
    assert list(RemoteStore(url).sizes()) == [first.path(KEY).name]
    RemoteStore(url).remove(first.path(KEY).name)
    RemoteStore(url).remove(first.path(KEY).name)
    assert RemoteStore(url).sizes() == {}


def test_a_block_damaged_locally_is_fetched_again_and_one_damaged_remotely_is_recomputed(
    tmp_path, url, caplog
):
    first, second = (machine(tmp_path, name, url) for name in ("first", "second"))
    first.put(KEY, block())
    expected, name = weight(first), first.path(KEY).name
    first.path(KEY).write_bytes(first.path(KEY).read_bytes()[:-7])
    assert torch.equal(weight(first), expected)
    remote = RemoteStore(url)
    remote.fs.pipe_file(f"{remote.root}/{name}", first.path(KEY).read_bytes()[:-7])
    assert not second.has(KEY)
    assert second.get(KEY) is None
    assert "computed again" in caplog.text
    second.put(KEY, first.get(KEY))
    third = machine(tmp_path, "third", url)
    assert torch.equal(weight(third), expected)


def test_a_worker_that_is_killed_while_it_writes_leaves_nothing_that_is_used(
    tmp_path, url, monkeypatch
):
    first, second = (machine(tmp_path, name, url) for name in ("first", "second"))
    first.put(KEY, block())
    expected, name = weight(first), first.path(KEY).name
    data = first.path(KEY).read_bytes()
    first.remote.remove(name)
    if url.startswith("s3"):  # the connection ends in the middle of the upload
        host, port = s3_address()
        path = f"/{first.remote.root}/{name}"
        with socket.create_connection((host, port)) as connection:
            head = f"PUT {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(data)}\r\n\r\n"
            connection.sendall(head.encode() + data[: len(data) // 2])
    else:

        def dies(source, target):
            shutil.copy(source, target)
            raise KeyboardInterrupt

        monkeypatch.setattr(first.remote.fs, "put_file", dies)
        with pytest.raises(KeyboardInterrupt):
            first.put(KEY, block())
        monkeypatch.undo()
    assert not second.has(KEY)
    second.put(KEY, Store(tmp_path / "first").get(KEY))
    assert torch.equal(weight(machine(tmp_path, "third", url)), expected)


def s3_address():
    parts = urlsplit(os.environ["AWS_ENDPOINT_URL"])
    return parts.hostname, parts.port


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("nosuch://bucket", "MMQ_STORE: nosuch:// cannot be used"),
        ("gs://bucket", "pip install gcsfs"),
    ],
)
def test_a_protocol_that_cannot_be_used_is_refused_with_what_helps(url, text):
    with pytest.raises(InputError, match=text):
        RemoteStore(url)


def test_a_store_that_cannot_be_written_is_refused_before_the_model_is_loaded(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"MMQ_STORE: {tmp_path}/file/x cannot be used"):
        RemoteStore(f"{tmp_path}/file/x").check()


def test_the_list_and_prune_include_the_shared_store(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MMQ_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MMQ_STORE", str(tmp_path / "shared"))
    Store.open().put(KEY, block())
    main(["store"])
    assert f"1 blocks, 0.0 MiB shared at {tmp_path}/shared" in capsys.readouterr().out
    main(["store", "prune", "--everything", "--yes"])
    assert RemoteStore.configured().sizes() == {}


def test_a_server_that_stops_responding_is_waited_for_and_a_refusal_is_not(
    tmp_path, monkeypatch, caplog
):
    store, path = RemoteStore(str(tmp_path / "shared")), tmp_path / "block"
    path.write_bytes(b"block")
    store.is_server = True
    real, problems = store.fs.put_file, []

    def put_file(*arguments):
        if problems:
            raise problems.pop()
        real(*arguments)

    monkeypatch.setattr(store.fs, "put_file", put_file)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    problems += [ConnectionRefusedError("refused"), OSError(errno.EBUSY, "slow down")]
    store.store("a.safetensors", path)
    assert store.sizes() == {"a.safetensors": 5}
    assert [line.partition(" (")[0].partition(" after")[0] for line in caplog.messages] == [
        f"MMQ_STORE: {store.url} is unavailable", f"{store.url} is available again",
    ]  # fmt: skip
    problems += [ConnectionRefusedError("never"), PermissionError("AccessDenied")]
    with pytest.raises(InputError, match="cannot be used: PermissionError: AccessDenied"):
        store.store("b.safetensors", path)
    assert len(problems) == 1


def test_lost_connections_to_s3_are_transient():
    exceptions = pytest.importorskip("botocore.exceptions", reason="s3fs is not installed")
    for error in (exceptions.EndpointConnectionError(endpoint_url="x"),
                  exceptions.ReadTimeoutError(endpoint_url="x")):  # fmt: skip
        assert is_transient(error)
    assert not is_transient(exceptions.NoCredentialsError())
    assert not is_transient(FileNotFoundError("NoSuchBucket"))
