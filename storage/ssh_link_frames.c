/* What goes through a connection: frames in, frames out, the waiting for them, and the end. */
#include "storage/ssh_link_intern.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { POLL_MS = 1000, QUOTED_LIMIT = 100 };

_Static_assert(SSH_LINK_OUT_SIZE > SSH_FRAME_HEADER_SIZE + SSH_PAYLOAD_LIMIT, "a frame fits");
_Static_assert(SSH_LINK_IN_SIZE > SSH_FRAME_HEADER_SIZE + SSH_PAYLOAD_LIMIT, "a frame fits");

/* ---- the end of a connection ---- */

static void
finish(SshLink *link, SshRequest *request, SshRequestState state)
{
    for (SshRequest **at = &link->pending; *at != NULL; at = &(*at)->next) {
        if (*at == request) {
            *at = request->next;
            break;
        }
    }
    request->next = NULL;
    request->state = state;
}

/* link->reason is filled. Descriptors stay open: the leader may be asleep on them. */
void
ssh_link_lose(SshLink *link)
{
    CAIRN_ASSERT(link->reason.kind != CAIRN_OK && link->state != LINK_CLOSED);
    link->state = LINK_CLOSED;
    while (link->pending != NULL) {
        SshRequest *request = link->pending;
        request->err = link->reason;
        finish(link, request, SSH_LOST);
    }
    if (link->hello != NULL && link->hello->state == SSH_PENDING) {
        link->hello->err = link->reason;
        link->hello->state = SSH_LOST;
    }
    pthread_cond_broadcast(&link->changed);
}

static void
lose_broken_protocol(SshLink *link, const char *what)
{
    cairn_error(&link->reason, CAIRN_UNAVAILABLE,
                "repository host '%s' answered what is not in the protocol (%s)",
                link->options.host, what);
    ssh_link_lose(link);
}

/* What a shell prints when it starts comes before anything of ours. */
static void
lose_strange_greeting(SshLink *link)
{
    char quoted[QUOTED_LIMIT + 1];
    size_t size = 0;
    while (size < link->in_size && size < QUOTED_LIMIT && link->in[size] >= ' ' &&
           link->in[size] <= '~') {
        quoted[size] = (char)link->in[size];
        size++;
    }
    quoted[size] = '\0';
    cairn_error(&link->reason, CAIRN_UNAVAILABLE,
                "repository host '%s' answered something else than `pgcairn serve --stdio`: '%s'",
                link->options.host, quoted);
    cairn_error_hint(&link->reason,
                     "shell start-up files of the user there must print nothing; try by hand: ssh "
                     "%s true",
                     link->options.host);
    ssh_link_lose(link);
}

/* ---- frames in ---- */

static SshRequest *
find_pending(SshLink *link, uint32_t id)
{
    SshRequest *request = link->pending;
    while (request != NULL && request->id != id)
        request = request->next;
    return request;
}

/* False: the other side broke the protocol. */
static bool
take_payload(SshRequest *request, const SshFrame *frame, const uint8_t *payload)
{
    if (request->payload == NULL)
        return frame->size == 0;
    if (request->payload->size + frame->size > request->payload_limit)
        return false;
    byte_writer_bytes(request->payload, payload, frame->size);
    return true;
}

static bool
accept_writer_failed(SshLink *link, const SshFrame *frame, const uint8_t *payload)
{
    CairnError err = {0};
    if (frame->handle >= SSH_WRITER_LIMIT || !ssh_error_decode(payload, frame->size, &err))
        return false;
    CairnError **place = &link->writer_failed[frame->handle];
    if (*place == NULL)
        *place = malloc(sizeof **place);
    if (*place != NULL) /* else the commit tells it */
        **place = err;
    return true;
}

static bool
accept_answer(SshLink *link, const SshFrame *frame, const uint8_t *payload)
{
    SshRequest *request = find_pending(link, frame->request);
    if (request == NULL)
        return false;
    switch (frame->type) {
    case SSH_DATA:
        if (request->data == NULL || frame->size != request->data_size)
            return false;
        memcpy(request->data, payload, frame->size);
        finish(link, request, SSH_ANSWERED);
        return true;
    case SSH_ENTRIES:
        return request->listing && frame->size > 0 && take_payload(request, frame, payload);
    case SSH_DONE:
        if (request->data != NULL ||
            !(request->listing ? frame->size == 0 : take_payload(request, frame, payload)))
            return false;
        finish(link, request, SSH_ANSWERED);
        return true;
    case SSH_FAILED:
        if (!ssh_error_decode(payload, frame->size, &request->err))
            return false;
        finish(link, request, SSH_REFUSED);
        return true;
    default:
        return false;
    }
}

