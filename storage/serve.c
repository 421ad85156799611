#include "storage/serve.h"

#include "common/cancel.h"
#include "common/queue.h"
#include "storage/serve_intern.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Requests that wait for a worker; more stay in the pipe. */
enum { QUEUE_CAPACITY = 64 };

enum { HELLO_WAIT_S = 20 };

/* The threads beside the one that reads frames. */
typedef struct {
    Serve *serve;
    Queue *queue;
    pthread_t workers[SERVE_WORKERS_LIMIT];
    int worker_count;
    pthread_t ticker;
    bool has_ticker;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool ending;
} Crew;

/* ---- bytes ---- */

typedef enum { RECEIVED, RECEIVED_END, RECEIVED_FAILED } Received;

/* False once the time for the hello is over: what else sshd was told to start may say nothing that
 * is one, and wait for an answer. */
static bool
wait_for_hello(const Serve *serve, CairnError *err)
{
    const Clock *clock = serve->options->world->clock;
    struct pollfd input = {.fd = serve->options->input_fd, .events = POLLIN};
    while (serve->hello_until_ns != 0) {
        const int64_t left_ns = serve->hello_until_ns - clock->monotonic_ns(clock);
        if (left_ns <= 0)
            return cairn_error(err, CAIRN_UNAVAILABLE, "no pgcairn said hello");
        if (poll(&input, 1, (int)(left_ns / 1000000) + 1) > 0)
            break;
        if (!cancel_check(err))
            return false;
    }
    return true;
}

/* Exactly size bytes. END only before the first one of a frame (at_start). */
static Received
receive(const Serve *serve, void *data, size_t size, bool at_start, CairnError *err)
{
    size_t done = 0;
    while (done < size) {
        if (!wait_for_hello(serve, err))
            return RECEIVED_FAILED;
        const ssize_t count = read(serve->options->input_fd, (char *)data + done, size - done);
        if (count > 0) {
            done += (size_t)count;
            continue;
        }
        if (count == 0) {
            if (at_start && done == 0)
                return RECEIVED_END;
            cairn_error(err, CAIRN_UNAVAILABLE, "the client was cut off");
            return RECEIVED_FAILED;
        }
        if (errno != EINTR) {
            cairn_error_errno(err, "unable to read from the client");
            return RECEIVED_FAILED;
        }
        if (!cancel_check(err))
            return RECEIVED_FAILED;
    }
    return RECEIVED;
}

/* Both parts, whole; false when nobody reads. */
static bool
send_all(int fd, struct iovec *parts, int count)
{
    while (count > 0) {
        const ssize_t written = writev(fd, parts, count);
        if (written < 0) {
            if (errno == EINTR)
                continue;
            return false;
        }
        size_t left = (size_t)written;
        while (count > 0 && left >= parts->iov_len) {
            left -= parts->iov_len;
            parts++;
            count--;
        }
        if (count > 0) {
            parts->iov_base = (char *)parts->iov_base + left;
            parts->iov_len -= left;
        }
    }
    return true;
}

void
serve_answer(Serve *serve, SshFrameType type, uint32_t request, uint32_t handle,
             const void *payload, size_t size)
{
    uint8_t header[SSH_FRAME_HEADER_SIZE];
    ssh_frame_encode(header, &(SshFrame){.size = (uint32_t)size,
                                         .type = (uint16_t)type,
                                         .request = request,
                                         .handle = handle});
    struct iovec parts[2] = {{header, sizeof header}, {(void *)(uintptr_t)payload, size}};
    pthread_mutex_lock(&serve->output_lock);
    if (!atomic_load(&serve->output_failed) &&
        !send_all(serve->options->output_fd, parts, size > 0 ? 2 : 1))
        atomic_store(&serve->output_failed, true);
    pthread_mutex_unlock(&serve->output_lock);
}

void
serve_fail(Serve *serve, SshFrameType type, uint32_t request, uint32_t handle,
           const CairnError *err)
{
    SCOPED_BYTES ByteWriter payload = {0};
    ssh_error_encode(&payload, err);
    /* Out of memory for a few hundred bytes: then the connection ends, which is an answer too. */
    if (payload.failed)
        atomic_store(&serve->output_failed, true);
    else
        serve_answer(serve, type, request, handle, payload.data, payload.size);
}

/* ---- threads ---- */

static void
run_counted(Serve *serve, const ServeRequest *request)
{
    serve_request_run(serve, request);
    atomic_fetch_sub(&serve->under_way, 1);
}

static void *
work(void *context)
{
    Crew *crew = context;
    ServeRequest *request;
    while ((request = queue_pop(crew->queue)) != NULL) {
        run_counted(crew->serve, request);
        free(request);
    }
    return NULL;
}

