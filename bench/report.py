"""The figures as Markdown tables, ready to paste, and as curves."""

import math
import statistics

from measure import LATENCY_MS, SCALE, WHOLE_CORE_MB
from plot import picture


def median(values):
    return statistics.median(values)


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def spread(values, scale=1.0):
    values = [value / scale for value in values]
    if min(values) == max(values):
        return number(values[0])
    return f"{number(median(values))} ({number(min(values))}–{number(max(values))})"


def line(cells):
    return "| " + " | ".join(cells) + " |"


def table(found):
    """One row a figure, one column a contestant."""
    names, skipped = list(found["contestants"]), list(found["skipped"])
    columns = ["", *names, *skipped, "ours is", "target"]
    lines = [line(columns), line(["---"] * len(columns))]

    def row(title, cells, ratio, target=""):
        cells = [cells.get(name, "–") for name in names] + ["SKIPPED"] * len(skipped)
        lines.append(line([title, *cells, ratio, target]))

    def figure(title, of, scale=1.0, against=("plain",), target=""):
        ours = median(of["ours"])
        ratios = [f"{ours / median(of[name]):.2f} × {name}" for name in against if name in of]
        cells = {name: spread(values, scale) for name, values in of.items()}
        row(title, cells, "; ".join(ratios), target)

    def column(figure, key):
        return {name: values[key] for name, values in found[figure].items()}

    if "cold" in found:
        title = "exec → first `/next`, ms"
        figure(title, column("cold", "next_ms"), 1, ["minimal", "plain"], "≤ 1.5 × minimal")
        title = "exec → first answer, with one call over TLS (minimal: no call), ms"
        figure(title, column("cold", "answer_ms"), 1, ["plain", "minimal"], "≤ 0.15 × plain")
    if "calls" in found:
        title = "calls for 1,000 messages of one asset, one project"
        figure(title, column("calls", "calls"), 1, ["plain"], "10 calls")
    if "wall" in found:
        wall = column("wall", "ms")
        calls = {name: values[0] for name, values in column("wall", "calls").items()}
        floor = math.ceil(calls["ours"] / found["call_concurrency"]) * LATENCY_MS
        row(
            f"10 messages of 250 assets, 10 projects, {LATENCY_MS} ms a call, ms",
            {name: f"{spread(values)}, {calls[name]} calls" for name, values in wall.items()},
            f"{median(wall['ours']) / floor:.2f} × {floor} ms",
            f"≤ 1.3 × ⌈calls ÷ {found['call_concurrency']} at a time⌉ × {LATENCY_MS} ms",
        )
    if "cpu" in found:
        figure("CPU per 1,000 assets over TLS, ms", column("cpu", "tls_ms"))
        figure("CPU per 1,000 assets over HTTP, ms", column("cpu", "http_ms"))
    if "scale" in found:
        scale_rows(found["scale"], row, figure)
    packages = {
        name: f"{unpacked / 1e6:.2f} / {packed / 1e6:.2f}"
        for name, (unpacked, packed) in found["sizes"].items()
    }
    ours = found["sizes"]["ours"][0] / 1e6
    row("package, unpacked / ZIP, MB", packages, f"{ours:.2f} MB", "≤ 7 MB (8.5 with AWS-LC)")
    return lines


def scale_rows(scale, row, figure):
    idle = {
        name: [value for at in of.values() for value in at["idle_bytes"]]
        for name, of in scale.items()
    }
    limit = number((1.5 * median(idle["minimal"]) + 4e6) / 1e6)
    target = f"≤ 1.5 × minimal + 4 MB = {limit} MB"
    figure("memory, idle after the first `/next`, MB", idle, 1e6, ["minimal"], target)

    workers = {name: of for name, of in scale.items() if of[str(SCALE[0])].get("ms")}
    largest = {name: of[str(SCALE[-1])] for name, of in workers.items()}
    event = largest["ours"]["event_bytes"][0]
    peak = {name: at["peak_above_idle_bytes"] for name, at in largest.items()}
    row(
        f"memory, peak above idle with an event of {event / 1e6:.2f} MB, MB",
        {name: spread(values, 1e6) for name, values in peak.items()},
        f"{median(peak['ours']) / event:.1f} × the event",
        "≤ 6 × the event",
    )

    def cpu(of, assets):
        return median(of[str(assets)]["cpu_ms"]) / (assets / 1_000)

    growth = cpu(workers["ours"], SCALE[-1]) / cpu(workers["ours"], 10_000)
    row(
        f"CPU per 1,000 assets of one event of {SCALE[-1]:,}, over TLS, ms",
        {name: number(cpu(of, SCALE[-1])) for name, of in workers.items()},
        f"{growth:.2f} × the same of 10,000",
        "linear: 1 ×",
    )


def concurrency_table(found):
    columns = ["CALL_CONCURRENCY", "first event, ms", "next event, ms", "× floor"]
    columns += ["CPU of the next, ms", "peak above idle, MB"]
    lines = [line(columns), line(["---"] * len(columns))]
    for value, of in found.items():
        floor = math.ceil(of["calls"][0] / int(value)) * LATENCY_MS
        cells = [
            spread(of["first_ms"]),
            spread(of["second_ms"]),
            f"{median(of['second_ms']) / floor:.2f} × {floor} ms",
            spread(of["second_cpu_ms"]),
            spread(of["peak_above_idle_bytes"], 1e6),
        ]
        lines.append(line([value, *cells]))
    return lines


def cpu_limit_table(found):
    names = list(next(iter(found.values())))
    lines = [line(["memory size", "of a core", *names]), line(["---"] * (2 + len(names)))]
    for size, of in found.items():
        share = f"{int(size) / WHOLE_CORE_MB:.2f}"
        cells = [
            f"{spread(of[name]['next_ms'])} → {spread(of[name]['answer_ms'])}" for name in names
        ]
        lines.append(line([f"{size} MB", share, *cells]))
    return lines


def scale_picture(scale):
    def curves(key, unit):
        return {
            name: {int(assets): median(at[key]) / unit for assets, at in of.items()}
            for name, of in scale.items()
            if of[str(SCALE[0])].get(key)
        }

    return picture(
        [
            ("CPU, ms", curves("cpu_ms", 1)),
            ("until the answer, ms", curves("ms", 1)),
            ("peak memory above idle, MB", curves("peak_above_idle_bytes", 1e6)),
        ]
    )
