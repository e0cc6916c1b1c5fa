"""Workers on a Ray cluster of two nodes, one of which is taken away."""

import sys
from contextlib import suppress

import psutil
import pytest
from mmq_plugins.launchers.ray import Ray
from ray_cluster import ray_cluster
from repeatable import free_port

from mmq.contracts import LaunchRequest
from mmq.errors import InputError
from mmq.testing import LauncherContract


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster() as running:
        yield running


def test_without_ray_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"ray is not installed. Run `pip install 'mmq\[ray\]'`"):
        Ray().check(LaunchRequest("s", [["plugins"]]))


def test_a_preview_needs_no_cluster():
    text = Ray(cpus=4).preview(LaunchRequest("s", [["grid", "--bits", "4,8"]] * 2, 1))
    assert text.startswith("# 2 actors on the Ray cluster at auto, each with 4 CPUs and 1 GPUs")
    assert text.endswith("\nmmq grid --bits 4,8\nmmq grid --bits 4,8")


def test_an_address_where_nothing_listens_is_refused_at_once(monkeypatch):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'mmq[ray]'")
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(InputError, match=f"no Ray cluster at '{address}' .*refused"):
        Ray(address=address).check(LaunchRequest("s", [["plugins"]]))
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=f"no Ray cluster at '{address}' .*refused"):
        Ray().check(LaunchRequest("s", [["plugins"]]))


@pytest.mark.cluster
class TestRay(LauncherContract):
    """On a real cluster."""

    @pytest.fixture(autouse=True)
    def _on_a_cluster(self, cluster):
        self.cluster = cluster

    def make(self):
        return Ray(address=self.cluster.address)

    def test_a_worker_that_no_node_has_room_for_is_refused(self):
        launcher = Ray(address=self.cluster.address, cpus=64)
        with pytest.raises(InputError, match="no node of the Ray cluster has 64 CPUs and 2 GPUs"):
            launcher.check(LaunchRequest("s", [["plugins"]], 2))

    def test_a_worker_that_is_killed_starts_again(self):
        lines = []
        request = LaunchRequest("s", [["plugins"]], 0, {"MMQ_HOME": "/one/of/a/kind"})
        workers = Ray(address=self.cluster.address).start(
            request, lambda n, line: lines.append(line)
        )
        self.follow(workers, lambda states: states[0].since)
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("MMQ_HOME") == "/one/of/a/kind":
                    process.kill()
        states = self.follow(workers, lambda s: s[0].code is not None)
        assert states[0].code == 0
        assert next(line for line in lines if "Ray" in line).startswith("was ended by signal 9")
        assert any("Ray has restarted it on" in line for line in lines)
        workers.stop()

    def test_a_worker_whose_node_is_taken_away_starts_again_on_another(self):
        lines = []
        launcher = Ray(address=self.cluster.address)
        request = LaunchRequest("s", [["plugins"]] * 2, 0, {})
        workers = launcher.start(request, lambda number, line: lines.append(line))
        states = self.follow(workers, lambda states: all(state.since for state in states))
        assert len({state.place for state in states}) == 2
        self.cluster.remove_node(self.cluster.second)
        states = self.follow(workers, lambda s: all(state.code is not None for state in s))
        assert [state.code for state in states] == [0, 0]
        assert len({state.place for state in states}) == 1
        assert any("Ray has restarted it on" in line for line in lines)
        workers.stop()
