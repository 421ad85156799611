#include "tests/unit/support/ssh_fixture.h"

#include "storage/posix.h"
#include "tests/unit/support/scratch.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECT_MS = 20000, STALL_MS = 20000, RECONNECT_MS = 2000 };

static const char *scratch; /* one for all of them */
static unsigned fixture_number;

void
ssh_fixture_init(SshFixture *fixture)
{
    memset(fixture, 0, sizeof *fixture);
    fault_disk_init(&fixture->disk);
    fixture->disk.pretend_sync = true;
    char name[32];
    snprintf(name, sizeof name, "ssh-%u", fixture_number++);
    if (scratch == NULL)
        scratch = scratch_directory();
    snprintf(fixture->root, sizeof fixture->root, "%s", scratch_path(scratch, name));
    for (size_t i = 0; i < SSH_FIXTURE_CONNECTIONS; i++)
        fixture->cuts[i] = (SshCut){SIZE_MAX, SIZE_MAX};
    fixture->refuse_after = SSH_FIXTURE_CONNECTIONS;
    CairnError err = {0};
    Storage *storage = posix_storage_open(&fixture->disk.world, fixture->root, true, &err);
    CAIRN_ASSERT(storage != NULL);
    storage_close(storage);
}

static Storage *
open_root(void *context, bool create, CairnError *err)
{
    SshFixture *fixture = context;
    return posix_storage_open(&fixture->disk.world, fixture->root,
                              create && fixture->clusters == NULL, err);
}

static void *
run_server(void *context)
{
    SshFixtureConnection *connection = context;
    SshFixture *fixture = connection->fixture;
    SCOPED(ServePolicy) policy = NULL;
    if (fixture->clusters != NULL)
        policy = serve_policy_new(fixture->clusters, fixture->cluster_count, "backup1",
                                  &connection->server_err);
    const ServeOptions options = {.world = &fixture->disk.world,
                                  .input_fd = connection->served_fd,
                                  .output_fd = connection->served_fd,
                                  .open = open_root,
                                  .context = fixture,
                                  .place = fixture->root,
                                  .host = "backup1",
                                  .policy = policy,
                                  .workers = SERVE_WORKERS};
    connection->server_good = serve_run(&options, &connection->server_err);
    close(connection->served_fd);
    return NULL;
}

/* One direction, as far as the cut allows. False when that is the end. */
static bool
pass(int from, int to, size_t limit, size_t *passed)
{
    char bytes[65536];
    const size_t left = limit - *passed;
    const ssize_t size = recv(from, bytes, left < sizeof bytes ? left : sizeof bytes, 0);
    if (size <= 0)
        return false;
    for (ssize_t done = 0; done < size;) {
        const ssize_t sent = send(to, bytes + done, (size_t)(size - done), MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        done += sent;
    }
    *passed += (size_t)size;
    return *passed < limit;
}

static void *
run_relay(void *context)
{
    SshFixtureConnection *connection = context;
    bool open = connection->cut.to_server > 0 && connection->cut.to_client > 0;
    while (open) {
        struct pollfd fds[2] = {{.fd = connection->client_fd, .events = POLLIN},
                                {.fd = connection->server_fd, .events = POLLIN}};
        if (poll(fds, 2, -1) < 0)
            continue;
        if (fds[1].revents != 0)
            open = pass(connection->server_fd, connection->client_fd, connection->cut.to_client,
                        &connection->to_client);
        if (open && fds[0].revents != 0)
            open = pass(connection->client_fd, connection->server_fd, connection->cut.to_server,
                        &connection->to_server);
    }
    close(connection->client_fd);
    close(connection->server_fd);
    return NULL;
}

/* The client's end; -1 where there are no more. */
static int
begin_connection(SshFixture *fixture)
{
    const unsigned number = atomic_fetch_add(&fixture->connection_count, 1);
    if (number >= fixture->refuse_after) {
        atomic_fetch_sub(&fixture->connection_count, 1);
        return -1;
    }
    SshFixtureConnection *connection = &fixture->connections[number];
    int near[2], far[2];
    CAIRN_ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, near) == 0);
    CAIRN_ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, far) == 0);
    *connection = (SshFixtureConnection){.fixture = fixture,
                                         .client_fd = near[1],
                                         .server_fd = far[0],
                                         .served_fd = far[1],
                                         .cut = fixture->cuts[number]};
    CAIRN_ASSERT(pthread_create(&connection->server, NULL, run_server, connection) == 0);
    CAIRN_ASSERT(pthread_create(&connection->relay, NULL, run_relay, connection) == 0);
    return near[0];
}

static bool
start(void *context, SshChild *child_out, CairnError *err)
{
    const int fd = begin_connection(context);
    if (fd < 0)
        return cairn_error(err, CAIRN_UNAVAILABLE, "no more connections");
    *child_out = SSH_CHILD_NONE;
    child_out->socket_fd = fd;
    return true;
}

Storage *
ssh_fixture_connect(SshFixture *fixture, CairnError *err)
{
    const SshStorageOptions options = {.host = "backup1",
                                       .start = start,
                                       .context = fixture,
                                       .connect_ms = CONNECT_MS,
                                       .stall_ms = STALL_MS,
                                       .reconnect_ms = RECONNECT_MS};
    return ssh_storage_over(world_real(), &options, err);
}

int
ssh_fixture_raw(SshFixture *fixture)
{
    return begin_connection(fixture);
}

void
ssh_fixture_settle(SshFixture *fixture)
{
    while (fixture->settled < atomic_load(&fixture->connection_count)) {
        SshFixtureConnection *connection = &fixture->connections[fixture->settled++];
        pthread_join(connection->relay, NULL);
        pthread_join(connection->server, NULL);
    }
}

void
ssh_fixture_free(SshFixture *fixture)
{
    ssh_fixture_settle(fixture);
}
