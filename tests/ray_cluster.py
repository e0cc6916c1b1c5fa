"""A Ray cluster for one test: two nodes on this machine, started by Ray's cluster utility."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

MEMORY = 80_000_000  # bytes of each node's object store, the least that Ray accepts


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """Two nodes with room for one worker each; the attribute `second` is the one to take away."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'mmq[ray]'")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.second = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
