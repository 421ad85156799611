/* What stays open between the files of one process. */
#include "walarchive/push_intern.h"

#include "storage/storage.h"

#include <stdlib.h>

/* A server waits for the answer, and asks again. */
enum { PATIENCE_MS = 45000 };

Repository *
push_repository_open(const World *world, const RepositoryConfig *config, CairnError *err)
{
    Repository *repository = repository_open(world, config, err);

    if (repository != NULL)
        storage_set_patience(repository_storage(repository), PATIENCE_MS);
    return repository;
}

PushKept *
push_kept_new(CairnError *err)
{
    PushKept *kept = calloc(1, sizeof *kept);

    if (kept == NULL)
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
    return kept;
}

void
push_kept_forget(PushKept *kept)
{
    wal_place_close(&kept->place);
    repository_close(kept->repository);
    *kept = (PushKept){0};
}

void
push_kept_free(PushKept *kept)
{
    if (kept == NULL)
        return;
    push_kept_forget(kept);
    free(kept);
}

Repository *
push_kept_repository(PushKept *kept, const World *world, const RepositoryConfig *config,
                     bool *was_open_out, CairnError *err)
{
    if (kept->repository != NULL && !repository_is_current(kept->repository))
        push_kept_forget(kept);
    *was_open_out = kept->repository != NULL;
    if (kept->repository == NULL)
        kept->repository = push_repository_open(world, config, err);
    return kept->repository;
}
