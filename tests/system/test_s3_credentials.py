"""Where the credentials of an object store come from, with a real store that says whether they are right.

The services of the clouds are played (support/credential_services.py says how); everything else is real.
"""

import os

import pytest

from support.credential_services import INSTANCE_ROLE, ROLE, Services
from support.object_store import Bucket
from support.pgcairn import OK, REFUSED, USAGE
from support.process import owner

FAILED = 1  # DENIED and the like
NO_FILES = {"access-key-file": None, "secret-key-file": None}
NO_INSTANCE = {"AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture(scope="module")
def store(s3_server, module_workshop):
    """A bucket with a repository in it."""
    bucket = Bucket(s3_server, module_workshop.directory / "bucket")
    module_workshop.pgcairn(None, repository=bucket.section()).run("init", "--no-server")
    yield bucket
    bucket.close()


@pytest.fixture
def services(s3_server):
    made = Services(s3_server.key, s3_server.secret)
    yield made
    made.close()


@pytest.fixture
def ask(workshop, store):
    """Runs `info` with these keys of the section and this environment; nothing of it may show the secret."""
    def run(section, env, expect=OK, private=True):
        pgcairn = workshop.pgcairn(None, repository=store.section(**section))
        pgcairn.config.chmod(0o600 if private else 0o644)
        result = pgcairn.run("info", "--log-level=debug", env={**NO_INSTANCE, **env}, expect=expect)
        assert store.server.secret not in result.stdout + result.stderr
        return result.stderr
    return run


def test_configuration_environment_and_profiles(ask, store, workshop):
    key, secret = store.server.key, store.server.secret
    ask({}, {"AWS_ACCESS_KEY_ID": "wrong", "AWS_SECRET_ACCESS_KEY": "wrong"})  # files in the section come first
    ask({**NO_FILES, "access-key": key, "secret-key": secret}, {})
    ask(NO_FILES, {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret})
    shared = store.file("credentials", f"[default]\naws_access_key_id = nobody\naws_secret_access_key = nothing\n"
                                       f"[backup]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    ask({**NO_FILES, "profile": "backup", "credentials-file": shared}, {})
    ask(NO_FILES, {"AWS_PROFILE": "backup", "AWS_SHARED_CREDENTIALS_FILE": shared})
    home = workshop.new_directory("home", mode=0o755)
    (home / ".aws").mkdir()
    config = home / ".aws/config"
    config.write_text(f"[profile backup]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n",
                      encoding="ascii")
    config.chmod(0o600)
    os.chown(config, *owner())
    ask(NO_FILES, {"AWS_PROFILE": "backup", "HOME": home})
    assert "403" in ask(NO_FILES, {"AWS_SHARED_CREDENTIALS_FILE": shared}, expect=FAILED)


def test_a_web_identity(ask, store, services):
    token = store.file("identity", services.identity_token + "\n", mode=0o644)
    env = {"AWS_WEB_IDENTITY_TOKEN_FILE": token, "AWS_ROLE_ARN": ROLE, "AWS_ENDPOINT_URL_STS": services.url + "/"}
    ask(NO_FILES, env)
    services.failures = 2
    ask(NO_FILES, env)
    assert services.log == ["POST /"] * 4
    assert "AccessDenied: not this role" in ask(NO_FILES, {**env, "AWS_ROLE_ARN": ROLE + "x"}, expect=FAILED)
    store.file("identity", "somebody.else", mode=0o644)
    message = ask(NO_FILES, env, expect=FAILED)
    assert "InvalidIdentityToken: not issued here" in message and "somebody.else" not in message


def test_a_container_service(ask, store, services):
    env = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": services.url + "/container"}
    token = store.file("container-token", services.container_token, mode=0o644)
    ask(NO_FILES, {**env, "AWS_CONTAINER_AUTHORIZATION_TOKEN": services.container_token})
    ask(NO_FILES, {**env, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": token})
    assert "status 401" in ask(NO_FILES, env, expect=FAILED)
    assert "neither https nor a local address" in ask(
        NO_FILES, {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://192.0.2.1/container"}, expect=USAGE)


def test_an_instance(ask, services):
    env = {"AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": services.url}
    roles = "GET /latest/meta-data/iam/security-credentials/"
    for _ in range(3):  # where the service, or this machine, takes more than a second it is asked again
        services.log.clear()
        ask(NO_FILES, env)
        if len(services.log) == 3:
            break
    assert services.log == ["PUT /latest/api/token", roles, roles + INSTANCE_ROLE]
    services.lifetime_seconds = -60  # as the real one does while it is in trouble: still good for the store
    ask(NO_FILES, env)
    services.secret = "not-the-secret"
    assert "secret key" in ask(NO_FILES, env, expect=FAILED)


def test_credentials_that_expire_are_fetched_again(workshop, store, services):
    """One process, longer than they live: a probe, which waits for nothing else, by a slow proxy."""
    services.lifetime_seconds = 2
    proxy = store.faults()
    proxy.set(delay=100, delay_ms=300)
    env = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": services.url}
    pgcairn = workshop.pgcairn(None, repository=store.section(proxy.endpoint, **NO_FILES, prefix="slow"))
    pgcairn.run("init", "--no-server", env=env)
    assert services.log.count("PUT /latest/api/token") >= 2


def test_none_at_all(ask):
    message = ask(NO_FILES, {}, expect=USAGE)
    for tried in ("configuration: no access-key", "AWS_ACCESS_KEY_ID is not set", "profile: no 'default'",
                  "AWS_WEB_IDENTITY_TOKEN_FILE is not set", "AWS_CONTAINER_CREDENTIALS_FULL_URI is not set",
                  "instance metadata: disabled", "HINT: set access-key-file and secret-key-file"):
        assert tried in message


def test_secrets_that_others_can_read_are_refused(ask, store):
    secret = store.file("open-secret", store.server.secret, mode=0o644)
    assert "open to others" in ask({"secret-key-file": secret}, {}, expect=FAILED)
    section = {**NO_FILES, "access-key": store.server.key, "secret-key": store.server.secret}
    assert "secret-key of repository 'main'" in ask(section, {}, expect=FAILED, private=False)
    shared = store.file("open-credentials", "[default]\n", mode=0o640)
    assert "open to others" in ask({**NO_FILES, "credentials-file": shared}, {}, expect=FAILED)


def test_a_store_that_cannot_create_once_is_refused(workshop, s3_server):
    """Where the server has no conditional PUT, init with many writers is refused, and with one it is said in check."""
    if s3_server.conditional_create:
        pytest.skip("this server has it")
    bucket = Bucket(s3_server, workshop.directory / "refused")
    pgcairn = workshop.pgcairn(None, repository=bucket.section(writers="many"))
    result = pgcairn.run("init", "--no-server", expect=REFUSED)
    assert "does not create a name once only" in result.stderr and "writers = one" in result.stderr
    assert not bucket.objects()
    pgcairn.write_config(repository=bucket.section())
    pgcairn.run("init", "--no-server")
    assert "single-writer mode (writers = one)" in pgcairn.run("check", expect=None).stdout
    bucket.close()
