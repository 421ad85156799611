/* HTTP exchanges with a server in a thread, whose every byte the test times. */
#include "storage/s3/http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { EXCHANGES = 3, WAIT_SECONDS = 20, TIMEOUT_MS = 60000 };

static sem_t acknowledging;

/* In libc's place: whoever wants acknowledgements at once is counted. Time would tell it too, but
 * only on a machine that has nothing else to do. */
int
setsockopt(int fd, int level, int optname, const void *optval, socklen_t optlen)
{
    if (level == IPPROTO_TCP && optname == TCP_QUICKACK && *(const int *)optval != 0)
        sem_post(&acknowledging);
    return (int)syscall(SYS_setsockopt, fd, level, optname, optval, optlen);
}

typedef struct {
    int listener;
    unsigned connections;
    unsigned acknowledged; /* answers whose headers were, before their body was sent */
} Server;

static bool
await_acknowledgement(void)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_SECONDS;
    return sem_timedwait(&acknowledging, &until) == 0;
}

/* A server with Nagle's algorithm: the body waits until the headers are acknowledged. */
static bool
answer(Server *server, int fd)
{
    static const char HEAD[] = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", BODY[] = "body";
    char request[4096];
    size_t size = 0;
    do {
        const ssize_t got = read(fd, request + size, sizeof request - 1 - size);
        if (got <= 0)
            return false;
        size += (size_t)got;
        request[size] = '\0';
    } while (strstr(request, "\r\n\r\n") == NULL);
    /* What curl asked for before there was anything to acknowledge does not count. */
    while (sem_trywait(&acknowledging) == 0)
        continue;
    if (write(fd, HEAD, sizeof HEAD - 1) != sizeof HEAD - 1)
        return false;
    server->acknowledged += await_acknowledgement();
    return write(fd, BODY, sizeof BODY - 1) == sizeof BODY - 1;
}

static void *
serve(void *context)
{
    Server *server = context;
    for (int fd; (fd = accept(server->listener, NULL, NULL)) >= 0; close(fd)) {
        server->connections++;
        while (answer(server, fd))
            continue;
    }
    return NULL;
}

static int
listen_somewhere(Server *server)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(server->listener >= 0);
    assert_int_equal(bind(server->listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(server->listener, (struct sockaddr *)&address, &size), 0);
    assert_int_equal(listen(server->listener, 8), 0);
    return ntohs(address.sin_port);
}

static void
exchange(HttpPool *pool, const char *url)
{
    CairnError err = {0};
    SCOPED_HTTP_ANSWER HttpAnswer got = {0};
    const HttpRequest request = {.method = "GET",
                                 .url = url,
                                 .body_limit = 100,
                                 .connect_ms = TIMEOUT_MS,
                                 .stall_ms = TIMEOUT_MS,
                                 .total_ms = TIMEOUT_MS};
    if (!http_exchange(pool, &request, &got, &err))
        fail_msg("%s", err.message);
    assert_int_equal(got.status, 200);
    assert_string_equal(got.body, "body");
}

/* Else each small answer of a server that sends its headers first takes 40 ms: what Linux keeps an
 * acknowledgement back. On a connection that was used before it does so again. */
static void
test_headers_are_acknowledged_before_the_body_comes(void **state)
{
    (void)state;
    CairnError err = {0};
    Server server = {0};
    pthread_t thread;
    char url[64];
    assert_int_equal(sem_init(&acknowledging, 0, 0), 0);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/object", listen_somewhere(&server));
    assert_int_equal(pthread_create(&thread, NULL, serve, &server), 0);
    HttpPool *pool =
        http_pool_new(world_real(), &(HttpPoolOptions){.plain_http = true, .limit = 1}, &err);
    assert_non_null(pool);
    for (int i = 0; i < EXCHANGES; i++)
        exchange(pool, url);
    http_pool_free(pool);
    shutdown(server.listener, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(server.listener);
    assert_int_equal(server.connections, 1);
    assert_int_equal(server.acknowledged, EXCHANGES);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers_are_acknowledged_before_the_body_comes),
    };
    return cmocka_run_group_tests_name("s3_http", tests, NULL, NULL);
}