static bool
accept_greeting(SshLink *link, const SshFrame *frame, const uint8_t *payload)
{
    SshRequest *hello = link->hello;
    if (hello == NULL || hello->state != SSH_PENDING || frame->request != 0)
        return false;
    if (frame->type == SSH_FAILED) {
        if (!ssh_error_decode(payload, frame->size, &hello->err))
            return false;
        hello->state = SSH_REFUSED;
        return true;
    }
    if (frame->type != SSH_WELCOME || !ssh_welcome_decode(payload, frame->size, &link->welcome))
        return false;
    hello->state = SSH_ANSWERED;
    return true;
}

static bool
accept_frame(SshLink *link, const SshFrame *frame, const uint8_t *payload)
{
    if (link->state == LINK_GREETING)
        return accept_greeting(link, frame, payload);
    if (frame->type == SSH_ALIVE)
        return frame->size == 0;
    if (frame->type == SSH_WRITER_FAILED)
        return accept_writer_failed(link, frame, payload);
    return accept_answer(link, frame, payload);
}

static void
take_frames(SshLink *link)
{
    size_t at = 0;
    while (link->state != LINK_CLOSED && link->in_size - at >= SSH_FRAME_HEADER_SIZE) {
        SshFrame frame;
        if (!ssh_frame_decode(link->in + at, &frame)) {
            if (link->state == LINK_GREETING)
                lose_strange_greeting(link);
            else
                lose_broken_protocol(link, "no frame");
            return;
        }
        const size_t size = SSH_FRAME_HEADER_SIZE + (size_t)frame.size;
        if (link->in_size - at < size)
            break;
        if (!accept_frame(link, &frame, link->in + at + SSH_FRAME_HEADER_SIZE)) {
            char what[64];
            snprintf(what, sizeof what, "type %u, request %" PRIu32, frame.type, frame.request);
            if (link->state == LINK_GREETING)
                lose_strange_greeting(link);
            else
                lose_broken_protocol(link, what);
            return;
        }
        at += size;
    }
    memmove(link->in, link->in + at, link->in_size - at);
    link->in_size -= at;
}

/* ---- bytes ---- */

static void
receive(SshLink *link)
{
    while (link->state != LINK_CLOSED) {
        CAIRN_ASSERT(link->in_size < SSH_LINK_IN_SIZE);
        const ssize_t size = recv(link->child.socket_fd, link->in + link->in_size,
                                  SSH_LINK_IN_SIZE - link->in_size, MSG_DONTWAIT);
        if (size > 0) {
            link->in_size += (size_t)size;
            link->last_sign_ns = ssh_link_now_ns(link);
            take_frames(link);
        } else if (size < 0 && errno == EINTR) {
            continue;
        } else if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return;
        } else {
            if (link->state == LINK_GREETING && link->in_size > 0) {
                lose_strange_greeting(link);
                return;
            }
            ssh_child_explain(&link->child, link->options.world->clock, link->options.host,
                              link->hello != NULL && link->hello->state == SSH_PENDING,
                              &link->reason);
            ssh_link_lose(link);
        }
    }
}

void
ssh_link_flush(SshLink *link)
{
    while (link->out_start < link->out_end && !link->out_dead) {
        const ssize_t size = send(link->child.socket_fd, link->out + link->out_start,
                                  link->out_end - link->out_start, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (size > 0) {
            link->out_start += (size_t)size;
            link->last_sign_ns = ssh_link_now_ns(link);
        } else if (size < 0 && errno == EINTR) {
            continue;
        } else if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            break;
        } else {
            /* Not the end yet: what it said before it closed is still to be read. */
            link->out_dead = true;
        }
    }
    if (link->out_start == link->out_end)
        link->out_start = link->out_end = 0;
}

void
ssh_link_wake(SshLink *link)
{
    const uint64_t one = 1;
    /* Full is as good: it wakes up then. */
    const ssize_t ignored = write(link->wake_fd, &one, sizeof one);
    (void)ignored;
}

static void
check_stalled(SshLink *link)
{
    if (ssh_link_now_ns(link) - link->last_sign_ns < link->options.stall_ms * 1000000)
        return;
    cairn_error(&link->reason, CAIRN_UNAVAILABLE,
                "repository host '%s' gave no sign of life for %" PRId64 " s", link->options.host,
                link->options.stall_ms / 1000);
    ssh_link_lose(link);
}

