/*
 * Tables and their files: which names to believe, and which of what is found answers the question.
 */
#include "restore/targets_intern.h"

#include "common/log.h"

#include <stdio.h>

/* Does a moment of this kind answer the question? */
static bool
answers(TargetsQuestion question, MomentKind kind)
{
    switch (question) {
    case TARGETS_BEFORE_DROP:
        return kind == MOMENT_DROPPED || kind == MOMENT_DATABASE_DROPPED;
    case TARGETS_BEFORE_TRUNCATE:
        return kind == MOMENT_REWRITTEN || kind == MOMENT_TRUNCATED;
    default:
        return true;
    }
}

static bool
has_answer(const TargetsSearch *search)
{
    for (size_t i = 0; i < search->result->count; i++) {
        if (answers(search->options->question, search->result->moments[i].kind))
            return true;
    }
    return false;
}

/* Leaves what answers; where nothing does, all, and says so. */
static void
keep_answers(TargetsSearch *search)
{
    Targets *result = search->result;
    const TargetsQuestion question = search->options->question;
    size_t kept = 0;

    for (size_t i = 0; i < result->count; i++)
        kept += answers(question, result->moments[i].kind) ? 1 : 0;
    if (kept == 0) {
        if (result->count > 0)
            result->note =
                question == TARGETS_BEFORE_DROP
                    ? "no DROP of it alone was found; these commits gave it another file, or "
                      "dropped it and made other tables in one transaction"
                    : "no TRUNCATE or rewrite of it was found, but this";
        return;
    }
    kept = 0;
    for (size_t i = 0; i < result->count; i++) {
        if (answers(question, result->moments[i].kind))
            result->moments[kept++] = result->moments[i];
    }
    result->count = kept;
    if (question == TARGETS_BEFORE_TRUNCATE)
        result->note =
            "TRUNCATE, VACUUM FULL, CLUSTER and ALTER TABLE look alike in WAL: each gave "
            "the table another file";
}

/* The names of one backup; *names_out NULL where it has none that can be read. */
static bool
open_names(TargetsSearch *search, const Fate *backup, Names **names_out, CairnError *err)
{
    *names_out = names_open(search->repository, search->options->cluster, backup, err);
    if (*names_out != NULL || err->kind == CAIRN_OK)
        return true;
    if (err->kind != CAIRN_CORRUPT && err->kind != CAIRN_NOT_FOUND)
        return false;
    log_warn("names of backup %s: %s", backup->label, err->message);
    cairn_error_clear(err);
    return true;
}

/* What the question names, in the names of one backup. */
static bool
find_named(TargetsSearch *search, Names *names, NamedFiles *files, CairnError *err)
{
    const TargetsOptions *options = search->options;
    if (options->question != TARGETS_BEFORE_FILE)
        return names_find(names, &options->wish, files, err);

    char text[3 * NAME_SIZE];
    if (!names_of_file(names, options->database_oid, options->relfilenode, text, err) ||
        text[0] == '\0')
        return err->kind == CAIRN_OK;
    return named_files_add(
        files, &(NamedFile){.database = options->database_oid, .relfilenode = options->relfilenode},
        text, err);
}

/*
 * Newest names first: what happened after them, up to the next newer ones. *known_out: some names
 * know what is asked for.
 */
static bool
search_by_names(TargetsSearch *search, bool *known_out, CairnError *err)
{
    __attribute__((cleanup(named_files_free))) NamedFiles later = {0};
    const NamedFiles *still = search->live;
    uint64_t to_lsn = UINT64_MAX;

    for (size_t i = 0; i < search->candidates.count && !has_answer(search); i++) {
        const Fate *backup = search->candidates.backups[i]->fate;
        if (!timeline_history_contains(search->path, backup->stop_timeline, backup->stop_lsn))
            continue;
        SCOPED(Names) names = NULL;
        if (!open_names(search, backup, &names, err))
            return false;
        if (names == NULL)
            continue;
        __attribute__((cleanup(named_files_free))) NamedFiles files = {0};
        if (!find_named(search, names, &files, err))
            return false;
        if (files.count > 0) {
            const FollowRequest request = {
                .files = &files, .later = still, .from_lsn = names_lsn(names), .to_lsn = to_lsn};
            *known_out = true;
            if (!targets_follow(search, &request, err))
                return false;
        }
        to_lsn = names_lsn(names);
        named_files_free(&later);
        later = files;
        files = (NamedFiles){0};
        still = &later;
    }
    return true;
}

