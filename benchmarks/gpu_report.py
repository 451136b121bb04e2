"""The numbers of benchmarks/gpu.sh, from the folders of runs: needs Python alone.

    gpu_report.py losses RUN_A RUN_B [LIMIT]        largest relative difference of two runs' losses
    gpu_report.py timing RUN [SKIP [PEAK_TFLOPS]]   samples/s, FLOP/s and memory of a joint run, SKIP steps of warm-up left out
    gpu_report.py ratio RUN_A RUN_B [SKIP]          time of a step of B over A's
    gpu_report.py profile RUN                       the table of `train --profile`, and what of a step is data, communication, logging
"""

import json
import pathlib
import re
import statistics
import sys


def metrics(run):
    return [json.loads(line) for line in (pathlib.Path(run) / "metrics.jsonl").read_text().splitlines()]


def losses(run_a, run_b, limit="inf"):
    worst, lines_a, lines_b = 0.0, metrics(run_a), metrics(run_b)
    if len(lines_a) != len(lines_b) or not lines_a:
        sys.exit(f"losses: {run_a} has {len(lines_a)} steps, {run_b} has {len(lines_b)}")
    for a, b in zip(lines_a, lines_b):
        difference = max(abs(a[key] - b[key]) / abs(b[key]) for key in ("total_loss", "velocity_loss", "render_loss", "grad_norm"))
        print(f"  step {a['step']}: total_loss {a['total_loss']:.6f} and {b['total_loss']:.6f}, largest relative difference {difference:.2e}")
        worst = max(worst, difference)
    if not worst <= float(limit):
        sys.exit(f"losses: a loss or gradient norm differs by {worst:.2e}, more than {limit}")


def setting(config, *path):
    """One value of a run's config.yaml, whose sections are indented by two spaces a level."""
    depth = 0
    for line in config.splitlines():
        found = re.match(r"( *)([\w.]+):(.*)", line)
        if not found:
            continue
        level = len(found[1]) // 2
        if level < depth:
            break
        if level == depth and found[2] == path[depth]:
            depth += 1
            if depth == len(path):
                return found[3].strip().strip('"')
    sys.exit(f"timing: config.yaml has no {'.'.join(path)}")


def block_flops(tokens, kept, d):
    """(linear layers, one of attention's two products) of a transformer block over `tokens` of width d, of which the first `kept`
    leave it: keys and values are of all tokens; queries, output and MLP of those."""
    return 2 * d * d * (2 * tokens + 10 * kept), 2 * tokens * kept * d


