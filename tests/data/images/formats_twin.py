"""Pictures of every kind of PNG, JPEG and HDR, with the pixels that Pillow reads from them: formats_twin.py FOLDER

NAME.png or .jpg stands beside NAME.pixels: a line "height width channels", then the bytes that read_image must give."""
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(sys.argv[1])
NUMBERS = np.random.default_rng(7)
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def paeth(a, b, c):
    p = a + b - c
    return a if abs(p - a) <= abs(p - b) and abs(p - a) <= abs(p - c) else b if abs(p - b) <= abs(p - c) else c


def filtered(rows, pixel):
    """Each row of bytes behind its filter; the filters in turn."""
    out, above = b"", bytes(len(rows[0])) if rows else b""
    for y, row in enumerate(rows):
        kind, line = y % 5, bytearray()
        for x, value in enumerate(row):
            a = row[x - pixel] if x >= pixel else 0
            c = above[x - pixel] if x >= pixel else 0
            line.append((value - (0, a, above[x], (a + above[x]) // 2, paeth(a, above[x], c))[kind]) & 255)
        out += bytes([kind]) + bytes(line)
        above = row
    return out


def packed(samples, depth):
    """[rows, columns * samples] to rows of bytes."""
    if depth == 16:
        return [row.astype(">u2").tobytes() for row in samples]
    bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth:]
    return [np.packbits(row.reshape(-1)).tobytes() for row in bits]


def png(name, colour, depth, interlaced=False, chunks=b"", height=13, width=11, parts=1, largest=None):
    count = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    samples = NUMBERS.integers(0, largest or 1 << depth, (height, width, count))
    pixel = max(1, depth * count // 8)
    grids = ADAM7 if interlaced else [(0, 0, 1, 1)]
    rows = b""
    for top, left, down, right in grids:
        grid = samples[top::down, left::right]
        if grid.size:
            rows += filtered(packed(grid.reshape(grid.shape[0], -1), depth), pixel)
    data = zlib.compress(rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    step = -(-len(data) // parts)
    body = b"".join(chunk(b"IDAT", data[i:i + step]) for i in range(0, len(data), step))
    path = FOLDER / f"{name}.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks + body + chunk(b"IEND", b""))
    expect(name, path)


def expect(name, path):
    image = Image.open(path)
    image.load()
    if image.mode in ("I;16", "I"):
        image = Image.fromarray((np.array(image) >> 8).astype(np.uint8))
    transparent = image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info
    pixels = np.array(image.convert("RGBA" if transparent else "RGB"))
    (FOLDER / f"{name}.pixels").write_bytes("{} {} {}\n".format(*pixels.shape).encode() + pixels.tobytes())


def declared(name, *chunks, **options):
    """An RGB picture that says something about its colours."""
    picture = Image.fromarray(NUMBERS.integers(0, 256, (4, 4, 3), np.uint8))
    picture.save(FOLDER / f"{name}", **options)
    if chunks:
        data = (FOLDER / name).read_bytes()
        (FOLDER / name).write_bytes(data[:33] + b"".join(chunk(*c) for c in chunks) + data[33:])


def rgbe_rows(pixels, how):
    out = b""
    for row in pixels:
        if how == "flat":
            out += row.tobytes()
        elif how == "planes":
            out += bytes([2, 2, len(row) >> 8, len(row) & 255])
            for plane in row.T:
                out += bytes([128 + len(plane) - 3, plane[0]]) if (plane[:-3] == plane[0]).all() else bytes([len(plane) - 3]) + plane[:-3].tobytes()
                out += bytes([3]) + plane[-3:].tobytes()
        else:  # the first pixel, repeated; then the last
            out += row[0].tobytes() + bytes([1, 1, 1, len(row) - 2]) + row[-1].tobytes()
    return out


palette = chunk(b"PLTE", NUMBERS.integers(0, 256, 3 * 200, np.uint8).tobytes())
small_palette = chunk(b"PLTE", bytes(range(48)))
for depth in 1, 2, 4, 8, 16:
    png(f"grey{depth}", 0, depth)
    png(f"grey{depth}_interlaced", 0, depth, interlaced=True)
for depth in 8, 16:
    for colour, name in (2, "rgb"), (4, "grey_alpha"), (6, "rgba"):
        png(f"{name}{depth}", colour, depth, parts=3)
        png(f"{name}{depth}_interlaced", colour, depth, interlaced=True)
for depth in 1, 2, 4:
    png(f"palette{depth}", 3, depth, chunks=small_palette)
png("palette8", 3, 8, chunks=palette, largest=200)
png("palette8_alpha", 3, 8, chunks=palette + chunk(b"tRNS", bytes(range(100))), largest=200)
png("palette4_alpha_interlaced", 3, 4, interlaced=True, chunks=small_palette + chunk(b"tRNS", bytes(range(16))))
png("rgb8_key", 2, 8, chunks=chunk(b"tRNS", struct.pack(">HHH", 1, 0, 1)), largest=2)
png("grey8_key", 0, 8, chunks=chunk(b"tRNS", struct.pack(">H", 3)), largest=5)
for size in (1, 1), (1, 9), (9, 1), (5, 5):
    png("rgba8_{}x{}_interlaced".format(*size), 6, 8, interlaced=True, height=size[0], width=size[1])

smooth = np.add.outer(np.arange(60), np.arange(90))[..., None] * np.array([1, 2, 0]) % 256
for name, options in ("jpeg420", {}), ("jpeg444", {"subsampling": 0, "quality": 95}), ("jpeg_progressive", {"progressive": True}):
    Image.fromarray(smooth.astype(np.uint8)).save(FOLDER / f"{name}.jpg", **options)
    expect(name, FOLDER / f"{name}.jpg")
Image.fromarray(smooth[..., 0].astype(np.uint8)).save(FOLDER / "jpeg_grey.jpg")
expect("jpeg_grey", FOLDER / "jpeg_grey.jpg")
Image.fromarray(smooth.astype(np.uint8)).convert("CMYK").save(FOLDER / "cmyk.jpeg")

from PIL import ImageCms  # noqa: E402

srgb, lab = (ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes() for space in ("sRGB", "LAB"))
rec709 = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
p3 = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
declared("ok_nothing.PNG", format="PNG")
declared("ok_srgb.PNG", (b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100000)), format="PNG")  # sRGB goes first
declared("ok_gamma.PNG", (b"gAMA", struct.pack(">I", 45455)), (b"cHRM", rec709), format="PNG")
declared("ok_profile.PNG", format="PNG", icc_profile=srgb)
declared("ok_profile.JPG", format="JPEG", icc_profile=srgb)
declared("bad_linear.PNG", (b"gAMA", struct.pack(">I", 100000)), format="PNG")
declared("bad_primaries.PNG", (b"gAMA", struct.pack(">I", 45455)), (b"cHRM", p3), format="PNG")
declared("bad_profile.PNG", format="PNG", icc_profile=lab)
declared("bad_profile.JPG", format="JPEG", icc_profile=lab)
declared("bad_pq.PNG", (b"cICP", bytes([9, 16, 0, 1])), format="PNG")

# Radiance HDR: two rows of ten pixels; mantissa * 2^(exponent - 136) / exposure
rgbe = np.zeros((2, 10, 4), np.uint8)
rgbe[:, :-1] = (128, 64, 0, 129)  # 1, 1/2, 0
rgbe[:, -1] = (200, 100, 50, 138)  # 800, 400, 200
for how in "flat", "planes", "runs":
    head = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\nEXPOSURE=2\n\n-Y 2 +X 10\n"
    (FOLDER / f"{how}.hdr").write_bytes(head + rgbe_rows(rgbe, how))
