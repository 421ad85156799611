#include "repository/verify_intern.h"

#include "repository/pack.h"
#include "repository/pin.h"

#include <stdio.h>
#include <string.h>

void
verify_report_free(VerifyReport *report)
{
    if (report == NULL)
        return;
    arena_free(report->arena);
    free(report);
}

bool
verify_note(Verify *verify, const char *object, const char *backups, const char *files,
            CairnError *err)
{
    FindingKind kind;
    switch (err->kind) {
    case CAIRN_NOT_FOUND:
        kind = FINDING_MISSING;
        break;
    case CAIRN_CORRUPT:
    case CAIRN_MISMATCH:
    case CAIRN_UNSUPPORTED:
        kind = FINDING_DAMAGED;
        break;
    case CAIRN_IO:
    case CAIRN_DENIED:
    case CAIRN_UNAVAILABLE:
        kind = FINDING_UNREACHABLE;
        break;
    default:
        return false; /* a signal, no memory: not about this object */
    }
    VerifyReport *report = verify->report;
    report->finding_count++;
    if (report->listed < VERIFY_FINDINGS_LISTED) {
        report->findings[report->listed++] = (VerifyFinding){
            .kind = kind,
            .object = arena_strdup(report->arena, object),
            .text = arena_strdup(report->arena, err->message),
            .backups = arena_strdup(report->arena, backups),
            .files = arena_strdup(report->arena, files),
        };
    }
    cairn_error_clear(err);
    return true;
}

bool
verify_object(Verify *verify, const char *name, ObjectKind kind, const char *backups, bool *ok_out,
              CairnError *err)
{
    *ok_out = false;
    verify->report->object_count++;
    SCOPED(ObjectReader) reader = object_open(verify->repository, name, kind, err);
    if (reader == NULL)
        return verify_note(verify, name, backups, "", err);
    verify->report->byte_count += object_stored_size(reader);
    progress_add(verify->options->progress, object_stored_size(reader));
    progress_draw(verify->options->progress);
    if (verify->options->scope == VERIFY_FULL && !object_scrub(reader, err))
        return verify_note(verify, name, backups, "", err);
    *ok_out = true;
    return true;
}

/* Small objects beside the packs: intent, marks, evidence. What is none of ours is left alone. */
typedef struct {
    Verify *verify;
    char prefix[STORAGE_NAME_LIMIT];
    const char *backups;
    bool good;
} SmallWalk;

static bool
small_kind(const char *name, ObjectKind *kind_out)
{
    static const struct {
        const char *prefix;
        ObjectKind kind;
    } kinds[] = {{"intent", OBJECT_INTENT}, {"fate", OBJECT_FATE},    {"refs", OBJECT_REFS},
                 {"mark.", OBJECT_MARK},    {"ev.", OBJECT_EVIDENCE}, {"doomed.", OBJECT_DOOMED}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strncmp(name, kinds[i].prefix, strlen(kinds[i].prefix)) == 0) {
            *kind_out = kinds[i].kind;
            return true;
        }
    }
    return false;
}

static StorageListNext
verify_small(void *context, const StorageEntry *entry, CairnError *err)
{
    SmallWalk *walk = context;
    ObjectKind kind;
    if (entry->is_directory || !small_kind(entry->name, &kind))
        return STORAGE_LIST_GO_ON;
    char name[STORAGE_NAME_LIMIT + 256];
    int size = snprintf(name, sizeof name, "%s/%s", walk->prefix, entry->name);
    bool ok;
    if (size < 0 || (size_t)size >= STORAGE_NAME_LIMIT)
        return STORAGE_LIST_GO_ON;
    if (!verify_object(walk->verify, name, kind, walk->backups, &ok, err))
        return STORAGE_LIST_FAILED;
    walk->good = walk->good && ok;
    return STORAGE_LIST_GO_ON;
}

static bool
verify_small_objects(Verify *verify, const CatalogBackup *backup, bool *good_out, CairnError *err)
{
    SmallWalk walk = {
        .verify = verify,
        .good = true,
        .backups = backup->fate != NULL && backup->fate->committed ? backup->fate->label : ""};
    snprintf(walk.prefix, sizeof walk.prefix, "c/%s/b/%s", verify->options->cluster,
             backup->bid.text);
    if (!storage_list(repository_storage(verify->repository), walk.prefix, verify_small, &walk,
                      err))
        return false;
    *good_out = walk.good;
    return true;
}

