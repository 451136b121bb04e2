"""How much of the communication does the backward hide on a slow link, and how near is the step to what is possible?

    python3 benchmarks/scaling/overlap.py [--steps 12] [--rates 1gbit,100mbit]        (as root: makes two hosts)

Two ranks on two hosts (network namespaces) over a link shaped by tc. For each rate: the step with buckets sent as they
fill, the same buckets all sent after the backward, and nothing sent (both ranks compute side by side: `compute`);
`communication` is all buckets with nothing else going on. `bound` = max(compute, communication). What the backward
could hide is the communication, as far as it fits between the first bucket's readiness and the backward's end;
`hidden` = (sent after - sent as filled) over that. `pipeline` is the step that a serial link reaches with these ready
times and bucket sizes when sending takes no processor time from computing. Then the first rate with other bucket sizes.
"""

import argparse

from common import NARROW, WIDE, megabit, profile, table, two_hosts


def pipeline_ms(computing, communication):
    """Buckets go one after another, each when it is ready, and take their share of `communication`."""
    total, end = sum(bucket["bytes"] for bucket in computing["buckets"]), 0
    for bucket in computing["buckets"]:
        end = max(end, bucket["ready_ms"]) + communication * bucket["bytes"] / total
    return max(end, computing["backward_end_ms"]) + computing["optimizer_ms"]


def row(rate, sizes, steps, mib):
    buckets = [f"dist.bucket_mib={mib}", f"dist.first_bucket_mib={min(1, mib / 4)}"]
    never, end, filled = (profile(two_hosts(rate), sizes, "--start", start, *buckets, steps=steps) for start in ("never", "end", "filled"))
    compute, communication = never["step_ms"], end["comm_alone_ms"]
    window = never["backward_end_ms"] - never["buckets"][0]["ready_ms"]
    hideable = min(communication, window)
    bound = max(compute, communication)
    return [rate, mib, f"{never['gradient_bytes'] / 1e6:.1f} in {len(never['buckets'])}", f"{compute:.0f}", f"{communication:.0f}", f"{end['step_ms']:.0f}",
            f"{filled['step_ms']:.0f}", f"{hideable:.0f}", f"{(end['step_ms'] - filled['step_ms']) / hideable:.0%}", f"{bound:.0f}",
            f"{pipeline_ms(never, communication):.0f}", f"{filled['step_ms'] / bound:.2f}", f"{filled['comm_cpu_ms']:.0f}"]


parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=12)
parser.add_argument("--rates", default="1gbit,100mbit")
parser.add_argument("--buckets", default="4,1,25", help="MiB; all of them at the first rate, the first at the others")
options = parser.parse_args()
sizes_mib = [float(mib) for mib in options.buckets.split(",")]
rows = [["link", "bucket MiB", "gradient MB", "compute ms", "communication ms", "step, sent after", "step, sent as filled", "hideable ms", "hidden",
         "bound", "pipeline", "step over bound", "CPU ms of the communication thread"]]
rates = options.rates.split(",")
for rate in rates:
    for mib in sizes_mib if rate == rates[0] else [0.5]:
        rows.append(row(rate, WIDE if megabit(rate) > 300 else NARROW, options.steps, mib))
print(table(rows))
