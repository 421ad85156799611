"""The image and the compose file of docker/, built and run for real, with podman.

No registry is needed: the base image is a Debian made by tests/matrix, and everything else comes from
the same Debian mirror. Images stay in PGCAIRN_CHROOTS, so that only the first run is slow.
"""

import os
import pathlib
import re
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
STATE = pathlib.Path(os.environ.get("PGCAIRN_CHROOTS", "/var/cache/pgcairn-chroots")) / "containers"
BASE_IMAGE = "docker.io/library/debian:bookworm-slim"
PROJECT = "pgcairn-test"
DATABASE = f"{PROJECT}_db_1"
CLONE = f"{PROJECT}_clone"
BUILD_TIMEOUT_SECONDS = 1800
READY_TIMEOUT_SECONDS = 90

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root here")

# What containers need inside a virtual machine: crun refuses hybrid control groups, raised limits are
# refused. Networks are kept out of /etc.
CONTAINERS_CONF = f"""
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"

[network]
network_backend = "netavark"
network_config_dir = "{STATE}/networks"

[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
"""

STORAGE_CONF = """
[storage]
driver = "{driver}"
graphroot = "{state}/{driver}"
runroot = "{state}/run-{driver}"
"""

# podman-compose does not pass on the default limits.
COMPOSE_OVERRIDE = "services:\n" + "".join(
    f"""  {service}:
    ulimits:
      nofile: {{soft: 1024, hard: 1024}}
      nproc: {{soft: 1024, hard: 1024}}
"""
    for service in ("db", "pgcairn")
)


def run(*command, timeout=300, check=True):
    """Standard output of a command; what it said comes with a failure."""
    result = subprocess.run(
        list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=timeout, check=False,
    )
    if check and result.returncode != 0:
        pytest.fail(f"{' '.join(map(str, command))}: exit status {result.returncode}\n"
                    f"{result.stdout[-6000:]}\n{result.stderr[-6000:]}")
    return result.stdout


def succeeds(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True,
                          check=False).returncode == 0


def compose(*arguments, **options):
    return run("podman-compose", "--project-name", PROJECT, "--file", ROOT / "docker/compose.yaml",
               "--file", STATE / "override.yaml", *arguments, **options)


def in_service(*command):
    """A command in a new container of the service pgcairn, as the README has it; its output."""
    # podman-compose 1.0.3 builds the image again for dependencies; it tells the exit status of a
    # command, but does not pass it on.
    output = compose("run", "--rm", "--no-deps", "-T", "pgcairn", *command)
    if re.findall(r"^exit code: (\d+)$", output, re.MULTILINE)[-1:] != ["0"]:
        pytest.fail(f"{command or 'the service'} failed:\n{output[-6000:]}")
    return output


def sql(container, statement):
    return run("podman", "exec", container, "psql", "--no-psqlrc", "--tuples-only", "--no-align",
               "--quiet", "--set=ON_ERROR_STOP=1", "--command", statement).strip()


