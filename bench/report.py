"""JSON lines to Markdown: medians a tool, and medians of the ratios of interleaved pairs."""

import statistics

OURS = "pgcairn"
MIB = 1 << 20

# suite, peer, what is compared, at most. A ratio is ours divided by theirs, of one round.
RATIO_GOALS = [
    ("full", "pgBackRest", "wall", 0.70), ("full", "pgBackRest", "cpu", 0.85),
    ("restore", "pgBackRest", "wall", 0.70), ("restore", "pgBackRest", "cpu", 0.70),
    ("push", "pgBackRest", "wall", 0.50), ("push", "pgBackRest", "cpu", 0.55),
    ("get", "pgBackRest", "wall", 1 / 1.8),
]
SMALL_WALL_SECONDS = 0.5
MEMORY_BYTES = 64 * MIB


def cpu(row):
    return row["cpu_tool"] + row["cpu_server"]


VALUES = {"wall": lambda row: row["wall"], "cpu": cpu}


def of_suite(rows, suite):
    """Rows by tool, in the order in which the tools first came."""
    found = {}
    for row in rows:
        if row["suite"] == suite:
            found.setdefault(row["tool"], []).append(row)
    return found


def ratios(ours, theirs, value):
    """One for each round that both finished."""
    peers = {row["round"]: VALUES[value](row) for row in theirs}
    return [VALUES[value](row) / peers[row["round"]] for row in ours if peers.get(row["round"])]


def ratio_cell(by_tool, tool, value):
    found = [] if tool == OURS else ratios(by_tool.get(OURS, []), by_tool[tool], value)
    if not found:
        return "-"
    return f"**{statistics.median(found):.2f}** ({min(found):.2f}-{max(found):.2f})"


def median(rows, value):
    return statistics.median(value(row) for row in rows)


def suite_table(rows, suite):
    by_tool = of_suite(rows, suite)
    wal = suite in ("push", "get")
    head = ["tool", "runs", "wall s", "tool CPU s", "server CPU s", "peak MiB"]
    head += ["segments/s", "p99 ms"] if wal else []
    head += ["written MB", "ours / its wall", "ours / its CPU"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for tool, runs in by_tool.items():
        cells = [tool, str(len(runs))]
        cells += [f"{median(runs, lambda row, key=key: row[key]):.2f}"
                  for key in ("wall", "cpu_tool", "cpu_server")]
        cells.append(f"{max(row['rss'] for row in runs) / MIB:.0f}")
        if wal:
            cells.append(f"{median(runs, lambda row: row['calls'] / row['wall']):.0f}")
            cells.append(f"{median(runs, lambda row: row['p99_ms']):.1f}")
        cells.append(f"{median(runs, lambda row: row['stored']) / 1e6:.0f}")
        cells += [ratio_cell(by_tool, tool, "wall"), ratio_cell(by_tool, tool, "cpu")]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def memory_table(rows):
    peaks = {}
    for row in rows:
        if row["suite"] == "memory":
            peaks[row["operation"]] = max(peaks.get(row["operation"], 0), row["rss"])
    return ["| pgcairn, default settings | peak MiB |", "|---|---|",
            *(f"| {name} | {peak / MIB:.1f} |" for name, peak in peaks.items())]


def goal_lines(rows):
    lines = []

    def judge(text, value, limit, digits=2):
        word = "met" if value <= limit else "NOT MET"
        lines.append(f"- {word}: {text} {value:.{digits}f}, goal {limit:.{digits}f}")

    for suite, peer, value, limit in RATIO_GOALS:
        by_tool = of_suite(rows, suite)
        found = ratios(by_tool.get(OURS, []), by_tool.get(peer, []), value)
        if found:
            judge(f"{suite}, {value} against {peer}'s:", statistics.median(found), limit)
    small = of_suite(rows, "small").get(OURS)
    if small:
        judge("small, wall seconds:", median(small, VALUES["wall"]), SMALL_WALL_SECONDS)
    peaks = [row["rss"] for row in rows if row["suite"] == "memory"]
    if peaks:
        judge("memory, largest peak in MiB:", max(peaks) / MIB, MEMORY_BYTES / MIB, digits=0)
    return lines


def markdown(rows):
    lines = []
    for row in rows:
        if row["suite"] == "machine":
            lines += [row["text"], ""]
    for suite in ("full", "small", "restore", "push", "get"):
        if of_suite(rows, suite):
            lines += [f"### {suite}", "", *suite_table(rows, suite), ""]
    if of_suite(rows, "memory"):
        lines += ["### memory", "", *memory_table(rows), ""]
    lines += ["### goals", "", *goal_lines(rows), ""]
    noisy = sum(1 for row in rows if row.get("quiet") is False)
    if noisy:
        lines.append(f"{noisy} of {sum('quiet' in row for row in rows)} runs had others at work beside them.")
    for row in rows:
        if row["suite"] == "failed":
            lines.append(f"FAILED: {row['tool']}, round {row['round']}: {row['error'][-500:]}")
    return "\n".join(lines).rstrip() + "\n"
