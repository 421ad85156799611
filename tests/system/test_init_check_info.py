"""init, check and info against real servers: what a DBA sees in the first hour, and when something is wrong."""

import re

import pytest

from support.cluster import pg_major
from support.pgcairn import DAMAGED, FAILED, NOT_FOUND, OK, REFUSED, UNREACHABLE, USAGE
from support.process import run, wait_until


@pytest.fixture(scope="module")
def site(module_workshop):
    """A server that archives, and its repository with one backup."""
    cluster, pgcairn = module_workshop.archiving_server("site")
    cluster.sql("CREATE TABLE t AS SELECT g FROM generate_series(1, 1000) g")
    pgcairn.backup()
    return cluster, pgcairn


def results(pgcairn, *arguments, expect=OK):
    report = pgcairn.json("check", *arguments, expect=expect)
    return {result["name"]: (result["status"], result["text"]) for result in report["results"]}


# -- init


def test_init_may_be_repeated(site):
    _, pgcairn = site
    again = pgcairn.json("init")
    assert not again["repository_created"]
    assert again["cluster"]["existed"]
    assert "exists already" in pgcairn.run("init").stdout


def test_init_wants_a_word_about_encryption(workshop):
    cluster = workshop.cluster()
    pgcairn = workshop.pgcairn(cluster)
    text = pgcairn.config.read_text().replace("encryption = none\n", "")
    pgcairn.config.write_text(text)
    refused = pgcairn.run("init", "--no-server", expect=USAGE)
    assert "encryption" in refused.stderr and "passphrase" in refused.stderr
    assert not pgcairn.repository.exists()


def test_init_without_a_server_makes_the_repository_only(workshop):
    cluster = workshop.cluster()
    pgcairn = workshop.pgcairn(cluster)
    made = pgcairn.json("init", "--no-server")
    assert made["repository_created"] and made["cluster"] is None
    pgcairn.run("init", expect=UNREACHABLE)
    assert pgcairn.run("info").stdout.startswith("recoverable: nothing")


def test_init_refuses_another_server_under_a_known_name(workshop, site):
    _, pgcairn = site
    stranger = workshop.server()
    config = pgcairn.directory / "stranger.conf"
    config.write_text(pgcairn.config.read_text().replace(
        pgcairn.conninfo, stranger.conninfo(user="pgcairn")))
    config.chmod(0o644)
    command = [pgcairn.programs.pgcairn, "init", "--config", config]
    refused = run(*command)
    assert refused.returncode == REFUSED and "--another-system" in refused.stderr
    checked = run(pgcairn.programs.pgcairn, "check", "--config", config, "--no-switch")
    assert checked.returncode == FAILED and "identity: FAILED" in checked.stdout


def test_init_goes_on_beside_a_system_s_record_that_cannot_be_read(workshop):
    cluster, pgcairn = workshop.archiving_server()
    record, = pgcairn.objects("c/main/i/*")
    rubbish = record.with_name(f"{1:016x}-15")
    rubbish.write_bytes(b"rubbish")
    said = pgcairn.run("init")
    assert "is known already" in said.stdout
    assert rubbish.name in said.stderr and "bring it back from a copy" in said.stderr

    # Another server is a stranger as ever, to the systems that are known.
    stranger = workshop.server()
    pgcairn.conninfo = stranger.conninfo(user="pgcairn")
    pgcairn.write_config()
    refused = pgcairn.run("init", expect=REFUSED).stderr
    assert f"known as system {int(record.name.split('-')[0], 16)}" in refused and rubbish.name in refused

    # Where none is known, it was another one all the same: its record bears its identifier.
    kept = record.read_bytes()
    record.unlink()
    refused = pgcairn.run("init", expect=DAMAGED).stderr
    assert "has been another system than this server" in refused and "--another-system" in refused
    assert pgcairn.objects("c/main/i/*") == [rubbish]
    record.write_bytes(kept)

    # Its own record is never passed over.
    pgcairn.conninfo = cluster.conninfo(user="pgcairn")
    pgcairn.write_config()
    record.write_bytes(kept[:-1])
    refused = pgcairn.run("init", "--another-system", expect=DAMAGED).stderr
    assert record.name in refused and "the record of this very server" in refused

    record.write_bytes(kept)
    pgcairn.conninfo = stranger.conninfo(user="pgcairn")
    pgcairn.write_config()
    said = pgcairn.run("init", "--another-system")
    assert "recorded" in said.stdout and rubbish.name in said.stderr