/* Waits for something to happen, as leader or for the leader. Under the lock; not while CLOSED. */
void
ssh_link_step(SshLink *link)
{
    if (link->leading) {
        pthread_cond_wait(&link->changed, &link->lock);
        return;
    }
    link->leading = true;
    const bool sending = link->out_start < link->out_end && !link->out_dead;
    struct pollfd fds[2] = {
        {.fd = link->child.socket_fd, .events = (short)(POLLIN | (sending ? POLLOUT : 0))},
        {.fd = link->wake_fd, .events = POLLIN},
    };
    ssh_link_unlock(link);
    poll(fds, 2, POLL_MS);
    pthread_mutex_lock(&link->lock);
    link->leading = false;
    if ((fds[1].revents & POLLIN) != 0) {
        uint64_t count;
        const ssize_t ignored = read(link->wake_fd, &count, sizeof count);
        (void)ignored;
    }
    if (link->state != LINK_CLOSED) {
        ssh_child_listen(&link->child);
        ssh_link_flush(link);
        receive(link);
    }
    if (link->state != LINK_CLOSED)
        check_stalled(link);
    pthread_cond_broadcast(&link->changed);
}

/* ---- frames out ---- */

void
ssh_link_append(SshLink *link, const SshFrame *frame, const void *payload)
{
    const size_t size = SSH_FRAME_HEADER_SIZE + (size_t)frame->size;
    if (SSH_LINK_OUT_SIZE - link->out_end < size) {
        memmove(link->out, link->out + link->out_start, link->out_end - link->out_start);
        link->out_end -= link->out_start;
        link->out_start = 0;
    }
    CAIRN_ASSERT(SSH_LINK_OUT_SIZE - link->out_end >= size);
    /* A silence before there was anything to say is none. */
    if (link->pending == NULL && link->out_start == link->out_end)
        link->last_sign_ns = ssh_link_now_ns(link);
    ssh_frame_encode(link->out + link->out_end, frame);
    if (frame->size > 0)
        memcpy(link->out + link->out_end + SSH_FRAME_HEADER_SIZE, payload, frame->size);
    link->out_end += size;
}

/* Under the lock, which it may give up meanwhile. False when that connection is gone. */
static bool
wait_for_room(SshLink *link, uint64_t generation, size_t size)
{
    while (ssh_link_is_current(link, generation) &&
           SSH_LINK_OUT_SIZE - (link->out_end - link->out_start) < SSH_FRAME_HEADER_SIZE + size)
        ssh_link_step(link);
    return ssh_link_is_current(link, generation);
}

static void
send_soon(SshLink *link)
{
    ssh_link_flush(link);
    if (link->out_start < link->out_end && link->leading)
        ssh_link_wake(link); /* it may not be waiting for room to send */
}

void
ssh_link_lost(const SshLink *link, SshRequest *request)
{
    request->state = SSH_LOST;
    request->err = link->reason;
    if (request->err.kind == CAIRN_OK) /* another one is there already */
        cairn_error(&request->err, CAIRN_UNAVAILABLE,
                    "the connection to repository host '%s' ended", link->options.host);
}

static uint32_t
draw_id(SshLink *link)
{
    while (link->next_id == 0 || find_pending(link, link->next_id) != NULL)
        link->next_id++;
    return link->next_id++;
}

void
ssh_link_send(SshLink *link, uint64_t generation, SshRequest *request, SshFrameType type,
              uint32_t handle, const void *payload, size_t size)
{
    CAIRN_ASSERT(size <= SSH_REQUEST_LIMIT);
    ssh_link_lock(link);
    request->state = SSH_PENDING;
    if (!wait_for_room(link, generation, size)) {
        ssh_link_lost(link, request);
        ssh_link_unlock(link);
        return;
    }
    request->id = draw_id(link);
    ssh_link_append(link,
                    &(SshFrame){.size = (uint32_t)size,
                                .type = (uint16_t)type,
                                .request = request->id,
                                .handle = handle},
                    payload);
    request->next = link->pending;
    link->pending = request;
    send_soon(link);
    ssh_link_unlock(link);
}

void
ssh_link_wait(SshLink *link, const SshRequest *request)
{
    ssh_link_lock(link);
    while (request->state == SSH_PENDING)
        ssh_link_step(link);
    ssh_link_unlock(link);
}

bool
ssh_link_post(SshLink *link, uint64_t generation, SshFrameType type, uint32_t handle,
              const void *payload, size_t size)
{
    ssh_link_lock(link);
    const bool posted = wait_for_room(link, generation, size);
    if (posted) {
        ssh_link_append(
            link, &(SshFrame){.size = (uint32_t)size, .type = (uint16_t)type, .handle = handle},
            payload);
        send_soon(link);
    }
    ssh_link_unlock(link);
    return posted;
}
