"""A line plot as SVG text: logarithmic x (powers of two), linear y from 0 to 1. No dependency."""

import math

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 420, 60, 200, 40, 50
COLOURS = ["#1b6ca8", "#c0392b", "#2c7a39", "#8e44ad", "#b9770e", "#16a085", "#555555"]


def line_plot(curves, x_name, y_name, title):
    """curves: {name: [(x, y), ...]}."""
    xs = sorted({x for points in curves.values() for x, _ in points})
    low, high = math.log2(xs[0]), math.log2(xs[-1])

    def place(x, y):
        return (LEFT + (math.log2(x) - low) / (high - low) * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM))

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', f'<text x="{LEFT}" y="22" font-size="15">{title}</text>']
    for tick in range(0, 11, 2):
        x, y = place(xs[0], tick / 10)
        parts.append(f'<line x1="{x}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x - 8}" y="{y + 4:.1f}" text-anchor="end">{tick * 10} %</text>')
    for x_value in xs:
        x, y = place(x_value, 0)
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{x_value}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">{x_name}</text>')
    parts.append(f'<text x="14" y="{TOP + 120}" transform="rotate(-90 14 {TOP + 120})" text-anchor="middle">{y_name}</text>')
    for number, (name, points) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 12}" y="{TOP + 16 + 20 * number}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])
