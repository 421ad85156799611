#include "tests/unit/support/ssh_liar.h"

#include "storage/ssh_protocol.h"

#include <stddef.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PATIENCE_MS = 1500, HEARD_SIZE = 65536 };

static void
say(int fd, const void *bytes, size_t size)
{
    /* A client that is gone hears no more. */
    for (size_t at = 0; at < size;) {
        const ssize_t sent = send(fd, (const uint8_t *)bytes + at, size - at, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        at += (size_t)sent;
    }
}

static void
say_welcome(int fd)
{
    uint8_t header[SSH_FRAME_HEADER_SIZE];
    SCOPED_BYTES ByteWriter welcome = {0};
    ssh_welcome_encode(&welcome,
                       &(SshWelcome){.version = SSH_VERSION, .place = "/x", .host = "liar"});
    ssh_frame_encode(header, &(SshFrame){.size = (uint32_t)welcome.size, .type = SSH_WELCOME});
    say(fd, header, sizeof header);
    say(fd, welcome.data, welcome.size);
}

/* Bytes of the next frame; all that is left where there is none. */
static size_t
next_frame_size(const uint8_t *bytes, size_t size)
{
    SshFrame frame;
    if (size < SSH_FRAME_HEADER_SIZE || !ssh_frame_decode(bytes, &frame) ||
        frame.size > size - SSH_FRAME_HEADER_SIZE)
        return size;
    return SSH_FRAME_HEADER_SIZE + (size_t)frame.size;
}

static void *
lie(void *context)
{
    SshLiar *liar = context;
    static _Thread_local uint8_t heard[HEARD_SIZE];
    size_t at = 0;
    bool listens = true;
    if (liar->welcomes) {
        listens = recv(liar->fd, heard, sizeof heard, 0) > 0;
        say_welcome(liar->fd);
    }
    while (at < liar->size && listens) {
        listens = recv(liar->fd, heard, sizeof heard, 0) > 0;
        /* All entries of a listing in one breath. */
        bool more = true;
        while (more && at < liar->size) {
            const size_t size = next_frame_size(liar->bytes + at, liar->size - at);
            more = size > SSH_FRAME_HEADER_SIZE && get_u16(liar->bytes + at + 4) == SSH_ENTRIES;
            say(liar->fd, liar->bytes + at, size);
            at += size;
        }
    }
    if (!liar->silent)
        shutdown(liar->fd, SHUT_WR);
    while (recv(liar->fd, heard, sizeof heard, 0) > 0)
        atomic_store(&liar->is_overdue, liar->silent);
    return NULL;
}

static bool
start(void *context, SshChild *child_out, CairnError *err)
{
    SshLiar *liar = context;
    int sockets[2];
    if (liar->started)
        return cairn_error(err, CAIRN_UNAVAILABLE, "there is but one connection");
    CAIRN_ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
    liar->started = true;
    liar->fd = sockets[1];
    CAIRN_ASSERT(pthread_create(&liar->thread, NULL, lie, liar) == 0);
    *child_out = SSH_CHILD_NONE;
    child_out->socket_fd = sockets[0];
    return true;
}

static int64_t
liar_ns(const Clock *clock)
{
    SshLiar *liar = (SshLiar *)((uintptr_t)clock - offsetof(SshLiar, clock));
    if (atomic_load(&liar->is_overdue))
        atomic_fetch_add(&liar->now_ns, INT64_C(1000000000));
    return atomic_load(&liar->now_ns);
}

Storage *
ssh_liar_connect(SshLiar *liar, CairnError *err)
{
    liar->clock = *world_real()->clock;
    liar->clock.monotonic_ns = liar_ns;
    liar->world = *world_real();
    liar->world.clock = &liar->clock;
    const SshStorageOptions options = {.host = "liar",
                                       .start = start,
                                       .context = liar,
                                       .connect_ms = PATIENCE_MS,
                                       .stall_ms = PATIENCE_MS,
                                       .reconnect_ms = 0};
    return ssh_storage_over(liar->by_real_clock ? world_real() : &liar->world, &options, err);
}

void
ssh_liar_end(SshLiar *liar)
{
    if (!liar->started)
        return;
    shutdown(liar->fd, SHUT_RDWR);
    pthread_join(liar->thread, NULL);
    close(liar->fd);
}
