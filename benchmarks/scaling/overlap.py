"""How much of the communication does the backward hide on a slow link, and how near is the step to what is possible?

    python3 benchmarks/scaling/overlap.py [--steps 12] [--only N]        (as root: makes two hosts; N: one row's cases, from 0)

Two ranks on two hosts (network namespaces) over a link shaped by tc. For each link: the step with buckets sent as they
fill, the same buckets all sent after the backward, and nothing sent (both ranks compute side by side: `compute`), in turns;
`communication` is all buckets with nothing else going on. `pipeline` is the step of an ideal link with these ready times
and bucket sizes: buckets go one after another and none before it is ready. What the backward could hide is then
compute + communication - pipeline; `hidden` = (sent after - sent as filled) over that.
`bound` = max(compute, communication). Computing on `a device`: sleeping in place of computing (step_profile --replay),
which is what the host sees of a GPU. On `the same cores`: the ranks' own steps, on cores that also run the TCP stacks of
both hosts. Processor time that sending takes there cannot hide behind a backward that needs the same processors: while a
bucket is on its way, the ideal step computes at 1 - `busy` of its speed, where `busy` is the share that arithmetic in
registers loses beside the same buckets (step_profile's comm_takes; what the caches lose is not in it).
"""

import argparse

from common import NARROW, WIDE, profile, table, two_hosts


def pipeline_ms(computing, communication, busy=0):
    """Buckets go one after another, each when it is ready, and take their share of `communication`; computing goes on at
    1 - busy of its speed meanwhile."""
    total, end, lost = sum(bucket["bytes"] for bucket in computing["buckets"]), 0, 0
    for bucket in computing["buckets"]:
        start, took = max(end, bucket["ready_ms"] + lost), communication * bucket["bytes"] / total
        left = computing["backward_end_ms"] + lost - start  # of the backward, were nothing sent any more
        end = start + took
        lost += busy * min(took, max(0, left) / (1 - busy))
    return max(end, computing["backward_end_ms"] + lost) + computing["optimizer_ms"]


def rows_of(rate, sizes, steps, mib):
    buckets = [f"dist.bucket_mib={mib}", f"dist.first_bucket_mib={min(1, mib / 4)}"]
    found = profile(two_hosts(rate), sizes, "--start", "never,end,filled", "--replay", *buckets, steps=steps)
    never, end, filled = found["never"], found["end"], found["filled"]
    compute, communication = never["step_ms"], found["comm_alone_ms"]
    bound, sending = max(compute, communication), found["comm_takes"]
    for where, after, step, busy in (("the same cores", end["step_ms"], filled["step_ms"], sending),
                                     ("a device", found["replay_end_ms"], found["replay_filled_ms"], 0)):
        pipeline = pipeline_ms(never, communication, busy)
        hideable = compute + communication - pipeline
        yield [rate, mib, f"{found['gradient_bytes'] / 1e6:.1f} in {len(never['buckets'])}", where, f"{compute:.0f}", f"{communication:.0f}", f"{busy:.0%}",
               f"{after:.0f}", f"{step:.0f}", f"{hideable:.0f}", share(after - step, hideable, communication), f"{bound:.0f}", f"{pipeline:.0f}",
               f"{step / pipeline:.2f}", f"{step / bound:.2f}", f"{filled['comm_cpu_ms']:.0f}" if where == "the same cores" else ""]


def share(hidden, hideable, communication):
    return f"{hidden / hideable:.0%}" if hideable > 0.1 * communication else ""  # nothing that it could be a share of


LONGER = [*WIDE, "training.batch_size_per_gpu=16", "training.global_batch_size=32"]  # computes twice as long as it sends
CASES = [("1gbit", WIDE, 0.5), ("1gbit", WIDE, 1), ("1gbit", WIDE, 4), ("1gbit", WIDE, 25), ("1gbit", LONGER, 1), ("100mbit", NARROW, 0.5)]

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=12)
parser.add_argument("--only", type=int, choices=range(len(CASES)))
options = parser.parse_args()
rows = [["link", "bucket MiB", "gradient MB", "computing on", "compute ms", "communication ms", "busy", "step, sent after", "step, sent as filled", "hideable ms",
         "hidden", "bound", "pipeline", "step over pipeline", "step over bound", "CPU ms of the communication thread"]]
for rate, sizes, mib in CASES if options.only is None else [CASES[options.only]]:
    rows += rows_of(rate, sizes, options.steps, mib)
print(table(rows))
