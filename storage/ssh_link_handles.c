/* Which numbers of writers and readers are taken, and which writers have failed over there. */
#include "storage/ssh_link_intern.h"

#include <string.h>

void
ssh_link_forget_handles(SshLink *link)
{
    for (size_t i = 0; i < SSH_WRITER_LIMIT; i++) {
        free(link->writer_failed[i]);
        link->writer_failed[i] = NULL;
    }
    memset(link->writer_taken, 0, sizeof link->writer_taken);
    memset(link->reader_taken, 0, sizeof link->reader_taken);
}

static bool
take_handle(SshLink *link, uint64_t generation, bool *taken, uint32_t limit, uint32_t *handle_out)
{
    bool found = false;
    ssh_link_lock(link);
    for (uint32_t i = 0; i < limit && !found && ssh_link_is_current(link, generation); i++) {
        if (taken[i])
            continue;
        taken[i] = found = true;
        *handle_out = i;
    }
    ssh_link_unlock(link);
    return found;
}

static void
return_handle(SshLink *link, uint64_t generation, bool *taken, uint32_t handle)
{
    ssh_link_lock(link);
    if (link->generation == generation)
        taken[handle] = false;
    ssh_link_unlock(link);
}

bool
ssh_link_take_writer(SshLink *link, uint64_t generation, uint32_t *handle_out)
{
    return take_handle(link, generation, link->writer_taken, SSH_WRITER_LIMIT, handle_out);
}

void
ssh_link_return_writer(SshLink *link, uint64_t generation, uint32_t handle)
{
    return_handle(link, generation, link->writer_taken, handle);
}

bool
ssh_link_take_reader(SshLink *link, uint64_t generation, uint32_t *handle_out)
{
    return take_handle(link, generation, link->reader_taken, SSH_READER_LIMIT, handle_out);
}

void
ssh_link_return_reader(SshLink *link, uint64_t generation, uint32_t handle)
{
    return_handle(link, generation, link->reader_taken, handle);
}

void
ssh_link_writer_opened(SshLink *link, uint64_t generation, uint32_t handle)
{
    ssh_link_lock(link);
    if (link->generation == generation) {
        free(link->writer_failed[handle]);
        link->writer_failed[handle] = NULL;
    }
    ssh_link_unlock(link);
}

bool
ssh_link_writer_failed(SshLink *link, uint64_t generation, uint32_t handle, CairnError *err)
{
    ssh_link_lock(link);
    const bool failed = link->generation == generation && link->writer_failed[handle] != NULL;
    if (failed)
        *err = *link->writer_failed[handle];
    ssh_link_unlock(link);
    return failed;
}
