"""One row per run, one colour per number of solver steps, one dot per seed and a bar at their mean, as SVG text."""

import statistics

COLOURS = ["#1b6ca8", "#c0392b", "#2c7a39", "#8e44ad", "#b9770e"]
LEFT, RIGHT, TOP, ROW, WIDTH = 190, 30, 56, 26, 760


def dot_plot(rows, references, title):
    """rows: {run: {steps: [value of a seed, ...]}}; references: {answer: value or None}, drawn as vertical lines."""
    known = {name: value for name, value in references.items() if value is not None}
    values = [v for by_steps in rows.values() for seeds in by_steps.values() for v in seeds] + list(known.values())
    low, high = min(values) - 0.3, max(values) + 0.3
    height = TOP + ROW * len(rows) + 40
    bottom = TOP + ROW * len(rows)

    def x(value):
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">',
             f'<rect width="{WIDTH}" height="{height}" fill="white"/>', f'<text x="12" y="20" font-size="15">{title}</text>']
    for name, value in known.items():
        parts.append(f'<line x1="{x(value):.1f}" y1="{TOP - 8}" x2="{x(value):.1f}" y2="{bottom}" stroke="#999999" stroke-dasharray="3 3"/>')
        parts.append(f'<text x="{x(value):.1f}" y="{bottom + 16}" text-anchor="middle" fill="#666666">{name} {value:.1f}</text>')
    for number, steps in enumerate(next(iter(rows.values()), {})):
        parts.append(f'<text x="{LEFT + 90 * number}" y="40" fill="{COLOURS[number % len(COLOURS)]}">{steps} step{"s" if steps > 1 else ""}</text>')
    for row, (name, by_steps) in enumerate(rows.items()):
        y = TOP + ROW * row + ROW / 2
        parts.append(f'<text x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{name}</text>')
        for number, seeds in enumerate(by_steps.values()):
            colour, own_y = COLOURS[number % len(COLOURS)], y + 5 * (number - (len(by_steps) - 1) / 2)
            parts += [f'<circle cx="{x(v):.1f}" cy="{own_y:.1f}" r="3" fill="{colour}" fill-opacity="0.6"/>' for v in seeds]
            mean = x(statistics.mean(seeds))
            parts.append(f'<line x1="{mean:.1f}" y1="{own_y - 6:.1f}" x2="{mean:.1f}" y2="{own_y + 6:.1f}" stroke="{colour}" stroke-width="2"/>')
    return "\n".join([*parts, "</svg>", ""])
