"""backup and restore, killed at any system call: nothing half done is ever taken for whole.

Being written: the first of its tests only makes sure that strace can follow the programs.
"""

from support.inject import trace_calls, tracing
from support.process import run


def test_calls_of_a_backup_can_be_followed(workshop):
    _, pgcairn = workshop.archiving_server(wal_segsize=1)
    trace = workshop.new_directory() / "trace"
    result = run(*tracing(trace), *pgcairn.command("backup", "--type=full", "--start-fast"))
    assert result.returncode == 0, result.stderr
    assert [call for call in trace_calls(trace) if call.name == "linkat" and '"fate"' in call.arguments]
