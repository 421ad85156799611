/*
 * What system tests of push and get need of a repository, without the big program:
 *
 *   wal-repository init REPOSITORY CLUSTER PGDATA    make it, and make the server known
 *   wal-repository verify REPOSITORY CLUSTER PGDATA NAME...   every byte of stored WAL files
 */
#include "common/file.h"
#include "common/log.h"
#include "postgres/control.h"
#include "repository/incarnation.h"
#include "repository/wal_store.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static bool
read_incarnation(const World *world, const char *pgdata, Incarnation *incarnation_out,
                 CairnError *err)
{
    ControlFile control;
    size_t size;
    SCOPED_FD fd = open(pgdata, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return cairn_error_errno(err, "unable to open '%s'", pgdata);
    SCOPED_MEMORY char *data =
        file_read_all(world, fd, "global/pg_control", CONTROL_FILE_SIZE, &size, err);
    if (data == NULL || !control_parse(data, size, &control, err))
        return false;
    *incarnation_out = (Incarnation){
        .system_id = control.system_id,
        .major = control.major,
        .wal_segment_size = control.wal_segment_size,
        .data_checksums = control.data_checksum_version != 0,
    };
    return true;
}

static bool
run(int argc, char **argv, CairnError *err)
{
    const World *world = world_real();
    const RepositoryConfig config = {.name = "main", .path = argv[2], .encryption = "none"};
    Incarnation incarnation;

    if (!read_incarnation(world, argv[4], &incarnation, err))
        return false;
    if (strcmp(argv[1], "init") == 0 && !repository_init(world, &config, err))
        return false;
    SCOPED(Repository) repository = repository_open(world, &config, err);
    if (repository == NULL)
        return false;
    if (strcmp(argv[1], "init") == 0)
        return incarnation_record(repository, argv[3], &incarnation, err);

    SCOPED(WalStore) store = wal_store_open(repository, argv[3], &incarnation, err);
    if (store == NULL)
        return false;
    for (int i = 5; i < argc; i++) {
        if (!wal_store_verify(store, argv[i], err))
            return false;
    }
    return true;
}

int
main(int argc, char **argv)
{
    CairnError err = {0};

    if (argc < 5 || (strcmp(argv[1], "init") != 0 && strcmp(argv[1], "verify") != 0)) {
        fprintf(stderr, "usage: wal-repository init|verify REPOSITORY CLUSTER PGDATA [NAME...]\n");
        return 2;
    }
    if (!run(argc, argv, &err)) {
        log_error(&err);
        return 1;
    }
    return 0;
}
