#include "storage/ssh_link_intern.h"

#include "common/cancel.h"
#include "storage/ssh.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    FIRST_PAUSE_MS = 250,
    LONGEST_PAUSE_MS = 4000,
    /* So long after trying in vain, the next one is tried once only: whatever is to be given up
       goes through many requests. */
    PATIENCE_BACK_MS = 30000,
    /* A handshake over a slow line and a loaded host takes its time. */
    SHORTEST_CONNECT_MS = 5000,
};

_Static_assert(SSH_LINK_OUT_SIZE + SSH_LINK_IN_SIZE + 2 * SSH_KEEP_SIZE <= SSH_FIXED_MEMORY,
               "a connection takes more than is documented");

int64_t
ssh_link_now_ns(const SshLink *link)
{
    const Clock *clock = link->options.world->clock;
    return clock->monotonic_ns(clock);
}

bool
ssh_link_is_current(const SshLink *link, uint64_t generation)
{
    return link->state == LINK_CONNECTED && link->generation == generation;
}

/* ---- making and forgetting ---- */

SshLink *
ssh_link_new(const SshLinkOptions *options, CairnError *err)
{
    SCOPED(SshLink) link = calloc(1, sizeof *link);
    if (link == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    link->options = *options;
    link->owner = getpid();
    link->child = SSH_CHILD_NONE;
    link->next_id = 1;
    pthread_mutex_init(&link->lock, NULL);
    pthread_cond_init(&link->changed, NULL);
    link->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    link->out = malloc(SSH_LINK_OUT_SIZE);
    link->in = malloc(SSH_LINK_IN_SIZE);
    if (link->wake_fd < 0 || link->out == NULL || link->in == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory or descriptors");
        return NULL;
    }
    return take(&link);
}

/* The descriptors belong to whoever got their numbers since; the process is the parent's to end. */
static void
begin_anew_after_fork(SshLink *link)
{
    if (link->owner == getpid())
        return;
    link->owner = getpid();
    pthread_mutex_init(&link->lock, NULL);
    pthread_cond_init(&link->changed, NULL);
    ssh_child_forget(&link->child);
    link->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    link->state = LINK_CLOSED;
    link->worked = link->connecting = link->leading = false;
    link->pending = NULL;
    cairn_error_clear(&link->reason);
    cairn_error(&link->reason, CAIRN_UNAVAILABLE, "the connection belongs to the parent process");
}

void
ssh_link_lock(SshLink *link)
{
    begin_anew_after_fork(link);
    pthread_mutex_lock(&link->lock);
}

void
ssh_link_unlock(SshLink *link)
{
    pthread_mutex_unlock(&link->lock);
}

/* ---- connecting ---- */

static bool
say_hello(SshLink *link, CairnError *err)
{
    /* What was there and is not there now is to be mounted, not to be made. */
    SshHello hello = {.lowest = SSH_VERSION,
                      .highest = SSH_VERSION,
                      .create = link->options.create && !link->worked,
                      .asks_identity = true};
    snprintf(hello.program, sizeof hello.program, "pgcairn %s", PGCAIRN_VERSION);
    SCOPED_BYTES ByteWriter payload = {0};
    ssh_hello_encode(&payload, &hello);
    if (!byte_writer_check(&payload, err))
        return false;
    ssh_link_append(link, &(SshFrame){.size = (uint32_t)payload.size, .type = SSH_HELLO},
                    payload.data);
    ssh_link_flush(link);
    return true;
}

/* Until the server has answered the hello, or there is no hope of that. */
static void
await_welcome(SshLink *link, const SshRequest *hello)
{
    const int64_t deadline_ns = ssh_link_now_ns(link) + link->options.connect_ms * 1000000;
    while (hello->state == SSH_PENDING) {
        if (ssh_link_now_ns(link) < deadline_ns) {
            ssh_link_step(link);
            continue;
        }
        cairn_error(&link->reason, CAIRN_UNAVAILABLE,
                    "no connection to repository host '%s' within %" PRId64 " s",
                    link->options.host, link->options.connect_ms / 1000);
        ssh_link_lose(link);
    }
}

static bool
is_version_known(const SshLink *link, CairnError *err)
{
    if (link->welcome.version == SSH_VERSION)
        return true;
    cairn_error(err, CAIRN_UNSUPPORTED,
                "repository host '%s' speaks version %u of the protocol, this program %d",
                link->options.host, link->welcome.version, SSH_VERSION);
    return cairn_error_hint(err, "install the same pgcairn on both hosts");
}

/*
 * What is asked on this connection goes on where an earlier one ended: "not there" of another
 * repository, mounted in the place of ours, would be believed. A child process is told apart by the
 * same.
 */
static bool
is_same_repository(SshLink *link, CairnError *err)
{
    const SshWelcome *welcome = &link->welcome;
    if (!welcome->has_identity || strcmp(link->identity, welcome->identity) == 0)
        return true;
    if (link->identity[0] == '\0') {
        memcpy(link->identity, welcome->identity, sizeof link->identity);
        return true;
    }
    cairn_error(
        err, CAIRN_UNAVAILABLE, "repository host '%s' serves %s in '%s' now, not the one of before",
        link->options.host, welcome->identity[0] != '\0' ? "another repository" : "no repository",
        welcome->place);
    /* For who keeps a repository open: it must be opened anew (repository_is_current). */
    err->system_errno = ESTALE;
    return cairn_error_hint(err, "is the right file system mounted there?");
}

/* One attempt, under the lock and with nobody asleep on the old descriptors. */
static bool
connect_once(SshLink *link, CairnError *err)
{
    ssh_child_end(&link->child, link->options.world->clock);
    if (!link->options.start(link->options.context, &link->child, err))
        return false;
    link->generation++;
    link->state = LINK_GREETING;
    link->out_dead = false;
    link->out_start = link->out_end = link->in_size = 0;
    link->last_sign_ns = ssh_link_now_ns(link);
    ssh_link_forget_handles(link);
    cairn_error_clear(&link->reason);

    SshRequest hello = {0};
    link->hello = &hello;
    if (say_hello(link, err))
        await_welcome(link, &hello);
    link->hello = NULL;
    if (hello.state == SSH_ANSWERED && link->state == LINK_CLOSED) {
        /* It said welcome and was gone. */
        hello.state = SSH_LOST;
        hello.err = link->reason;
    }
    bool connected = err->kind == CAIRN_OK;
    if (connected && hello.state != SSH_ANSWERED) {
        *err = hello.err;
        connected = hello.state == SSH_REFUSED
                        ? cairn_error_wrap(err, "repository host '%s'", link->options.host)
                        : false;
        /* The place was there: of the objects that are asked for this says nothing. */
        if (link->worked && err->kind == CAIRN_NOT_FOUND)
            err->kind = CAIRN_UNAVAILABLE;
    }
    if (connected && is_version_known(link, err) && is_same_repository(link, err)) {
        link->state = LINK_CONNECTED;
        link->worked = true;
        return true;
    }
    link->state = LINK_CLOSED;
    cairn_error_clear(&link->reason);
    link->reason = *err;
    ssh_child_end(&link->child, link->options.world->clock);
    return false;
}

static bool
is_worth_a_retry(const SshLink *link, int64_t start_ns, const CairnError *err)
{
    const int64_t waited_ns = ssh_link_now_ns(link) - start_ns;
    const bool patient =
        link->gave_up_ns == 0 || start_ns - link->gave_up_ns > PATIENCE_BACK_MS * INT64_C(1000000);
    return link->worked && patient && err->kind == CAIRN_UNAVAILABLE && !cancel_requested() &&
           waited_ns < link->options.reconnect_ms * 1000000;
}

static bool
connect_patiently(SshLink *link, CairnError *err)
{
    const Clock *clock = link->options.world->clock;
    const int64_t start_ns = ssh_link_now_ns(link);
    int64_t pause_ms = FIRST_PAUSE_MS;
    while (!connect_once(link, err)) {
        if (!is_worth_a_retry(link, start_ns, err)) {
            link->gave_up_ns = ssh_link_now_ns(link);
            return false;
        }
        cairn_error_clear(err);
        ssh_link_unlock(link);
        clock->sleep_ms(clock, pause_ms);
        pthread_mutex_lock(&link->lock);
        if (pause_ms < LONGEST_PAUSE_MS)
            pause_ms *= 2;
    }
    link->gave_up_ns = 0;
    return true;
}

bool
ssh_link_connect(SshLink *link, uint64_t *generation_out, CairnError *err)
{
    ssh_link_lock(link);
    while (link->connecting)
        pthread_cond_wait(&link->changed, &link->lock);
    bool connected = link->state == LINK_CONNECTED;
    if (!connected) {
        link->connecting = true;
        while (link->leading) {
            ssh_link_wake(link);
            pthread_cond_wait(&link->changed, &link->lock);
        }
        connected = connect_patiently(link, err);
        link->connecting = false;
        pthread_cond_broadcast(&link->changed);
    }
    *generation_out = link->generation;
    ssh_link_unlock(link);
    return connected;
}

void
ssh_link_set_patience(SshLink *link, int64_t patience_ms)
{
    ssh_link_lock(link);
    if (patience_ms < link->options.reconnect_ms)
        link->options.reconnect_ms = patience_ms;
    if (patience_ms < link->options.connect_ms)
        link->options.connect_ms =
            patience_ms > SHORTEST_CONNECT_MS ? patience_ms : SHORTEST_CONNECT_MS;
    ssh_link_unlock(link);
}

void
ssh_link_welcome(SshLink *link, SshWelcome *welcome_out)
{
    ssh_link_lock(link);
    *welcome_out = link->welcome;
    ssh_link_unlock(link);
}

void
ssh_link_explain(SshLink *link, CairnError *err)
{
    SshRequest request = {0};
    ssh_link_lock(link);
    ssh_link_lost(link, &request);
    ssh_link_unlock(link);
    *err = request.err;
}

void
ssh_link_free(SshLink *link)
{
    if (link == NULL)
        return;
    begin_anew_after_fork(link);
    if (link->state == LINK_CONNECTED)
        ssh_link_flush(link);
    CAIRN_ASSERT(link->pending == NULL);
    ssh_child_end(&link->child, link->options.world->clock);
    if (link->wake_fd >= 0)
        close(link->wake_fd);
    ssh_link_forget_handles(link);
    free(link->out);
    free(link->in);
    pthread_cond_destroy(&link->changed);
    pthread_mutex_destroy(&link->lock);
    free(link);
}
