"""Curves over the size of an event, as an SVG picture."""

import math

COLOURS = {"ours": "#d1495b", "plain": "#30638e", "python": "#edae49", "node": "#3c8d5a"}
WIDTH, HEIGHT = 400, 320
LEFT, RIGHT, TOP, BOTTOM = 60, 30, 40, 50


def picture(panels):
    """`panels`: pairs of a title and {name: {x: y}}; both axes are logarithmic."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * len(panels)}"'
        f' height="{HEIGHT + 30}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, (title, curves) in enumerate(panels):
        parts.append(f'<g transform="translate({WIDTH * number},0)">{panel(title, curves)}</g>')
    for number, name in enumerate(panels[0][1]):
        x = LEFT + 110 * number
        parts.append(f'<rect x="{x}" y="{HEIGHT}" width="18" height="6" fill="{COLOURS[name]}"/>')
        parts.append(f'<text x="{x + 24}" y="{HEIGHT + 8}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def panel(title, curves):
    xs = [x for curve in curves.values() for x in curve]
    ys = [y for curve in curves.values() for y in curve.values() if y > 0]
    across = axis(xs, LEFT, WIDTH - RIGHT)
    up = axis(ys, HEIGHT - BOTTOM, TOP)
    parts = [text(WIDTH / 2, 20, "middle", title)]
    parts.append(text(WIDTH / 2, HEIGHT - 16, "middle", "assets in the event"))
    for value in decades(xs):
        x = across(value)
        parts.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        parts.append(text(x, HEIGHT - BOTTOM + 16, "middle", short(value)))
    for value in decades(ys):
        y = up(value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(text(LEFT - 6, y + 4, "end", short(value)))
    for name, curve in curves.items():
        colour = COLOURS[name]
        points = [(across(x), up(y)) for x, y in curve.items() if y > 0]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, y in points:
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
    return "\n".join(parts)


def text(x, y, anchor, content):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{content}</text>'


def short(value):
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g} {letter}"
    return f"{value:g}"


def axis(values, start, end):
    marks = [math.log10(value) for value in decades(values)]
    span = marks[-1] - marks[0]
    return lambda value: start + (math.log10(value) - marks[0]) / span * (end - start)


def decades(values):
    lowest, highest = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return [10.0**power for power in range(lowest, max(highest, lowest + 1) + 1)]
