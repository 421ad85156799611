#include "tests/unit/support/s3_liar.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

/* A request with its body; false at the end of the connection. */
static bool
read_request(int fd, char text[LIAR_REQUEST_SIZE])
{
    size_t size = 0;
    for (;;) {
        const ssize_t got = read(fd, text + size, LIAR_REQUEST_SIZE - 1 - size);
        if (got <= 0)
            return false;
        size += (size_t)got;
        text[size] = '\0';
        const char *end = strstr(text, "\r\n\r\n");
        if (end == NULL)
            continue;
        const char *length = strcasestr(text, "content-length: ");
        const size_t body = length != NULL ? strtoul(length + 16, NULL, 10) : 0;
        if (size >= (size_t)(end + 4 - text) + body)
            return true;
    }
}

static void
answer_one(Liar *liar, int fd)
{
    char request[LIAR_REQUEST_SIZE], head[256];
    if (!read_request(fd, request))
        return;
    const size_t index = liar->asked++;
    const LiarAnswer *answer =
        index < LIAR_REQUESTS_LIMIT ? &liar->answers[index % liar->count] : &liar->last;
    if (index < LIAR_REQUESTS_LIMIT)
        memcpy(liar->requests[index], request, sizeof request);
    const int size = snprintf(head, sizeof head,
                              "HTTP/1.1 %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
                              answer->status, strlen(answer->body));
    if (write(fd, head, (size_t)size) != size ||
        write(fd, answer->body, strlen(answer->body)) != (ssize_t)strlen(answer->body))
        return;
}

static void *
liar_main(void *context)
{
    Liar *liar = context;
    for (int fd; (fd = accept(liar->listener, NULL, NULL)) >= 0; close(fd))
        answer_one(liar, fd);
    return NULL;
}

void
liar_start(Liar *liar)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    CairnError err = {0};
    liar->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(liar->listener >= 0);
    assert_int_equal(bind(liar->listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(liar->listener, (struct sockaddr *)&address, &size), 0);
    assert_int_equal(listen(liar->listener, 8), 0);
    snprintf(liar->endpoint, sizeof liar->endpoint, "http://127.0.0.1:%d", ntohs(address.sin_port));
    assert_int_equal(pthread_create(&liar->thread, NULL, liar_main, liar), 0);
    const RepositoryConfig config = {
        .name = "main",
        .type = "s3",
        .s3 = {.endpoint = liar->endpoint,
               .bucket = "bucket",
               .prefix = "ours",
               .plain_http = "allowed",
               .access_key = liar->access_key_file == NULL ? "key" : NULL,
               .access_key_file = liar->access_key_file,
               .secret_key = "secret",
               .lock_mode = liar->lock_mode,
               .lock_days = liar->lock_days}};
    liar->storage = s3_storage_open(world_real(), &config, &err);
    assert_non_null(liar->storage);
}

void
liar_end(Liar *liar)
{
    storage_close(liar->storage);
    shutdown(liar->listener, SHUT_RDWR);
    pthread_join(liar->thread, NULL);
    close(liar->listener);
}
