"""JSON lines to Markdown: medians a tool, and medians of the ratios of interleaved pairs."""

import statistics

OURS = "pgcairn"
MODULE = "pgcairn, module"
# Where it is ours that is compared with ours.
OURS_OF = {"encryption-full": "pgcairn, encrypted", "encryption-restore": "pgcairn, encrypted",
           "encryption-push": "pgcairn, encrypted", "s3": "pgcairn, S3",
           "s3-push": "pgcairn, S3 16 parallel"}
MIB = 1 << 20

# suite, peer, what is compared, at most. A ratio is ours divided by theirs, of one round.
RATIO_GOALS = [
    ("full", "pgBackRest", "wall", 0.70), ("full", "pgBackRest", "cpu", 0.85),
    ("restore", "pgBackRest", "wall", 0.70), ("restore", "pgBackRest", "cpu", 0.70),
    ("push", "pgBackRest", "wall", 0.50), ("push", "pgBackRest", "cpu", 0.55),
    ("push-batch", "pgBackRest, async", "wall", 0.50),
    ("push-batch", "pgBackRest, async", "cpu", 0.55),
    ("get", "pgBackRest", "wall", 1 / 1.8),
    ("incr-random", "pgBackRest", "growth", 0.65),
    ("incr-random", "pgBackRest", "wall", 0.80), ("incr-random", "pgBackRest", "cpu", 0.80),
    ("incr-local", "pgBackRest", "growth", 0.90),
    ("incr-local", "pgBackRest", "wall", 0.80), ("incr-local", "pgBackRest", "cpu", 0.80),
    ("incr-nothing", "bare protocol", "wall", 1.20),
    ("chain", "pgcairn, one full", "wall", 1.15), ("chain", "pgBackRest", "wall", 0.70),
    *((suite, "pgcairn", value, 1.10) for suite in ("encryption-full", "encryption-restore", "encryption-push")
      for value in ("wall", "cpu")),
    ("s3", "pgcairn", "wall", 1.25), ("s3-push", "pgcairn, S3 one by one", "wall", 0.10),
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


def ours_of(suite):
    return OURS_OF.get(suite, OURS)


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


def ratio_cell(by_tool, tool, value, ours=OURS):
    found = [] if tool == ours else ratios(by_tool.get(ours, []), by_tool[tool], value)
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
    wal = suite in ("push", "push-batch", "get", "encryption-push", "s3-push")
    ours, store = ours_of(suite), suite in ("s3", "s3-push")
    head = ["tool", "runs", "wall s", "tool CPU s", "server CPU s"]
    head += ["store CPU s"] if store else []
    head += ["peak MiB"]
    head += ["segments/s", "p50 ms", "p99 ms"] if wal else []
    head += ["written MB", "ours / its wall", "ours / its CPU"]
    head += ["ours / its growth"] if suite in INCREMENTALS else []
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for tool, runs in by_tool.items():
        cells = [tool, str(len(runs))]
        cells += [f"{median(runs, lambda row, key=key: row[key]):.2f}"
                  for key in ("wall", "cpu_tool", "cpu_server", *(["cpu_store"] if store else []))]
        cells.append(f"{max(row['rss'] for row in runs) / MIB:.0f}")
        if wal:
            cells.append(f"{median(runs, lambda row: row['calls'] / row['wall']):.0f}")
            cells += [f"{median(runs, lambda row, key=key: row[key]):.1f}"
                      for key in ("p50_ms", "p99_ms")]
        cells.append(f"{median(runs, lambda row: row['stored']) / 1e6:.0f}")
        cells += [ratio_cell(by_tool, tool, value, ours) for value in ("wall", "cpu")]
        cells += [ratio_cell(by_tool, tool, "growth", ours)] if suite in INCREMENTALS else []
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


def prefetch_table(rows):
    """Calls, and of a real recovery how much of it they are."""
    lines = ["| operation | tool | runs | p50 ms | p99 ms | calls/s | of replay |", "|---" * 7 + "|"]
    for operation, runs in by_operation(rows, "get-prefetch").items():
        for tool in dict.fromkeys(row["tool"] for row in runs):
            of_tool = [row for row in runs if row["tool"] == tool]
            waited = median(of_tool, lambda row: row["calls"] / row.get("waited", row["wall"]))
            share = [row["share"] for row in of_tool if "share" in row]
            lines.append(f"| {operation} | {tool} | {len(of_tool)} | "
                         f"{median(of_tool, lambda row: row['p50_ms']):.1f} | "
                         f"{median(of_tool, lambda row: row['p99_ms']):.1f} | {waited:.0f} | "
                         + (f"{100 * statistics.median(share):.1f} % |" if share else "- |"))
    return lines


def module_table(rows):
    """A backlog that the server's archiver works off."""
    by_tool = of_suite(rows, "push-module")
    lines = ["| tool | runs | segments/s | CPU ms a segment | ours / its wall | ours / its CPU |",
             "|---" * 6 + "|"]
    for tool, runs in by_tool.items():
        lines.append(f"| {tool} | {len(runs)} | "
                     f"{median(runs, lambda row: row['calls'] / row['wall']):.0f} | "
                     f"{median(runs, lambda row: 1e3 * row['cpu_tool'] / row['calls']):.0f} | "
                     f"{ratio_cell(by_tool, tool, 'wall', MODULE)} | "
                     f"{ratio_cell(by_tool, tool, 'cpu', MODULE)} |")
    return lines


def receive_table(rows):
    """A load that is followed."""
    lines = ["| tool | runs | tps | WAL MB/s | CPU of a core | behind at the end, MB | caught up, s |",
             "|---" * 7 + "|"]
    for tool, runs in of_suite(rows, "receive").items():
        lines.append(f"| {tool} | {len(runs)} | {median(runs, lambda row: row['tps']):.0f} | "
                     f"{median(runs, lambda row: row['wal'] / row['seconds']) / 1e6:.1f} | "
                     f"{median(runs, lambda row: row['cpu'] / row['seconds']):.3f} | "
                     f"{median(runs, lambda row: row['left']) / 1e6:.2f} | "
                     f"{median(runs, lambda row: row['caught_up']):.2f} |")
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
        found = ratios(by_tool.get(ours_of(suite), []), by_tool.get(peer, []), value)
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
    for suite in ("full", "small", "restore", "push", "push-batch", "get", *INCREMENTALS, "chain",
                  "encryption-full", "encryption-restore", "encryption-push", "s3", "s3-push"):
        if of_suite(rows, suite):
            lines += [f"### {suite}", "", *suite_table(rows, suite), ""]
    if of_suite(rows, "memory"):
        lines += ["### memory", "", *memory_table(rows), ""]
    if of_suite(rows, "push-module"):
        lines += ["### push-module", "", *module_table(rows), ""]
    if of_suite(rows, "receive"):
        lines += ["### receive", "", *receive_table(rows), ""]
    if by_operation(rows, "get-prefetch"):
        lines += ["### get-prefetch", "", *prefetch_table(rows), ""]
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