static void *
tick(void *context)
{
    Crew *crew = context;
    struct timespec due;
    clock_gettime(CLOCK_MONOTONIC, &due);
    pthread_mutex_lock(&crew->lock);
    while (!crew->ending) {
        due.tv_sec += SSH_ALIVE_S;
        while (!crew->ending && pthread_cond_timedwait(&crew->wake, &crew->lock, &due) != ETIMEDOUT)
            continue;
        if (!crew->ending && atomic_load(&crew->serve->under_way) > 0) {
            /* May wait for a client that does not read: not under the lock that the end takes. */
            pthread_mutex_unlock(&crew->lock);
            serve_answer(crew->serve, SSH_ALIVE, 0, 0, NULL, 0);
            pthread_mutex_lock(&crew->lock);
        }
    }
    pthread_mutex_unlock(&crew->lock);
    return NULL;
}

static bool
crew_start(Crew *crew, Serve *serve, CairnError *err)
{
    crew->serve = serve;
    if (serve->options->workers == 0)
        return true;
    CAIRN_ASSERT(serve->options->workers <= SERVE_WORKERS_LIMIT);
    crew->queue = queue_new(QUEUE_CAPACITY, free, err);
    if (crew->queue == NULL)
        return false;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&crew->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&crew->lock, NULL);
    for (int i = 0; i < serve->options->workers; i++) {
        if (pthread_create(&crew->workers[i], NULL, work, crew) != 0)
            return cairn_error(err, CAIRN_INTERNAL, "unable to start a thread");
        crew->worker_count++;
    }
    crew->has_ticker = pthread_create(&crew->ticker, NULL, tick, crew) == 0;
    return crew->has_ticker || cairn_error(err, CAIRN_INTERNAL, "unable to start a thread");
}

/* Requests that were admitted are carried out: a commit on its way is worth finishing. */
static void
crew_end(Crew *crew)
{
    if (crew->queue == NULL)
        return;
    queue_close(crew->queue);
    for (int i = 0; i < crew->worker_count; i++)
        pthread_join(crew->workers[i], NULL);
    if (crew->has_ticker) {
        pthread_mutex_lock(&crew->lock);
        crew->ending = true;
        pthread_cond_signal(&crew->wake);
        pthread_mutex_unlock(&crew->lock);
        pthread_join(crew->ticker, NULL);
    }
    queue_free(crew->queue);
    pthread_cond_destroy(&crew->wake);
    pthread_mutex_destroy(&crew->lock);
}

