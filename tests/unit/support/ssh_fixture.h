/*
 * Driver and server of `type = ssh` in one process: the server serves a scratch directory from a
 * thread, and a relay between the two counts bytes and cuts connections.
 *
 * Calling sequence: ssh_fixture_init, ssh_fixture_connect (a Storage that the caller closes),
 * ssh_fixture_settle (all servers have ended), ssh_fixture_free.
 * Threads: connect and settle from one; the Storage from any.
 */
#ifndef PGCAIRN_TESTS_SSH_FIXTURE_H
#define PGCAIRN_TESTS_SSH_FIXTURE_H

#include "storage/serve.h"
#include "storage/ssh.h"
#include "tests/unit/support/fault_disk.h"

#include <pthread.h>
#include <stdatomic.h>

enum { SSH_FIXTURE_CONNECTIONS = 64 };

/* Of one connection: it is cut when so many bytes went over in a direction. */
typedef struct {
    size_t to_server, to_client; /* SIZE_MAX: never */
} SshCut;

typedef struct SshFixture SshFixture;

typedef struct {
    SshFixture *fixture;
    int client_fd, server_fd; /* the relay's ends */
    int served_fd;            /* the server's end */
    SshCut cut;
    pthread_t relay, server;
    size_t to_server, to_client; /* bytes that went over, after settle */
    CairnError server_err;
    bool server_good;
} SshFixtureConnection;

struct SshFixture {
    FaultDisk disk; /* the server's */
    char root[256];
    const char *const *clusters; /* of create-only connections; NULL: unrestricted */
    size_t cluster_count;
    SshCut cuts[SSH_FIXTURE_CONNECTIONS];
    SshFixtureConnection connections[SSH_FIXTURE_CONNECTIONS];
    atomic_uint connection_count;
    unsigned settled;
    unsigned refuse_after; /* connections; more are UNAVAILABLE */
};

void ssh_fixture_init(SshFixture *fixture);
Storage *ssh_fixture_connect(SshFixture *fixture, CairnError *err);
/* Connects a bare socket to a server, for hand-made frames. */
int ssh_fixture_raw(SshFixture *fixture);
void ssh_fixture_settle(SshFixture *fixture);
void ssh_fixture_free(SshFixture *fixture);

#endif
