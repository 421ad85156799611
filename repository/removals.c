#include "repository/removals.h"

#include <stdio.h>

/* What was refused; the first is kept. False when nothing at all may be deleted here. */
static bool
note_denied(Removals *removals, const char *name, const CairnError *denied)
{
    if (removals->denied++ == 0) {
        snprintf(removals->name, sizeof removals->name, "%.512s", name);
        snprintf(removals->why, sizeof removals->why, "%.511s", denied->message);
    }
    return removals->removed > 0 || removals->denied < REMOVALS_DENIED_LIMIT;
}

static bool
give_up(const CairnError *denied, CairnError *err)
{
    *err = *denied;
    return cairn_error_hint(err, "nothing may be deleted from here: run expire and collect where "
                                 "the right to delete is");
}

bool
removals_try(Removals *removals, Storage *storage, const char *name, bool *removed_out,
             CairnError *err)
{
    return removals_try_many(removals, storage, &name, 1, removed_out, err);
}

bool
removals_try_many(Removals *removals, Storage *storage, const char *const *names, size_t count,
                  bool *removed_out, CairnError *err)
{
    CairnError denied = {0};
    bool may_go_on = true;
    if (!storage_remove_many(storage, names, count, removed_out, &denied, err))
        return false;
    for (size_t i = 0; i < count; i++)
        removals->removed += removed_out[i];
    for (size_t i = 0; i < count; i++) {
        if (!removed_out[i])
            may_go_on = note_denied(removals, names[i], &denied) && may_go_on;
    }
    return may_go_on || give_up(&denied, err);
}
