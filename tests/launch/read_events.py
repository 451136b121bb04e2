"""Prints what TensorBoard itself reads from a folder of event files, as JSON: {"scalars": {tag: [[step, value], ...]},
"images": {tag: [[step, height, width, PNG as hex], ...]}}."""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "images": 0})
events.Reload()
tags = events.Tags()
scalars = {tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in tags["scalars"]}
images = {
    tag: [[e.step, e.height, e.width, e.encoded_image_string.hex()] for e in events.Images(tag)]
    for tag in tags["images"]
}
json.dump({"scalars": scalars, "images": images}, sys.stdout)
