"""The step of configs/lvsm_256.yaml on one H100 as the model assumes it: from sizes and FLOPs, not from a measurement.

Per token of a block a forward multiplies 12 d^2 weights (24 d^2 FLOP) and attends to N tokens (4 N d FLOP). A backward
costs twice that where weights train; where they are frozen the weight gradients of the products fall away. Blocks are
computed again in the backward (grad_checkpoint_every: 1). Tokenizers, heads and losses are left out (below 1 %).
"""

from simulate import Step

D, BLOCKS, VIEWS = 768, 12, 8
LATENTS, LIGHT_TOKENS, PICTURE_TOKENS, INPUT_VIEWS = 3072, (256 // 8) * (512 // 8), (256 // 8) ** 2, 4
PEAK_TFLOPS = 989  # H100 SXM, dense bf16
BUCKET, FIRST_BUCKET = 25 * 2**20, 2**20  # the defaults


def forward_tflop(tokens):
    return BLOCKS * tokens * (24 * D * D + 4 * tokens * D) / 1e12


def backward_tflop(tokens, trains):
    products, attention = BLOCKS * tokens * 24 * D * D / 1e12, BLOCKS * tokens * 4 * tokens * D / 1e12
    return (2 if trains else 1) * products + 2 * attention


EDITOR_TOKENS, RENDERER_TOKENS = LATENTS + LIGHT_TOKENS, LATENTS + PICTURE_TOKENS
RENDERER_PARAMETERS = BLOCKS * (12 * D * D + 2 * D) + 64 * 6 * D + 64 * 3 * D
EDITOR_BLOCK_PARAMETERS = 18 * D * D + 6 * D  # with AdaLN
EDITOR_PARAMETERS = BLOCKS * EDITOR_BLOCK_PARAMETERS + 2 * (2 * D * D + 2 * D) + D * D + 64 * 9 * D
# All three: 304 M. The reference's 302 M lack our velocity head and our MLP of the light in AdaLN.
RECONSTRUCTOR_PARAMETERS = BLOCKS * (12 * D * D + 2 * D) + LATENTS * D + 64 * 9 * D


def into_buckets(stretches, optimizer_ms, compute):
    """stretches: (from ms, to ms, bytes) in the order of the backward; a stretch's gradients arrive evenly."""
    ready, sizes, limit, held = [], [], FIRST_BUCKET, 0.0
    for begin, end, size in stretches:
        at = 0.0
        while held + size - at >= limit:
            at += limit - held
            ready.append(begin + (end - begin) * at / size)
            sizes.append(limit)
            held, limit = 0.0, BUCKET
        held += size - at
    if held:
        ready.append(stretches[-1][1])
        sizes.append(held)
    return Step(compute, optimizer_ms, ready, sizes)


def step(batch, mfu, everything=False):
    """`everything`: all parameters train, on latents that the step encodes itself (latents: online): both ends forward, one
    of them backward, after the editor's."""
    speed = PEAK_TFLOPS * mfu / 1e3 / batch  # TFLOP a millisecond
    encoder_tokens = LATENTS + INPUT_VIEWS * PICTURE_TOKENS
    renderer, editor, encoder = VIEWS * forward_tflop(RENDERER_TOKENS), forward_tflop(EDITOR_TOKENS), forward_tflop(encoder_tokens)
    renderer_back = renderer + VIEWS * backward_tflop(RENDERER_TOKENS, everything)
    editor_back = editor + backward_tflop(EDITOR_TOKENS, True)
    begin = (renderer + editor + (2 * encoder if everything else 0)) / speed
    middle = begin + renderer_back / speed
    end = middle + editor_back / speed
    trained = EDITOR_PARAMETERS
    stretches = [(middle, end, 4 * EDITOR_PARAMETERS)]
    if everything:
        last = end + (encoder + backward_tflop(encoder_tokens, True)) / speed
        stretches = [(begin, middle, 4 * RENDERER_PARAMETERS), *stretches, (end, last, 4 * RECONSTRUCTOR_PARAMETERS)]
        trained, end = EDITOR_PARAMETERS + RENDERER_PARAMETERS + RECONSTRUCTOR_PARAMETERS, last
    # AdamW reads and writes 28 bytes a parameter at 3.35 TB/s, of which it reaches 80 %.
    return into_buckets(stretches, trained * 28 / (0.8 * 3.35e12) * 1e3, end)
