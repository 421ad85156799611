/*
 * mark-backup REPOSITORY CLUSTER BACKUP expire|keep|release|unexpire
 *
 * Adds a mark to a backup (label, id or "latest"), as retention would; unexpire takes an expiry
 * back in its two steps. Exit code 0, or that of the failure with a message.
 */
#include "common/world.h"
#include "repository/catalog.h"
#include "repository/collect.h"
#include "repository/mark.h"

#include <stdio.h>
#include <string.h>

static bool
mark(Repository *repository, char **arguments, CairnError *err)
{
    SCOPED(Catalog) catalog = catalog_read(repository, arguments[2], err);
    const CatalogBackup *backup = catalog != NULL ? catalog_find(catalog, arguments[3], err) : NULL;
    if (backup == NULL)
        return false;
    if (strcmp(arguments[4], "unexpire") == 0)
        return collect_unexpire(repository, arguments[2], &backup->bid, "test", err);
    for (MarkKind kind = MARK_EXPIRE; kind <= MARK_RELEASE; kind++) {
        if (strcmp(arguments[4], mark_kind_name(kind)) == 0)
            return mark_add(repository, arguments[2], &backup->bid, kind, "test", err);
    }
    return cairn_error(err, CAIRN_USAGE, "'%s' is no mark", arguments[4]);
}

int
main(int argc, char **argv)
{
    CairnError err = {0};
    if (argc != 5) {
        fprintf(stderr, "usage: mark-backup REPOSITORY CLUSTER BACKUP MARK\n");
        return 2;
    }
    const RepositoryConfig config = {.name = "main", .path = argv[1], .encryption = "none"};
    SCOPED(Repository) repository = repository_open(world_real(), &config, &err);
    if (repository == NULL || !mark(repository, argv, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return cairn_error_exit_code(err.kind);
    }
    return 0;
}
