#include "cli/wal_push_each.h"

/* "pgcairn-wal wal push-ahead", before any option. */
enum { FIRST_WORDS = 3, ADDED_WORDS = 2 };

/* NULL: too many words for one more option; then nothing is pushed ahead. */
static char *const *
name_repository(char *const *command, const RepositoryConfig *repository, char **words)
{
    static char option[] = "--repository";
    size_t count = 0;

    for (size_t i = 0; command[i] != NULL; i++) {
        if (i == FIRST_WORDS) {
            words[count++] = option;
            words[count++] = (char *)repository->name;
        }
        if (count + ADDED_WORDS + 1 >= WAL_PUSH_WORDS)
            return NULL;
        words[count++] = command[i];
    }
    words[count] = NULL;
    return words;
}

void
wal_push_each(const WalSettings *settings, const WalPush *push, WalPushRoom *room,
              WalPushAll *all_out)
{
    *all_out = (WalPushAll){.count = settings->repository_count};
    for (size_t i = 0; i < settings->repository_count; i++) {
        WalPush *one = &all_out->pushes[i];

        *one = *push;
        one->repository = settings->repositories[i];
        if (push->batch == NULL || settings->repository_count == 1)
            continue;
        room->batches[i] = *push->batch;
        if (push->batch->command != NULL)
            room->batches[i].command =
                name_repository(push->batch->command, one->repository, room->words[i]);
        one->batch = &room->batches[i];
    }
}
