"""How will a step scale on links and numbers of GPUs that are not here, and how far can the prediction be trusted?

    python3 benchmarks/scaling/model.py check [--steps 10] [--save F.json | --load F.json]    (as root: makes two hosts)
    python3 benchmarks/scaling/model.py predict [--mfu 0.4] [--jitter 0.005] [--steal 0.05] [--plot F.svg]

check: measures when the buckets of a step are ready, and over two shaped links latency and communication alone; these
give the link's parameters. Then the steps over four other links are predicted, and measured: of ranks whose computing
leaves the host's cores free, as a GPU's does (step_profile --replay), and of ranks that compute on the cores that also
run the TCP stacks of both hosts, for which the share of computing that sending takes is fitted too.
predict: configs/lvsm_256.yaml on 8-GPU H100 nodes with 400 Gbit/s a GPU (lvsm_256.py, simulate.Cluster).
"""

import argparse
import json
import pathlib

import lvsm_256
from common import BUILD, WIDE, megabit, profile, run, table, two_hosts
from plot import line_plot
from simulate import Cluster, Step, cluster_step_ms, step_ms

FIT, CHECK = ["400mbit", "1500mbit"], ["250mbit", "600mbit", "1gbit", "2500mbit"]
BUCKETS = ["dist.bucket_mib=2", "dist.first_bucket_mib=1"]


def measure(steps):
    small = run([*two_hosts(FIT[0]), BUILD / "collectives", "--mib", "0.001", "--repeats", "30"])
    found = {"latency_ms": next(float(line.split()[2]) for line in small.splitlines() if line.startswith("all_reduce"))}
    for rate in FIT + CHECK:
        found[rate] = profile(two_hosts(rate), WIDE, "--start", "never,filled", "--replay", *BUCKETS, steps=steps)
    return found


def fit(found):
    """Bucket time = latency + bytes x (wire / rate + copy); a step takes `idle` more, since its connections have been idle
    (TCP starts slowly again). On the same cores a byte takes `steal` of a core's time on top of its time on the wire, one
    after the other: the stolen share of computing while sending = steal x rate / (1 + steal x rate)."""
    def step(rate):
        computing = found[rate]["never"]
        return Step(computing["backward_end_ms"], computing["optimizer_ms"], [bucket["ready_ms"] for bucket in computing["buckets"]],
                    [bucket["bytes"] for bucket in computing["buckets"]])

    sizes = step(FIT[0]).bytes
    alone = {rate: found[rate]["comm_alone_ms"] - len(sizes) * found["latency_ms"] for rate in FIT}
    slow, fast = (8 * sum(sizes) / megabit(rate) / 1e3 for rate in FIT)  # ms on an ideal wire
    wire = (alone[FIT[0]] - alone[FIT[1]]) / (slow - fast)
    copy = (alone[FIT[0]] - wire * slow) / sum(sizes)

    def predicted(rate, steal, idle):
        bucket_ms = lambda size: found["latency_ms"] + size * (wire * 8 / megabit(rate) / 1e3 + copy)
        stolen = steal * megabit(rate)
        return step_ms(step(rate), bucket_ms, stolen / (1 + stolen)) + idle

    idle = sum(found[rate]["replay_filled_ms"] - predicted(rate, 0, 0) for rate in FIT) / len(FIT)

    def error(steal):
        return sum((predicted(rate, steal, idle) / found[rate]["filled"]["step_ms"] - 1) ** 2 for rate in FIT)

    steal = min((1e-5 * i for i in range(500)), key=error)
    return wire, copy, idle, steal, lambda rate, stolen: predicted(rate, stolen, idle)