/* A file by its number, whose name nobody kept. */
static bool
search_by_number(TargetsSearch *search, CairnError *err)
{
    const TargetsOptions *options = search->options;
    __attribute__((cleanup(named_files_free))) NamedFiles files = {0};
    char text[64];
    snprintf(text, sizeof text, "file %u of database %u", options->relfilenode,
             options->database_oid);
    if (!named_files_add(
            &files,
            &(NamedFile){.database = options->database_oid, .relfilenode = options->relfilenode},
            text, err))
        return false;
    const CatalogBackup *oldest = search->candidates.backups[search->candidates.count - 1];
    const FollowRequest request = {
        .files = &files, .from_lsn = oldest->fate->start_lsn, .to_lsn = UINT64_MAX};
    return targets_follow(search, &request, err);
}

/* A table that no backup has seen: what made its present file? */
static bool
search_by_live(TargetsSearch *search, CairnError *err)
{
    const CatalogBackup *oldest = search->candidates.backups[search->candidates.count - 1];
    const FollowRequest request = {.files = search->live,
                                   .from_lsn = oldest->fate->start_lsn,
                                   .to_lsn = UINT64_MAX,
                                   .backwards = true};
    return targets_follow(search, &request, err);
}

static bool
refuse_nothing(TargetsSearch *search, bool known, CairnError *err)
{
    const TargetsOptions *options = search->options;
    char searched[TARGETS_SEARCHED_SIZE];
    targets_searched(search, searched);
    if (options->question == TARGETS_BEFORE_FILE) {
        return cairn_error(err, CAIRN_NOT_FOUND,
                           "no commit in the stored WAL took file %u of database %u away, %s",
                           options->relfilenode, options->database_oid, searched);
    }
    const char *dot = options->wish.schema[0] != '\0' ? "." : "";
    if (known) {
        cairn_error(err, CAIRN_NOT_FOUND, "table %.80s%s%.80s was not %s in the WAL %s",
                    options->wish.schema, dot, options->wish.name,
                    options->question == TARGETS_BEFORE_DROP ? "dropped" : "truncated or rewritten",
                    searched);
        return cairn_error_hint(err, "rows that were deleted or updated are found by their time: "
                                     "pgcairn targets --around TIME");
    }
    cairn_error(err, CAIRN_NOT_FOUND, "no backup on this timeline knows a table %.80s%s%.80s",
                options->wish.schema, dot, options->wish.name);
    return cairn_error_hint(
        err, "`pgcairn info --set LABEL` says of which databases names are kept; a table younger "
             "than the newest backup is found by --relfilenode DATABASE_OID/FILE or --around TIME");
}

bool
targets_search_files(TargetsSearch *search, CairnError *err)
{
    const TargetsOptions *options = search->options;
    bool known = false;
    if (!search_by_names(search, &known, err))
        return false;
    if (search->result->count == 0 && options->question == TARGETS_BEFORE_FILE &&
        !search_by_number(search, err))
        return false;
    if (!known && options->question == TARGETS_BEFORE_TRUNCATE && search->live != NULL &&
        search->live->count > 0) {
        known = true;
        if (!search_by_live(search, err))
            return false;
    }
    for (size_t i = 0; i < search->result->count; i++) {
        Moment *moment = &search->result->moments[i];
        if (moment->kind == MOMENT_DATABASE_DROPPED &&
            !targets_before_database_drop(search, moment->lsn, moment->xid, &moment->lsn, err))
            return false;
    }
    targets_sort(search->result);
    keep_answers(search);
    return search->result->count > 0 || refuse_nothing(search, known, err);
}
