"""Every YAML of the checkout: it loads, with each key that is not acted on said once, or is refused for what it needs."""

import collections
import re
import subprocess

import yaml

SUPPORTED = ("LVSM_flow_match_editor.", "LVSM_flow_match_editor_noise2relit.", "LVSM_scene_encoder_decoder.",
             "LVSM_scene_encoder_decoder_wEditor.", "LVSM_scene_encoder_decoder_wEditor_residual.",
             "LVSM_scene_encoder_decoder_wEditor_stanfordORB.", "LVSM_scene_encoder_decoder_wEditor_obj-with-light.")


def expected_refusal(config):
    """What in the file is out of duoflow's scope, as its message spells it; "" when it must load."""
    model, training = config.get("model", {}), config.get("training", {})
    if not model.get("class_name", "").removeprefix("model.").startswith(SUPPORTED):
        return "is not a class"
    if model.get("decoder_head", {}).get("type", "mlp") != "mlp":
        return "model.decoder_head.type"
    if training.get("relight_signals") in (["point_light"], "point_light"):
        return "training.relight_signals"
    return ""


def outcome(program, path):
    done = subprocess.run([program.path, "train", "--estimate", "--config", path, "dist.device=cpu"], capture_output=True, text=True)
    notes = [line.split(" info: ", 1)[1] for line in done.stderr.splitlines() if " info: " in line]
    keys = collections.Counter(match[1] for match in map(re.compile(r": ([\w.]+) (?:is not used|has no effect)").search, notes) if match)
    return done.returncode, keys, notes, done.stderr


def compare(reference, program, table):
    wrong, refused, said = {}, [], 0
    for path in sorted((reference / "configs").glob("*.yaml")):
        config = yaml.safe_load(path.read_text())
        if "model" not in config:
            continue  # accounts
        code, keys, notes, text = outcome(program, path)
        reason = expected_refusal(config)
        fits = code == 2 and reason in text if reason else code == 0 and keys and max(keys.values()) == 1
        wrong[path.name] = 0.0 if fits else 1.0
        refused += [f"{path.stem} ({reason})"] if reason else []
        said += sum(keys.values())
        if not fits:
            print(f"{path.name}: code {code}, {text[-500:]}", flush=True)
    table.add("configs", f"loaded, or refused for what is out of scope; {said} keys said to be unused, each once a file", wrong, 0)
    table.add("configs", "of these refused: " + ", ".join(refused), {"": 0.0}, 0)