def check(options):
    found = json.loads(pathlib.Path(options.load).read_text()) if options.load else measure(options.steps)
    if options.save:
        pathlib.Path(options.save).write_text(json.dumps(found))
    wire, copy, idle, steal, predicted = fit(found)
    print(f"Fitted on {' and '.join(FIT)}: latency {found['latency_ms']:.2f} ms, {wire:.2f} times the gradient's bytes on the wire, "
          f"{copy * 1e6:.2f} ms per MB at any rate, {idle:.1f} ms a step, {steal * 1e3:.2f} ns of a core a bit sent on the same cores.\n")
    rows = [["link", "used for the fit", "on a device: measured ms", "predicted ms", "error", "on the same cores: measured ms", "predicted ms", "error"]]
    for rate in FIT + CHECK:
        row = [rate, "yes" if rate in FIT else "no"]
        for step, stolen in ((found[rate]["replay_filled_ms"], 0), (found[rate]["filled"]["step_ms"], steal)):
            row += [f"{step:.0f}", f"{predicted(rate, stolen):.0f}", f"{predicted(rate, stolen) / step - 1:+.1%}"]
        rows.append(row)
    print(table(rows))


def predict(options):
    cluster, counts = Cluster(), [8 * 2**i for i in range(10)]

    def efficiency(batch, n, algorithm="best", everything=False, jitter=options.jitter, samples=None, mfu=options.mfu):
        step = lvsm_256.step(batch, mfu, everything)
        alone = lvsm_256.step(samples or batch, mfu, everything)
        ideal = (alone.compute + alone.optimizer) * batch / (samples or batch)
        return ideal / cluster_step_ms(step, cluster, n, algorithm, jitter, options.steal)

    step = lvsm_256.step(8, options.mfu)
    print(f"One H100, batch 8, at {options.mfu:.0%} of {lvsm_256.PEAK_TFLOPS} TFLOP/s, recomputation counted as work (assumed, not measured): "
          f"{step.compute + step.optimizer:.0f} ms, {sum(step.bytes) / 1e6:.0f} MB of gradients in {len(step.bytes)} buckets "
          f"(all parameters: {sum(lvsm_256.step(8, options.mfu, True).bytes) / 1e6:.0f} MB).\n")
    curves = {}
    rows = [["GPUs", "ring", "tree", "better of both", "without jitter", "all parameters", "batch 1", "strong, 4096 samples"]]
    for n in counts:
        values = [efficiency(8, n, "ring"), efficiency(8, n, "tree"), efficiency(8, n), efficiency(8, n, jitter=0),
                  efficiency(8, n, everything=True), efficiency(1, n), efficiency(4096 / n, n, samples=8)]
        for name, value in zip(rows[0][1:], values):
            curves.setdefault(name, []).append((n, value))
        rows.append([n, *(f"{value:.1%}" for value in values)])
    print(table(rows))
    print()
    for everything in (False, True):
        for mfu in (options.mfu, 1.5 * options.mfu):
            below = [batch for batch in (16, 8, 7, 6, 5, 4, 3, 2, 1) if efficiency(batch, 512, everything=everything, mfu=mfu) < 0.9]
            what = "all parameters trained" if everything else "the editor trained (as configured)"
            print(f"- 512 GPUs, {what}, at {mfu:.0%} of the peak: {efficiency(8, 512, everything=everything, mfu=mfu):.1%} at batch 8 per GPU; "
                  + (f"below 90 % from batch {max(below)} down." if below else "at no batch below 90 %."))
    print(f"\nJitter: relative standard deviation {options.jitter:.1%} of a GPU's computing time, independent and normal; the slowest of n decides. "
          f"While sending, NCCL takes {options.steal:.0%} of the computing speed.\nEfficiency: against one GPU that sends nothing, at the same batch "
          "per GPU (strong: at 8).")
    if options.plot:
        pathlib.Path(options.plot).write_text(line_plot(curves, "GPUs (8 per node)", "efficiency", "lvsm_256 on H100, predicted"))


parser = argparse.ArgumentParser()
parser.add_argument("what", choices=["check", "predict"])
parser.add_argument("--steps", type=int, default=10)
parser.add_argument("--save")
parser.add_argument("--load")
parser.add_argument("--mfu", type=float, default=0.4)
parser.add_argument("--jitter", type=float, default=0.005)
parser.add_argument("--steal", type=float, default=0.05)
parser.add_argument("--plot")
arguments = parser.parse_args()
check(arguments) if arguments.what == "check" else predict(arguments)