static bool
hand_over(Crew *crew, const SshFrame *frame, const uint8_t *payload, CairnError *err)
{
    if (frame->size > SSH_REQUEST_LIMIT)
        return cairn_error(err, CAIRN_UNAVAILABLE, "the client sent a request that is too large");
    ServeRequest *request = malloc(sizeof *request);
    if (request == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    request->frame = *frame;
    memcpy(request->payload, payload, frame->size);
    if (!serve_request_admit(crew->serve, request)) {
        free(request);
        return cairn_error(err, CAIRN_UNAVAILABLE,
                           "the client broke the protocol: request of type %u, handle %u",
                           frame->type, frame->handle);
    }
    atomic_fetch_add(&crew->serve->under_way, 1);
    if (crew->queue == NULL) {
        run_counted(crew->serve, request);
        free(request);
        return true;
    }
    const bool pushed = queue_push(crew->queue, request);
    CAIRN_ASSERT(pushed); /* only this thread closes it */
    return true;
}

/* ---- frames ---- */

static Received
receive_frame(Serve *serve, SshFrame *frame_out, uint8_t *payload, CairnError *err)
{
    uint8_t header[SSH_FRAME_HEADER_SIZE];
    const Received received = receive(serve, header, sizeof header, true, err);
    if (received != RECEIVED)
        return received;
    if (!ssh_frame_decode(header, frame_out)) {
        cairn_error(err, CAIRN_UNAVAILABLE, "the client does not speak this protocol");
        return RECEIVED_FAILED;
    }
    return receive(serve, payload, frame_out->size, false, err);
}

static bool
obey_unanswered(Serve *serve, const SshFrame *frame, const uint8_t *payload, CairnError *err)
{
    bool obeyed = false;
    atomic_fetch_add(&serve->under_way, 1);
    if (frame->type == SSH_WRITE)
        obeyed = serve_write(serve, frame, payload);
    else if (frame->type == SSH_ABANDON)
        obeyed = serve_abandon(serve, frame);
    else
        obeyed = serve_close(serve, frame);
    atomic_fetch_sub(&serve->under_way, 1);
    return obeyed || cairn_error(err, CAIRN_UNAVAILABLE,
                                 "the client broke the protocol: type %u for handle %u",
                                 frame->type, frame->handle);
}

static bool
serve_frames(Crew *crew, uint8_t *payload, CairnError *err)
{
    Serve *serve = crew->serve;
    while (!atomic_load(&serve->output_failed)) {
        SshFrame frame;
        switch (receive_frame(serve, &frame, payload, err)) {
        case RECEIVED_END:
            return true;
        case RECEIVED_FAILED:
            return false;
        case RECEIVED:
            break;
        }
        const bool unanswered =
            frame.type == SSH_WRITE || frame.type == SSH_ABANDON || frame.type == SSH_CLOSE;
        if (!(unanswered ? obey_unanswered(serve, &frame, payload, err)
                         : hand_over(crew, &frame, payload, err)))
            return false;
    }
    return cairn_error(err, CAIRN_UNAVAILABLE, "the client does not listen any more");
}

/* ---- hello ---- */

static bool
welcome(Serve *serve, const SshHello *hello, CairnError *err)
{
    const ServeOptions *options = serve->options;
    if (hello->lowest > SSH_VERSION || hello->highest < SSH_VERSION) {
        cairn_error(err, CAIRN_UNSUPPORTED,
                    "the repository host speaks version %d of the protocol, the client %u to %u",
                    SSH_VERSION, hello->lowest, hello->highest);
        return cairn_error_hint(err, "install the same pgcairn on both hosts");
    }
    serve->storage = options->open(options->context, hello->create, err);
    if (serve->storage == NULL)
        return false;
    SshWelcome answer = {.version = SSH_VERSION, .create_only = options->policy != NULL};
    snprintf(answer.place, sizeof answer.place, "%s", options->place);
    snprintf(answer.host, sizeof answer.host, "%s", options->host);
    snprintf(answer.program, sizeof answer.program, "pgcairn %s", PGCAIRN_VERSION);
    answer.has_identity = hello->asks_identity;
    if (answer.has_identity)
        serve_identity(serve->storage, answer.identity);
    SCOPED_BYTES ByteWriter payload = {0};
    ssh_welcome_encode(&payload, &answer);
    if (!byte_writer_check(&payload, err))
        return false;
    serve_answer(serve, SSH_WELCOME, 0, 0, payload.data, payload.size);
    return true;
}

/* *said_hello_out: a client of ours is there, whatever becomes of it. */
static bool
greet(Serve *serve, uint8_t *payload, bool *ended_out, CairnError *err)
{
    SshFrame frame;
    SshHello hello;
    const Clock *clock = serve->options->world->clock;
    serve->hello_until_ns = clock->monotonic_ns(clock) + HELLO_WAIT_S * INT64_C(1000000000);
    const Received received = receive_frame(serve, &frame, payload, err);
    serve->hello_until_ns = 0;
    *ended_out = received == RECEIVED_END;
    if (received == RECEIVED_END)
        return true;
    if (received == RECEIVED_FAILED)
        return false;
    if (frame.type != SSH_HELLO || frame.size > SSH_PAYLOAD_LIMIT ||
        !ssh_hello_decode(payload, frame.size, &hello))
        return cairn_error(err, CAIRN_UNAVAILABLE, "the client does not speak this protocol");
    if (welcome(serve, &hello, err))
        return true;
    serve_fail(serve, SSH_FAILED, 0, 0, err);
    return false;
}

/* ---- the whole ---- */

static void
serve_free(Serve *serve)
{
    for (size_t i = 0; i < SSH_WRITER_LIMIT; i++) {
        storage_writer_free(serve->writers[i].writer);
        free(serve->writers[i].name);
    }
    for (size_t i = 0; i < SSH_READER_LIMIT; i++) {
        storage_reader_free(serve->readers[i].reader);
        pthread_mutex_destroy(&serve->readers[i].lock);
    }
    storage_close(serve->storage);
    pthread_mutex_destroy(&serve->slots_lock);
    pthread_mutex_destroy(&serve->output_lock);
    free(serve);
}
SCOPED_TYPE(Serve, serve_free);

static Serve *
serve_new(const ServeOptions *options)
{
    Serve *serve = calloc(1, sizeof *serve);
    if (serve == NULL)
        return NULL;
    serve->options = options;
    pthread_mutex_init(&serve->slots_lock, NULL);
    pthread_mutex_init(&serve->output_lock, NULL);
    for (size_t i = 0; i < SSH_READER_LIMIT; i++)
        pthread_mutex_init(&serve->readers[i].lock, NULL);
    return serve;
}

bool
serve_run(const ServeOptions *options, CairnError *err)
{
    SCOPED(Serve) serve = serve_new(options);
    SCOPED_MEMORY uint8_t *payload = malloc(SSH_PAYLOAD_LIMIT);
    bool ended = false;
    if (serve == NULL || payload == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!greet(serve, payload, &ended, err))
        return false;
    if (ended)
        return true;
    Crew crew = {0};
    const bool served = crew_start(&crew, serve, err) && serve_frames(&crew, payload, err);
    crew_end(&crew);
    return served;
}
