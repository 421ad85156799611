/*
 * pgcairn-wal: what PostgreSQL calls for every WAL file. Small on purpose: it starts in a few
 * milliseconds, and links neither libpq nor anything of the network.
 */
#include "cli/commands.h"
#include "common/libcrypto.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#ifndef PGCAIRN_VERSION
#define PGCAIRN_VERSION "unversioned"
#endif

int
command_wal_receive(const World *world, int argc, char **argv)
{
    (void)world, (void)argc, (void)argv;
    fprintf(stderr, "ERROR: receive needs the replication protocol, which this program has not\n"
                    "HINT: pgcairn wal receive\n");
    return 1;
}

int
main(int argc, char **argv)
{
    if (argc > 1 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "version") == 0)) {
        printf("pgcairn-wal %s\n", PGCAIRN_VERSION);
        return 0;
    }
    /* What we make is readable to no others, whatever umask the server has. */
    umask(027);
    libcrypto_skip_config();
    return wal_command(world_real(), argc, argv);
}