def sql_or_none(container, statement):
    """For servers that may not accept connections yet."""
    result = subprocess.run(
        ["podman", "exec", container, "psql", "--no-psqlrc", "-tAc", statement],
        capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None


def wait_until(what, condition):
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while not condition():
        ended = not succeeds("podman", "exec", what, "true")
        if ended or time.monotonic() > deadline:
            logs = subprocess.run(["podman", "logs", "--tail", "40", what], capture_output=True,
                                  text=True, check=False)
            pytest.fail(f"{what} {'ended' if ended else 'is late'}\n{logs.stdout}{logs.stderr}")
        time.sleep(0.2)


def remove_containers():
    for name in (DATABASE, CLONE):
        run("podman", "rm", "--force", "--time", "10", "--volumes", name, check=False)
    compose("down", "--volumes", check=False)
    run("podman", "network", "rm", "--force", f"{PROJECT}_default", check=False)


def storage_driver():
    """vfs copies every layer, but needs nothing of the kernel or the file system."""
    filesystems = pathlib.Path("/proc/filesystems").read_text(encoding="ascii").split()
    return "overlay" if "overlay" in filesystems else "vfs"


@pytest.fixture(scope="module", autouse=True)
def podman():
    """podman with settings and storage of its own, and the base image in it."""
    run(ROOT / "tools/install-dependencies", "--containers", timeout=BUILD_TIMEOUT_SECONDS)
    # It has a limit of its own for a slow mirror, and says so when it comes to that.
    base = run(ROOT / "tests/matrix", "base", "bookworm", timeout=BUILD_TIMEOUT_SECONDS).strip()
    STATE.mkdir(parents=True, exist_ok=True)
    (STATE / "containers.conf").write_text(CONTAINERS_CONF, encoding="ascii")
    (STATE / "storage.conf").write_text(
        STORAGE_CONF.format(state=STATE, driver=storage_driver()), encoding="ascii")
    (STATE / "override.yaml").write_text(COMPOSE_OVERRIDE, encoding="ascii")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_CONF", str(STATE / "containers.conf"))
        patch.setenv("CONTAINERS_STORAGE_CONF", str(STATE / "storage.conf"))
        patch.setenv("PGCAIRN_PASSWORD", "a password with 'quotes'")
        if not succeeds("podman", "image", "exists", BASE_IMAGE):
            tarball = STATE / "base.tar"
            run("tar", "-C", base, "-cf", tarball, ".")
            run("podman", "import", tarball, BASE_IMAGE)
            tarball.unlink()
        yield


@pytest.fixture(scope="module")
def image(podman):
    # Only docker's own format knows HEALTHCHECK.
    build = ("podman", "build", "--isolation", "chroot", "--format", "docker",
             "--file", ROOT / "docker/Dockerfile", ROOT)
    # Under a tag the installed packages outlive the pruning, and the next run finds them.
    run(*build, "--target", "dependencies", "--tag", "pgcairn-dependencies",
        timeout=BUILD_TIMEOUT_SECONDS)
    run(*build, "--tag", "pgcairn", timeout=BUILD_TIMEOUT_SECONDS)
    yield "pgcairn"
    run("podman", "image", "prune", "--force", check=False)


@pytest.fixture(scope="module")
def database(image):
    remove_containers()
    try:
        compose("up", "--detach", "--no-build", "db")
        wait_until(DATABASE, lambda: succeeds("podman", "healthcheck", "run", DATABASE))
        yield DATABASE
    finally:
        remove_containers()


def test_image_runs_as_postgres_and_has_both_programs(image):
    output = run("podman", "run", "--rm", "--network", "none", image, "bash", "-c",
                 "id -un && pgcairn version && pgcairn-wal version")
    assert output.splitlines()[0] == "postgres"


def test_image_without_a_password_makes_no_cluster(image):
    assert not succeeds("podman", "run", "--rm", "--network", "none", image)


def test_health_check_fails_without_a_server(image):
    assert not succeeds("podman", "run", "--rm", "--network", "none", image, "pg_isready", "--quiet")


def test_restore_of_what_compose_backed_up_has_every_row(database):
    sql(database, "create table kept as select n, md5(n::text) from generate_series(1, 20000) n")
    in_service()
    sql(database, "insert into kept select n, md5(n::text) from generate_series(20001, 30000) n")
    in_service("take-backup")
    sql(database, "update kept set md5 = 'changed after the backup' where n % 100 = 0")
    expected = sql(database, "select count(*), md5(string_agg(kept::text, ',' order by n)) from kept")
    # The update is in no backup: it can only come back through the archive.
    switched = sql(database, "select pg_walfile_name(pg_switch_wal())")
    wait_until(database, lambda: sql(database, "select last_archived_wal >= '%s' "
                                     "from pg_stat_archiver" % switched) == "t")
    assert "recoverable: " in in_service("pgcairn", "info")

    in_service("pgcairn", "restore", "--to", "/restored/data")
    run("podman", "run", "--detach", "--name", CLONE, "--network", "none",
        "--volume", f"{PROJECT}_restored:/restored",
        "--volume", f"{PROJECT}_repository:/var/lib/pgcairn",
        "--env", "PGDATA=/restored/data", "pgcairn", "postgres")
    wait_until(CLONE, lambda: sql_or_none(CLONE, "select pg_is_in_recovery()") == "f")

    assert sql(CLONE, "select count(*), md5(string_agg(kept::text, ',' order by n)) "
               "from kept") == expected
    assert sql(CLONE, "show archive_mode") == "off"
