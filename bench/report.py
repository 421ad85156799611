"""JSON lines to Markdown: medians a tool, and medians of the ratios of interleaved pairs."""

import statistics

OURS = "pgcairn"
MIB = 1 << 20

# suite, peer, what is compared, at most. A ratio is ours divided by theirs, of one round.
RATIO_GOALS = [
    ("full", "pgBackRest", "wall", 0.70), ("full", "pgBackRest", "cpu", 0.85),
    ("restore", "pgBackRest", "wall", 0.70), ("restore", "pgBackRest", "cpu", 0.70),
    ("push", "pgBackRest", "wall", 0.50), ("push", "pgBackRest", "cpu", 0.55),
    ("push-batch", "pgBackRest", "wall", 0.50), ("push-batch", "pgBackRest", "cpu", 0.55),
    ("get", "pgBackRest", "wall", 1 / 1.8),
    ("incr-random", "pgBackRest", "growth", 0.65),
    ("incr-random", "pgBackRest", "wall", 0.80), ("incr-random", "pgBackRest", "cpu", 0.80),
    ("incr-local", "pgBackRest", "growth", 0.90),
    ("incr-local", "pgBackRest", "wall", 0.80), ("incr-local", "pgBackRest", "cpu", 0.80),
    ("incr-nothing", "bare protocol", "wall", 1.20),
    ("chain", "pgcairn, one full", "wall", 1.15), ("chain", "pgBackRest", "wall", 0.70),
]
BATCH_CALL_MS = {"p50_ms": 4, "p99_ms": 40}
INCREMENTALS = ("incr-random", "incr-local", "incr-nothing")
GROWTH_OF_CHANGED = 1.10  # of one row in a hundred at random, over the changed pages as lz4
SMALL_WALL_SECONDS = 0.5
MEMORY_BYTES = 64 * MIB
FILES_MEMORY_BYTES = 256 * MIB
CATALOG_CPU_SECONDS = {"info": 2, "expire --plan": 10}


def cpu(row):
    return row["cpu_tool"] + row["cpu_server"]


VALUES = {"wall": lambda row: row["wall"], "cpu": cpu, "growth": lambda row: row["stored"]}


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


def growth_of_changed(rows):
    """Of our incrementals, the map and all else included: over the pages that changed, as lz4."""
    return [row["stored"] / row["changed_lz4"] for row in rows]


def changed_line(rows, suite):
    """What an incremental cannot do without, under its table."""
    ours = of_suite(rows, suite).get(OURS)
    if not ours:
        return []
    pages = median(ours, lambda row: row["changed_pages"])
    text = f"Changed: {pages:.0f} pages, {pages * 8192 / 1e6:.0f} MB"
    if suite != "incr-nothing":
        found = growth_of_changed(ours)
        text += (f", as lz4 {median(ours, lambda row: row['changed_lz4']) / 1e6:.0f} MB; what we wrote"
                 f" is **{statistics.median(found):.2f}** ({min(found):.2f}-{max(found):.2f}) times that")
    return ["", text + "."]


def suite_table(rows, suite):
    by_tool = of_suite(rows, suite)
    wal = suite in ("push", "push-batch", "get")
    head = ["tool", "runs", "wall s", "tool CPU s", "server CPU s", "peak MiB"]
    head += ["segments/s", "p50 ms", "p99 ms"] if wal else []
    head += ["written MB", "ours / its wall", "ours / its CPU"]
    head += ["ours / its growth"] if suite in INCREMENTALS else []
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for tool, runs in by_tool.items():
        cells = [tool, str(len(runs))]
        cells += [f"{median(runs, lambda row, key=key: row[key]):.2f}"
                  for key in ("wall", "cpu_tool", "cpu_server")]
        cells.append(f"{max(row['rss'] for row in runs) / MIB:.0f}")
        if wal:
            cells.append(f"{median(runs, lambda row: row['calls'] / row['wall']):.0f}")
            cells += [f"{median(runs, lambda row, key=key: row[key]):.1f}"
                      for key in ("p50_ms", "p99_ms")]
        cells.append(f"{median(runs, lambda row: row['stored']) / 1e6:.0f}")
        cells += [ratio_cell(by_tool, tool, "wall"), ratio_cell(by_tool, tool, "cpu")]
        cells += [ratio_cell(by_tool, tool, "growth")] if suite in INCREMENTALS else []
        lines.append("| " + " | ".join(cells) + " |")
    return lines + (changed_line(rows, suite) if suite in INCREMENTALS else [])


def by_operation(rows, suite):
    found = {}
    for row in rows:
        if row["suite"] == suite:
            found.setdefault(row["operation"], []).append(row)
    return found


def files_table(rows):
    lines = ["| operation | runs | wall s | tool CPU s | server CPU s | peak MiB | written MB |",
             "|---" * 7 + "|"]
    for operation, runs in by_operation(rows, "files").items():
        cells = [operation, str(len(runs))]
        cells += [f"{median(runs, lambda row, key=key: row[key]):.1f}"
                  for key in ("wall", "cpu_tool", "cpu_server")]
        cells.append(f"{max(row['rss'] for row in runs) / MIB:.0f}")
        cells.append(f"{median(runs, lambda row: row['stored']) / 1e6:.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def catalog_table(rows):
    return ["| operation | CPU s |", "|---|---|",
            *(f"| {name} | {median(runs, lambda row: row['cpu']):.2f} |"
              for name, runs in by_operation(rows, "catalog").items())]


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
    found = growth_of_changed(of_suite(rows, "incr-random").get(OURS, []))
    if found:
        judge("incr-random, growth against the changed pages as lz4:", statistics.median(found),
              GROWTH_OF_CHANGED)
    batch = of_suite(rows, "push-batch").get(OURS)
    for key, limit in BATCH_CALL_MS.items() if batch else ():
        judge(f"push-batch, {key.removesuffix('_ms')} of a call in ms:",
              median(batch, lambda row, key=key: row[key]), limit)
    for suite, limit in (("memory", MEMORY_BYTES), ("files", FILES_MEMORY_BYTES)):
        peaks = [row["rss"] for row in rows if row["suite"] == suite and row["tool"] == OURS]
        if peaks:
            judge(f"{suite}, largest peak in MiB:", max(peaks) / MIB, limit / MIB, digits=0)
    for operation, runs in by_operation(rows, "catalog").items():
        judge(f"catalog, CPU seconds of {operation}:", median(runs, lambda row: row["cpu"]),
              CATALOG_CPU_SECONDS[operation])
    return lines


def markdown(rows):
    lines = []
    for row in rows:
        if row["suite"] == "machine":
            lines += [row["text"], ""]
    for suite in ("full", "small", "restore", "push", "push-batch", "get", *INCREMENTALS, "chain"):
        if of_suite(rows, suite):
            lines += [f"### {suite}", "", *suite_table(rows, suite), ""]
    if of_suite(rows, "memory"):
        lines += ["### memory", "", *memory_table(rows), ""]
    if by_operation(rows, "files"):
        lines += ["### files", "", *files_table(rows), ""]
    if by_operation(rows, "catalog"):
        lines += ["### catalog", "", *catalog_table(rows), ""]
    lines += ["### goals", "", *goal_lines(rows), ""]
    noisy = sum(1 for row in rows if row.get("quiet") is False)
    if noisy:
        lines.append(f"{noisy} of {sum('quiet' in row for row in rows)} runs had others at work beside them.")
    for row in rows:
        if row["suite"] == "failed":
            lines.append(f"FAILED: {row['tool']}, round {row['round']}: {row['error'][-500:]}")
    return "\n".join(lines).rstrip() + "\n"
