/* A client that says anything: the first byte chooses whether a right hello comes first, and
 * whether the connection is create-only. */
#include "storage/serve.h"
#include "storage/ssh_protocol.h"
#include "tests/unit/support/memory_storage.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SIZE_LIMIT = 60000, WITH_HELLO = 1, RESTRICTED = 2 }; /* what a pipe holds */

static const char *const CLUSTERS[] = {"main"};

static Storage *
open_memory(void *context, bool create, CairnError *err)
{
    (void)create;
    Storage *storage = memory_storage_new();
    CAIRN_ASSERT(storage_put(storage, "c/main/w/a", "abc", 3, err));
    CAIRN_ASSERT(storage_put(storage, "c/other/w/a", "abc", 3, err));
    *(Storage **)context = storage;
    return storage;
}

static void
feed(int fd, const void *data, size_t size)
{
    CAIRN_ASSERT(write(fd, data, size) == (ssize_t)size);
}

static void
feed_hello(int fd)
{
    uint8_t header[SSH_FRAME_HEADER_SIZE];
    SCOPED_BYTES ByteWriter hello = {0};
    ssh_hello_encode(&hello, &(SshHello){.lowest = 1, .highest = 1, .program = "fuzz"});
    ssh_frame_encode(header, &(SshFrame){.size = (uint32_t)hello.size, .type = SSH_HELLO});
    feed(fd, header, sizeof header);
    feed(fd, hello.data, hello.size);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int pipes[2];
    CairnError err = {0};
    Storage *storage = NULL;
    if (size < 1 || size > SIZE_LIMIT)
        return 0;
    signal(SIGPIPE, SIG_IGN);
    CAIRN_ASSERT(pipe2(pipes, O_CLOEXEC) == 0);
    const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    CAIRN_ASSERT(nowhere >= 0);
    if ((data[0] & WITH_HELLO) != 0)
        feed_hello(pipes[1]);
    feed(pipes[1], data + 1, size - 1);
    close(pipes[1]);

    SCOPED(ServePolicy) policy = NULL;
    if ((data[0] & RESTRICTED) != 0) {
        policy = serve_policy_new(CLUSTERS, 1, "fuzz", &err);
        CAIRN_ASSERT(policy != NULL);
    }
    const ServeOptions options = {.world = world_real(),
                                  .input_fd = pipes[0],
                                  .output_fd = nowhere,
                                  .open = open_memory,
                                  .context = &storage,
                                  .place = "memory",
                                  .host = "fuzz",
                                  .policy = policy};
    const bool ended = serve_run(&options, &err);
    CAIRN_ASSERT(ended == (err.kind == CAIRN_OK));
    close(pipes[0]);
    close(nowhere);
    return 0;
}
