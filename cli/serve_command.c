/* serve: the repository host's side of `type = ssh`. */
#include "cli/commands.h"
#include "cli/session.h"
#include "repository/replica.h"
#include "repository/repository.h"
#include "storage/connect.h"
#include "storage/posix.h"
#include "storage/serve.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { HOST_NAME_SIZE = 256 };

typedef struct {
    CommonOptions common;
    const char *path;
    OptionList clusters;
    bool stdio;
    bool create_only;
} Arguments;

typedef struct {
    const World *world;
    const char *path;
    bool create_only;
} Place;

/* An empty directory is what a file system that is not mounted looks like: a client that comes back
 * would take it for a repository that has nothing, and store there. */
static bool
holds_repository(Storage *storage, const char *path, CairnError *err)
{
    PlaceKind kind;
    if (!replica_look(storage, &kind, err))
        return false;
    return kind != PLACE_EMPTY || cairn_error(err, CAIRN_NOT_FOUND, "'%s' is no repository", path);
}

static Storage *
open_place(void *context, bool create, CairnError *err)
{
    const Place *place = context;
    SCOPED(Storage)
    storage = posix_storage_open(place->world, place->path, create && !place->create_only, err);
    if (storage != NULL && (create || holds_repository(storage, place->path, err)))
        return take(&storage);
    if (err->kind == CAIRN_NOT_FOUND)
        cairn_error_hint(err,
                         "on the repository host: is it mounted? `pgcairn init --no-server` makes "
                         "a new one");
    return NULL;
}

static bool
check_arguments(const Arguments *arguments, CairnError *err)
{
    if (!arguments->stdio) {
        cairn_error(err, CAIRN_USAGE, "serve: over what?");
        return cairn_error_hint(err, "usage: pgcairn serve --stdio; sshd starts it, see "
                                     "docs/repository-host.md");
    }
    if (isatty(STDIN_FILENO) || isatty(STDOUT_FILENO)) {
        cairn_error(err, CAIRN_USAGE, "serve talks to another pgcairn, not to a terminal");
        return cairn_error_hint(err, "sshd starts it; see docs/repository-host.md");
    }
    if (arguments->create_only && arguments->clusters.count == 0) {
        cairn_error(err, CAIRN_USAGE, "serve --create-only: for which cluster?");
        return cairn_error_hint(err, "add --cluster NAME, one or more times");
    }
    /* Alone it would look like a restriction and be none. */
    if (!arguments->create_only && arguments->clusters.count > 0)
        return cairn_error(err, CAIRN_USAGE, "serve: --cluster goes with --create-only");
    for (size_t i = 0; i < arguments->clusters.count; i++) {
        if (!cluster_name_valid(arguments->clusters.values[i]))
            return cairn_error(err, CAIRN_USAGE, "'%.100s' is no name of a cluster",
                               arguments->clusters.values[i]);
    }
    return true;
}

/* --path, else that of the configured repository. */
static bool
choose_path(const Arguments *arguments, const CliSession *session, const char **path_out,
            CairnError *err)
{
    if (arguments->path != NULL) {
        *path_out = arguments->path;
        return arguments->path[0] == '/' ||
               cairn_error(err, CAIRN_USAGE, "--path takes an absolute path");
    }
    if (!storage_is_directory(session->repository)) {
        cairn_error(err, CAIRN_USAGE, "repository '%s' is not a directory of this host",
                    session->repository->name);
        return cairn_error_hint(err, "on the repository host itself it is of type posix");
    }
    *path_out = session->repository->path;
    return storage_config_check(session->repository, err);
}

static bool
serve(const World *world, const Arguments *arguments, CairnError *err)
{
    char host[HOST_NAME_SIZE] = "";
    SCOPED_SESSION session = {0};
    Place place = {.world = world, .create_only = arguments->create_only};
    if (!check_arguments(arguments, err) ||
        (arguments->path == NULL &&
         !cli_session_open(world, &arguments->common, false, &session, err)) ||
        !choose_path(arguments, &session, &place.path, err))
        return false;
    if (gethostname(host, sizeof host - 1) != 0)
        snprintf(host, sizeof host, "the repository host");
    SCOPED(ServePolicy) policy = NULL;
    if (arguments->create_only) {
        policy = serve_policy_new(arguments->clusters.values, arguments->clusters.count, host, err);
        if (policy == NULL)
            return false;
    }
    const ServeOptions options = {
        .world = world,
        .input_fd = STDIN_FILENO,
        .output_fd = STDOUT_FILENO,
        .open = open_place,
        .context = &place,
        .place = place.path,
        .host = host,
        .policy = policy,
        .workers = SERVE_WORKERS,
    };
    return serve_run(&options, err);
}

int
command_serve(const World *world, int argc, char **argv)
{
    Arguments arguments = {0};
    const Option options[] = {
        {"stdio", 0, OPTION_FLAG, &arguments.stdio, NULL, "over standard input and output"},
        {"create-only", 0, OPTION_FLAG, &arguments.create_only, NULL,
         "the other side may add and read, and neither overwrite nor delete"},
        {"cluster", 0, OPTION_LIST, &arguments.clusters, "NAME",
         "with --create-only: for this cluster alone; may be repeated"},
        {"path", 0, OPTION_TEXT, &arguments.path, "DIR",
         "the repository's directory (default: the configured one)"},
        {0},
    };
    const CommandHelp command = {
        .name = "serve",
        .synopsis = "pgcairn serve --stdio [--create-only --cluster NAME]... [options]",
        .summary =
            "Serve the repository of this host to database hosts (type = ssh). sshd starts it; "
            "nobody else does.\nNot to be mixed up with `pgcairn-wal serve`, the archive "
            "module's helper process.",
        .examples =
            "  in ~/.ssh/authorized_keys of the repository's owner, one line for each database "
            "host:\n"
            "  command=\"pgcairn serve --stdio --create-only --cluster main\",restrict "
            "ssh-ed25519 AAAA... postgres@db1\n",
        .options = options,
    };
    CairnError err = {0};
    int code;
    if (!cli_parse(&command, &arguments.common, argc, argv, NULL, &code))
        return code;
    return serve(world, &arguments, &err) ? 0 : cli_failed(&err);
}