def test_init_print_needs_nothing_and_what_it_prints_works(workshop, programs):
    printed = run(programs.pgcairn, "init", "--print", "--config", "/nonexistent/pgcairn.conf")
    assert printed.returncode == OK
    sql = printed.stdout.split("\\set role", 1)[1].split("# 2.")[0]
    server = workshop.server(role=False)
    for _ in range(2):  # idempotent
        server.script("\\set role" + sql)
    assert server.sql("SELECT rolreplication, rolsuper FROM pg_roles WHERE rolname = 'pgcairn'") == [
        (True, False)]
    assert f"{programs.wal}" in printed.stdout
    assert "archive_mode = on" in printed.stdout


def test_secrets_are_not_printed(site):
    _, pgcairn = site
    config = pgcairn.directory / "secret.conf"
    config.write_text(pgcairn.config.read_text().replace(
        pgcairn.conninfo, pgcairn.conninfo + " password=hunter2"))
    config.chmod(0o644)
    for arguments in (["init", "--print"], ["check", "--no-switch"], ["info"]):
        done = run(pgcairn.programs.pgcairn, *arguments, "--config", config)
        assert "hunter2" not in done.stdout + done.stderr


# -- check


def test_check_proves_that_wal_arrives(site):
    _, pgcairn = site
    found = results(pgcairn)
    assert found["wal-arrival"][0] == "OK", found["wal-arrival"]
    assert re.match("[0-9A-F]{24} in ", found["wal-arrival"][1])
    assert all(status != "FAILED" for status, _ in found.values())
    assert found["retention"][0] == "WARNING"
    assert found["backups"][0] == "OK"


def test_doctor_says_what_each_condition_is_for(site):
    _, pgcairn = site
    plain = pgcairn.json("check", "--no-switch")["results"]
    explained = pgcairn.json("doctor", "--no-switch")["results"]
    assert [result["name"] for result in explained] == [result["name"] for result in plain]
    assert not [result for result in explained if not result.get("why")]
    assert not [result for result in plain if "why" in result]


def test_check_leaves_nothing_in_the_repository(site):
    cluster, pgcairn = site
    wait_until("nothing arrives any more", cluster.is_all_archived)
    before = pgcairn.objects()
    pgcairn.run("check", "--no-switch")
    assert pgcairn.objects() == before


def test_check_sees_an_archive_command_that_archives_nothing(site):
    cluster, pgcairn = site
    cluster.sql("ALTER SYSTEM SET archive_command = '/bin/false'")
    cluster.sql("SELECT pg_reload_conf()")
    try:
        found = results(pgcairn, "--timeout=2", expect=FAILED)
        assert found["archive_command"][0] == "FAILED"
        assert found["wal-arrival"][0] == "FAILED" and "did not arrive" in found["wal-arrival"][1]
    finally:
        cluster.sql("ALTER SYSTEM RESET archive_command")
        cluster.sql("SELECT pg_reload_conf()")
    assert results(pgcairn)["wal-arrival"][0] == "OK"


def test_check_without_a_server_goes_on_with_the_rest(workshop):
    pgcairn = workshop.pgcairn(workshop.cluster())
    pgcairn.run("init", "--no-server")
    found = results(pgcairn, expect=FAILED)
    assert found["repository"][0] == "OK"
    assert found["connection"][0] == "FAILED"
    assert "wal-arrival" not in found


def test_check_names_missing_rights(workshop):
    server = workshop.server(role=False)
    server.sql("CREATE ROLE pgcairn LOGIN")
    pgcairn = workshop.pgcairn(server)
    found = results(pgcairn, expect=FAILED)
    assert found["privileges"][0] == "FAILED" and "REPLICATION" in found["privileges"][1]
    assert found["repository"][0] == "FAILED" and "pgcairn init" in found["repository"][1]


def test_check_on_a_standby_says_that_it_cannot_switch(workshop, site):
    primary, pgcairn = site
    standby = workshop.standby(primary)
    config = pgcairn.directory / "standby.conf"
    config.write_text(pgcairn.config.read_text().replace(
        pgcairn.conninfo, standby.conninfo(user="pgcairn")))
    config.chmod(0o644)
    done = run(pgcairn.programs.pgcairn, "check", "--config", config)
    assert done.returncode == OK, done.stdout
    assert "wal-arrival: WARNING (a standby" in done.stdout


