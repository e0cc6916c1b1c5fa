"""A worker is killed while it uploads a block to a real S3 server."""

import os
import signal
import socket
import threading
from pathlib import Path

import pytest
from stored_layers import KEY

from mmq.artifacts.remote import RemoteStore
from mmq.artifacts.store import Store

TESTS = Path(__file__).parents[1]
SIZE = 200_000  # bytes of the upload that pass
WORKER = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(TESTS)!r})
import torch
from mmq_plugins.quantizers.rtn import Rtn
from mmq.artifacts.remote import RemoteStore
from mmq.artifacts.store import Store
from stored_layers import KEY, layer

weight = Rtn().quantize(torch.arange(2.0**20).sin().reshape(1024, 1024), 8)
store = Store(Path(os.environ["MMQ_HOME"]), RemoteStore(os.environ["MMQ_STORE"]))
store.put(KEY, {{"a": layer(weight)}})
"""


class StallingProxy:
    """Forwards requests to a server until one exceeds SIZE, and then stalls until it is closed."""

    def __init__(self, host, port):
        self.server, self.stalled = (host, port), threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:  # closed
                return
            server = socket.create_connection(self.server)
            for source, target, most in ((client, server, SIZE), (server, client, None)):
                threading.Thread(
                    target=self._pass, args=(source, target, most), daemon=True
                ).start()

    def _pass(self, source, target, most):
        passed = 0
        try:
            while data := source.recv(4096):
                passed += len(data)
                if most is not None and passed > most:
                    self.stalled.set()
                    continue  # until the client is gone
                target.sendall(data)
        except OSError:
            pass
        for each in (source, target):
            each.close()


def test_a_worker_killed_in_the_middle_of_an_upload_leaves_nothing_that_is_used(
    tmp_path, monkeypatch, fork_server
):
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'mmq[s3]'")
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {"AWS_ACCESS_KEY_ID": "worker", "AWS_SECRET_ACCESS_KEY": "secret",
                        "AWS_DEFAULT_REGION": "us-east-1",
                        "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("killed")
    url, script, proxy = "s3://killed/mmq", tmp_path / "worker.py", StallingProxy(host, port)
    script.write_text(WORKER)
    env = os.environ | {"MMQ_STORE": url, "MMQ_HOME": str(tmp_path / "first")}
    worker = fork_server.start(
        cwd=tmp_path, env=env | {"AWS_ENDPOINT_URL": proxy.url}, script=str(script)
    )
    assert proxy.stalled.wait(300), worker.communicate(1)
    worker.send_signal(signal.SIGKILL)
    assert worker.wait(30) == -signal.SIGKILL
    assert RemoteStore(url).sizes() == {}
    again = fork_server.run(cwd=tmp_path, env=env | {"MMQ_HOME": str(tmp_path / "second")},
                            script=str(script))  # fmt: skip
    assert again.returncode == 0, again.stderr
    third = Store(tmp_path / "third", RemoteStore(url))
    assert third.get(KEY)["a"].weight.bits == 8
    proxy.listener.close()
    server.stop()