/* What was found is kept with the backup, so that info, restore and retention know it. */
static bool
add_evidence(Verify *verify, const CatalogBackup *backup, bool good, uint64_t unreachable_before,
             CairnError *err)
{
    bool unreachable = false;
    for (size_t i = unreachable_before; i < verify->report->listed; i++)
        unreachable |= verify->report->findings[i].kind == FINDING_UNREACHABLE;
    if (unreachable || (good && verify->options->scope != VERIFY_FULL))
        return true; /* nothing is proven either way */
    if (!good && backup->damaged)
        return true; /* known already */
    return catalog_add_evidence(
        verify->repository, verify->options->cluster, &backup->bid, good ? "verified" : "damaged",
        verify->options->scope == VERIFY_FULL ? "full" : "quick", NULL, err);
}

static bool
verify_one(Verify *verify, const CatalogBackup *backup, CairnError *err)
{
    size_t listed_before = verify->report->listed;
    bool small_good, wal_good, good = false;
    if (!verify_small_objects(verify, backup, &small_good, err))
        return false;
    if (backup->presence != BACKUP_COMMITTED)
        return true; /* attempts and expired backups promise nothing */
    verify->report->backup_count++;
    if (!verify_backup(verify, backup, &good, err))
        return false;
    if (!verify_backup_wal(verify, backup->fate, &wal_good, err))
        return false;
    good = good && small_good;
    verify->report->good_backup_count += good && wal_good;
    /* WAL is shared and may come from elsewhere yet: without it nothing is proven, nor is the
     * backup damaged. */
    if (good && !wal_good)
        return true;
    return add_evidence(verify, backup, good, listed_before, err);
}

static bool
verify_everything(Verify *verify, CairnError *err)
{
    bool ok;
    if (!verify_object(verify, "pgcairn.repo", OBJECT_REPOSITORY, "", &ok, err))
        return false;
    for (size_t i = 0; i < verify->catalog->count; i++) {
        if (!verify_one(verify, &verify->catalog->backups[i], err))
            return false;
    }
    return verify_all_wal(verify, err);
}

static bool
open_tools(Verify *verify, CairnError *err)
{
    verify->codec = repository_codec(verify->repository, err);
    if (verify->codec == NULL)
        return false;
    verify->fingerprints = repository_digest(verify->repository, DIGEST_FINGERPRINT, err);
    if (verify->fingerprints == NULL)
        return false;
    verify->raw = malloc(FRAME_SIZE);
    verify->stored = malloc(OBJECT_FRAME_LIMIT);
    if (verify->raw == NULL || verify->stored == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    return true;
}

static void
close_tools(Verify *verify)
{
    if (verify->codec != NULL)
        codec_close(verify->codec);
    keyed_digest_free(verify->fingerprints);
    free(verify->raw);
    free(verify->stored);
}

VerifyReport *
verify_run(Repository *repository, const VerifyOptions *options, CairnError *err)
{
    SCOPED(Catalog) catalog = catalog_read(repository, options->cluster, err);
    if (catalog == NULL)
        return NULL;
    SCOPED(Pin) pin = NULL; /* what expires meanwhile is not found damaged */
    if (!pin_catalog_or_warn(repository, options->cluster, "verify", catalog, &pin, err))
        return NULL;
    SCOPED(VerifyReport) report = calloc(1, sizeof *report);
    CAIRN_ASSERT(report != NULL);
    report->arena = arena_new();
    report->findings =
        arena_alloc(report->arena, VERIFY_FINDINGS_LISTED * sizeof *report->findings);

    __attribute__((cleanup(close_tools))) Verify verify = {
        .repository = repository, .options = options, .catalog = catalog, .report = report};
    if (!open_tools(&verify, err))
        return NULL;
    if (options->selector == NULL) {
        if (!verify_everything(&verify, err))
            return NULL;
    } else {
        const CatalogBackup *backup = catalog_find(catalog, options->selector, err);
        if (backup == NULL || !verify_one(&verify, backup, err))
            return NULL;
    }
    return take(&report);
}