def flops_per_sample(config, attention_backward=4):
    """Matrix products of one sample of a joint step with frozen renderer; 2 FLOPs a multiply-add, no recomputation counted.

    Backward of a linear layer: 2 products, input and weight; 1 where the weight is frozen or nothing before it trains. Of
    attention: 4, one for each factor of its two; a fused kernel makes the scores again, which is 5.
    """
    number = lambda *path: int(setting(config, *path))
    if setting(config, "training", "freeze_reconstructor_renderer") != "true":
        sys.exit("timing: the count of FLOPs is for a frozen renderer, this run trains it")
    transformer = ("model", "transformer")
    d, patch = number(*transformer, "d"), number("model", "image_tokenizer", "patch_size")
    latents, env = number(*transformer, "n_latent_vectors"), number("model", "env_tokenizer", "image_size")
    light, patches = (env // patch) * (2 * env // patch), (number("model", "image_tokenizer", "image_size") // patch) ** 2
    asked = lambda name: setting(config, *transformer, "editor", name) == "true"

    def blocks(layers, tokens, kept, linear_passes):
        all_of = [block_flops(tokens, tokens if i + 1 < layers else kept, d) for i in range(layers)]
        return sum(linear_passes * linear + (2 + attention_backward) * product for linear, product in all_of)

    layers = number(*transformer, "editor", "n_layer")
    editor = blocks(layers, latents + light, latents, 3) + layers * 3 * 2 * d * 6 * d  # and AdaLN's modulation
    editor += 2 * 2 * light * 9 * patch**2 * d + (2 + 3) * 2 * d * d  # tokens of the light, embedding of the time
    editor += (3 * 2 * 2 * light * d * d if asked("light_in_adaln") else 0) + (3 * 2 * latents * d * d if asked("velocity_head") else 0)
    view = blocks(number(*transformer, "decoder_n_layer"), latents + patches, patches, 2)
    view += 2 * patches * 6 * patch**2 * d + 2 * 2 * patches * d * 3 * patch**2  # rays to tokens, tokens to pixels
    return editor + number("training", "num_target_views") * view


def step_times(run, skip):
    """Milliseconds of the steps after those of warm-up, in order of size."""
    lines = metrics(run)
    if not lines[int(skip):]:
        sys.exit(f"timing: {run} has {len(lines)} steps, none after {skip} of warm-up")
    return sorted(line["step_ms"] for line in lines[int(skip):])


def timing(run, skip="10", peak="0"):
    config = (pathlib.Path(run) / "config.yaml").read_text()
    lines, times = metrics(run), step_times(run, skip)
    samples = lines[0]["samples"]
    rate = 1e3 * samples / statistics.median(times)
    flops = flops_per_sample(config)
    recomputed = setting(config, "training", "grad_checkpoint_every") != "0"
    print(f"  {samples} samples a step, {len(times)} steps timed: median {statistics.median(times):.1f} ms (fastest {times[0]:.1f}, slowest {times[-1]:.1f}), "
          f"host waited for data {statistics.median(line['data_wait_ms'] for line in lines[int(skip):]):.2f} ms")
    print(f"  {rate:.2f} samples/s, {flops / 1e12:.4g} TFLOP a sample{' (blocks run again in the backward are not counted)' if recomputed else ''}, "
          f"{rate * flops / 1e12:.4g} TFLOP/s")
    print("  claim: MFU " + (f"{100 * rate * flops / 1e12 / float(peak):.1f} % of {float(peak):g} TFLOP/s (floor 32 %, aim 36 %)" if float(peak) > 0
                             else "not measured: no peak known or given"))
    memory = [line["gpu_mem_mib"] for line in lines if line["gpu_mem_mib"] is not None]
    print(f"  peak GPU memory of tensors {max(memory):.0f} MiB" if memory else "  peak GPU memory: none (CPU)")
    print(f"  losses first and last: {lines[0]['total_loss']:.5f}, {lines[-1]['total_loss']:.5f}; steps skipped: {sum(line['skipped'] for line in lines)}")


def ratio(run_a, run_b, skip="10"):
    print(f"  time of a step, {pathlib.Path(run_b).name} over {pathlib.Path(run_a).name}: "
          f"{statistics.median(step_times(run_b, skip)) / statistics.median(step_times(run_a, skip)):.3f}")


STAGE = re.compile(r"(\S.*?) +([\d.]+) +[\d.]+% +([\d.]+) +[\d.]+ +[\d.]+% +[\d.]+% +([\d.]+) +(\d+)")
EXPOSED = {"data": ("data", "batch to device"), "communication": ("exposed communication", "statistics"),
           "logging and all else between the stages": ("other",)}


def stages(run):
    """{stage: (milliseconds, GFLOP)} of `train --profile`, "sum" among them."""
    table = pathlib.Path(run) / "profile" / "table.txt"
    if not table.exists():
        sys.exit(f"profile: there is no {table}, the run was too short (--profile N needs N + 5 steps)")
    return {found[1]: (float(found[2]), float(found[3])) for found in map(STAGE.fullmatch, table.read_text().splitlines()) if found}


def profile(run):
    print("  " + (pathlib.Path(run) / "profile" / "table.txt").read_text().rstrip().replace("\n", "\n  "))
    found = stages(run)
    step = found["sum"][0]
    shares = {name: sum(100 * found[stage][0] / step for stage in of if stage in found) for name, of in EXPOSED.items()}
    print(f"  claim: exposed data, communication and logging {sum(shares.values()):.2f} % of the step (aim at most 2 %): "
          + ", ".join(f"{name} {share:.2f} %" for name, share in shares.items()))


if __name__ == "__main__":
    commands = {function.__name__: function for function in (losses, timing, ratio, profile)}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
