"""The scaling model: the time of a step from when its buckets are ready and what the link is like.

A step is a computation of `compute` ms in which bucket i becomes ready at `ready[i]`; buckets leave in order, one after
another on a serial link. While the link is busy, computing goes on at (1 - steal) of its speed: sending takes processor
time (CPU) or streaming multiprocessors (NCCL). Then `optimizer` ms. On n ranks the slowest one decides: jitter adds
E[max of n normals] x its relative deviation x compute. All times in ms, sizes in bytes.
"""

import dataclasses
import math


@dataclasses.dataclass
class Step:
    compute: float  # until the end of the backward
    optimizer: float
    ready: list  # ms of each bucket
    bytes: list


def step_ms(step, bucket_ms, steal=0.0):
    """bucket_ms(bytes) -> ms on the link."""
    wall = done = 0.0  # done: computing finished so far, in ms of undisturbed computing
    link_free = 0.0

    def compute_until(target):
        """Wall time at which `target` of the computing is done, the link being busy until link_free."""
        nonlocal wall, done
        busy = max(0.0, link_free - wall)
        if done + busy * (1 - steal) >= target:
            wall += (target - done) / (1 - steal)
        else:
            wall += busy + (target - done - busy * (1 - steal))
        done = target

    for ready, size in zip(step.ready, step.bytes):
        compute_until(ready)
        link_free = max(link_free, wall) + bucket_ms(size)
    compute_until(step.compute)
    return max(wall, link_free) + step.optimizer


def expected_max(n):
    """E[max] of n standard normals, by its integral."""
    if n < 2:
        return 0.0
    cdf = lambda x: 0.5 * math.erfc(-x / math.sqrt(2))
    width = 0.005
    return sum(width * ((1 - cdf(x) ** n) - cdf(-x) ** n) for x in (width * (i + 0.5) for i in range(2000)))


@dataclasses.dataclass
class Cluster:
    """NCCL's own cost model (nccl v2.28 src/graph/tuning.cc, protocol Simple): latencies in us, bandwidths in GB/s."""

    gpus_per_node: int = 8
    link_gb_s: float = 50.0  # 400 Gbit/s per GPU
    efficiency: float = 0.92  # of the wire: headers and what NCCL reaches of it
    nvlink_gb_s: float = 360.0  # H100, bus bandwidth of an all-reduce within a node
    base_us: float = 8.4
    ring_hop_us: tuple = (3.4, 14.0)  # NVLink, network
    tree_hop_us: tuple = (4.0, 14.0)

    def bandwidth(self, n):
        return self.nvlink_gb_s if n <= self.gpus_per_node else min(self.nvlink_gb_s, self.link_gb_s * self.efficiency)

    def ring_ms(self, size, n):
        nodes = math.ceil(n / self.gpus_per_node)
        network = 2 * nodes if nodes > 1 else 0
        hops = 2 * (n - 1)
        latency = self.base_us + (hops - network) * self.ring_hop_us[0] + network * self.ring_hop_us[1]
        return latency / 1e3 + 2 * (n - 1) / n * size / self.bandwidth(n) / 1e6

    def tree_ms(self, size, n):
        nodes, local = math.ceil(n / self.gpus_per_node), min(n, self.gpus_per_node)
        latency = self.base_us + 2 * ((local - 1) * self.tree_hop_us[0] + math.log2(nodes) * self.tree_hop_us[1])
        return latency / 1e3 + 2 * size / (0.92 * self.bandwidth(n)) / 1e6

    def best_ms(self, size, n):
        return min(self.ring_ms(size, n), self.tree_ms(size, n))


def cluster_step_ms(step, cluster, n, algorithm="best", jitter=0.0, steal=0.0):
    if n == 1:
        return step.compute + step.optimizer
    time = {"ring": cluster.ring_ms, "tree": cluster.tree_ms, "best": cluster.best_ms}[algorithm]
    return step_ms(step, lambda size: time(size, n), steal) + expected_max(n) * jitter * step.compute