def test_check_refuses_in_place_tablespaces_only_where_15_leaves_them_out(workshop):
    server = workshop.server()
    pgcairn = workshop.pgcairn(server).init()
    server.script("SET allow_in_place_tablespaces = on;\nCREATE TABLESPACE inside LOCATION '';")
    found = results(pgcairn, "--no-switch", expect=FAILED)  # nothing archives here
    if pg_major() == 15:
        assert found["tablespaces"][0] == "FAILED" and "inside" in found["tablespaces"][1]
    else:
        assert found.get("tablespaces", ("OK",))[0] == "OK"


def test_check_ends_as_every_command_does_when_the_configuration_is_wrong(workshop):
    pgcairn = workshop.pgcairn(workshop.cluster())
    good = pgcairn.config.read_text()
    for text in (good.replace("encryption = none", "encryption = maybe"), good + "[cluster main]\n",
                 good.replace("path = ", "paht = "), "[repository main]\npath = /nowhere\n"):
        pgcairn.config.write_text(text)
        assert "configuration: FAILED" in pgcairn.run("check", expect=USAGE).stdout
        assert results(pgcairn, expect=USAGE)["configuration"][0] == "FAILED"
        pgcairn.run("backup", expect=USAGE)
    pgcairn.config.unlink()
    assert "configuration: FAILED" in pgcairn.run("check", expect=USAGE).stdout


# -- info


def test_info_needs_no_server(workshop):
    cluster, pgcairn = workshop.archiving_server()
    label = pgcairn.backup()["label"]
    cluster.stop()
    told = pgcairn.run("info").stdout
    assert re.match(r"recoverable: \S+ \S+ \.\. \S+ \S+ \(no gaps\), RPO now .*"
                    r"last proven restore never\n", told)
    assert label in told and "wal-complete" in told
    details = pgcairn.json("info", "--set", label)
    assert details["state"] == "wal-complete" and details["label"] == label
    assert pgcairn.run("list").stdout.startswith("recoverable: ")
    pgcairn.run("info", "--set", "20200101-000000F", expect=NOT_FOUND)
    pgcairn.run("info", "--cluster", "nobody", expect=NOT_FOUND)


def test_info_shows_a_hole_as_a_hole(workshop):
    cluster, pgcairn = workshop.archiving_server()
    backup = pgcairn.backup()
    for _ in range(4):
        cluster.sql("SELECT pg_create_restore_point('x')")
        cluster.sql("SELECT pg_switch_wal()")
    pgcairn.run("check")  # the last segment has arrived, so the ones before have
    whole = pgcairn.info()
    assert whole["recoverable"]["gaps"] == 0
    segments = sorted(path.name for path in pgcairn.objects("c/*/w/**/*")
                      if re.fullmatch("[0-9A-F]{24}", path.name))
    lost = segments[-3]
    next(path for path in pgcairn.objects("c/*/w/**/*") if path.name == lost).unlink()

    holed = pgcairn.info()
    assert holed["recoverable"]["gaps"] == 1
    assert holed["recoverable"]["to_lsn"] < whole["recoverable"]["to_lsn"]
    timeline = holed["incarnations"][-1]["timelines"][-1]
    assert [hole["first_segment"] for hole in timeline["holes"]] == [lost]
    assert len(timeline["windows"]) == 2
    assert f"1 missing: {lost}" in pgcairn.run("info").stdout
    assert holed["backups"][0]["label"] == backup["label"]
    assert holed["backups"][0]["state"] == "wal-complete"


def test_info_calls_a_backup_without_its_wal_copied(workshop):
    _, pgcairn = workshop.archiving_server()
    pgcairn.backup()
    for path in pgcairn.objects("c/*/w/**/*"):
        path.unlink()
    cluster = pgcairn.info()
    assert cluster["backups"][0]["state"] == "copied"
    assert cluster["backups"][0]["missing_segments"] >= 1
    assert not cluster["recoverable"]["possible"]
    assert "nothing (no usable backup)" in pgcairn.run("info").stdout


# -- the program


def test_unknown_commands_are_answered(programs):
    wrong = run(programs.pgcairn, "bakup")
    assert wrong.returncode == USAGE and "pgcairn backup" in wrong.stderr
    assert run(programs.pgcairn, "--help").returncode == OK
    assert run(programs.pgcairn, "help", "info").stdout.count("--set") >= 1
    assert run(programs.pgcairn, "--version").stdout.startswith("pgcairn ")
    assert run(programs.pgcairn).returncode == USAGE
