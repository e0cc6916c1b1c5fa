"""Workers on a Ray cluster of two nodes, one of which is taken away."""

import pytest
from mmq_plugins.launchers.ray import Ray

from mmq.contracts import LaunchRequest
from mmq.errors import InputError
from mmq.testing import LauncherContract

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'mmq[ray]'")


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with one worker's room each, on this machine."""
    from ray.cluster_utils import Cluster

    memory = {"object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **memory})
    cluster.second = cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


class TestRay(LauncherContract):
    @pytest.fixture(autouse=True)
    def _on_a_cluster(self, cluster):
        self.cluster = cluster

    def make(self):
        return Ray(address=self.cluster.address)

    def test_a_worker_that_no_node_has_room_for_is_refused(self):
        launcher = Ray(address=self.cluster.address, cpus=64)
        with pytest.raises(InputError, match="no node of the Ray cluster has 64 CPUs and 2 GPUs"):
            launcher.check(LaunchRequest("s", [["plugins"]], 2))

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
