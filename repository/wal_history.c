#include "repository/wal_history.h"

#include "repository/wal_object.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

void
wal_history_object(const WalStore *store, uint32_t timeline, char name[STORAGE_NAME_LIMIT])
{
    snprintf(name, STORAGE_NAME_LIMIT, "%.400s/%08" PRIX32 "/history", store->prefix, timeline);
}

bool
wal_history_is_unreadable(CairnErrorKind kind)
{
    return kind == CAIRN_CORRUPT || kind == CAIRN_MISMATCH || kind == CAIRN_UNSUPPORTED ||
           kind == CAIRN_SEALED;
}

TimelineHistory *
wal_history_read(WalStore *store, uint32_t timeline, CairnError *err)
{
    size_t size = 0;
    SCOPED_MEMORY TimelineHistory *history = malloc(sizeof *history);

    if (history == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    if (timeline == 1) {
        timeline_history_root(timeline, history);
        return take(&history);
    }
    SCOPED_MEMORY char *text = wal_store_history(store, timeline, &size, err);
    if (text == NULL)
        return NULL;
    if (!timeline_history_parse(timeline, text, size, history, err)) {
        char object[STORAGE_NAME_LIMIT];
        wal_history_object(store, timeline, object);
        cairn_error_wrap(err, "object '%s'", object);
        return NULL;
    }
    return take(&history);
}

bool
wal_history_find_trouble(WalStore *store, WalHistoryTrouble *trouble_out, CairnError *err)
{
    SCOPED_MEMORY uint32_t *timelines = NULL;
    size_t count = 0;
    WalHistoryTrouble trouble = {0};

    if (!wal_store_timelines(store, &timelines, &count, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        CairnError problem = {0};
        SCOPED_MEMORY TimelineHistory *history = wal_history_read(store, timelines[i], &problem);
        if (history != NULL || problem.kind == CAIRN_NOT_FOUND)
            continue;
        if (!wal_history_is_unreadable(problem.kind)) {
            *err = problem;
            return false;
        }
        if (trouble.count++ == 0) {
            trouble.timeline = timelines[i];
            trouble.problem = problem;
            wal_history_object(store, timelines[i], trouble.object);
        }
    }
    *trouble_out = trouble;
    return true;
}
