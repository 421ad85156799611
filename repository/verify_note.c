/* Findings: what is said of an object that is not as it should be, and of whom. */
#include "repository/verify_intern.h"

#include "common/parallel.h"

#include <string.h>

static bool
kind_of_finding(CairnErrorKind kind, FindingKind *kind_out)
{
    switch (kind) {
    case CAIRN_NOT_FOUND:
        *kind_out = FINDING_MISSING;
        return true;
    case CAIRN_CORRUPT:
    case CAIRN_MISMATCH:
    case CAIRN_UNSUPPORTED:
        *kind_out = FINDING_DAMAGED;
        return true;
    case CAIRN_IO:
    case CAIRN_DENIED:
    case CAIRN_UNAVAILABLE:
        *kind_out = FINDING_UNREACHABLE;
        return true;
    default:
        return false; /* a signal, no memory: not about this object */
    }
}

/* Backups that are looked at again, now. */
typedef struct {
    Verify *verify;
    const BackupSet *set;
} Recheck;

/* A backup's own `gone` and nothing else is written: the set holds each once. */
static bool
look_again(void *context, size_t i, CairnError *err)
{
    const Recheck *recheck = context;
    Verify *verify = recheck->verify;
    const uint32_t index = recheck->set->indexes[i];
    BackupCheck *check = &verify->checks[index];
    /* Collect removes only after the mark is there: whoever looks after the loss sees it. */
    return check->gone ||
           catalog_has_expired(verify->repository, verify->options->cluster,
                               &verify->catalog->backups[index].bid, &check->gone, err);
}

bool
verify_keep_live(Verify *verify, const BackupSet *set, bool recheck, uint32_t *indexes,
                 size_t *count_out, CairnError *err)
{
    Recheck again = {verify, set};
    const int at_once = verify_requests_at_once(verify);
    if (recheck && !parallel_each(set->count, at_once, look_again, &again, err))
        return false;
    size_t count = 0;
    for (size_t i = 0; i < set->count; i++) {
        if (!verify->checks[set->indexes[i]].gone)
            indexes[count++] = set->indexes[i];
    }
    *count_out = count;
    return true;
}

bool
verify_look_who_is_left(Verify *verify, CairnError *err)
{
    SCOPED_MEMORY uint32_t *indexes = calloc(verify->catalog->count + 1, sizeof *indexes);
    size_t count = 0;
    if (indexes == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (uint32_t i = 0; i < verify->catalog->count; i++) {
        if (verify->checks[i].wanted)
            indexes[count++] = i;
    }
    const BackupSet all = {indexes, count};
    return verify_keep_live(verify, &all, true, indexes, &count, err);
}

const char *
verify_labels(Verify *verify, const BackupSet *set)
{
    const size_t size = set->count * sizeof *set->indexes;
    if (set->count == 0)
        return "";
    if (verify->labels != NULL && verify->label_count == set->count &&
        memcmp(verify->label_indexes, set->indexes, size) == 0)
        return verify->labels;
    SCOPED_BYTES ByteWriter text = {0};
    for (size_t i = 0; i < set->count && i < VERIFY_LABELS_LISTED; i++) {
        const char *label = verify->catalog->backups[set->indexes[i]].fate->label;
        byte_writer_bytes(&text, ", ", i > 0 ? 2 : 0);
        byte_writer_bytes(&text, label, strlen(label));
    }
    CAIRN_ASSERT(!text.failed);
    Arena *arena = verify->report->arena;
    const char *labels = arena_strndup(arena, (const char *)text.data, text.size);
    if (set->count > VERIFY_LABELS_LISTED)
        labels = arena_printf(arena, "%s and %zu more", labels, set->count - VERIFY_LABELS_LISTED);
    memcpy(verify->label_indexes, set->indexes, size);
    verify->label_count = set->count;
    verify->labels = labels;
    return labels;
}

/* Whether the object's name is to be kept for the evidence of any of them. */
static bool
is_remembered(const Verify *verify, const VerifySubject *subject, const BackupSet *set)
{
    for (size_t i = 0; subject->creator == NULL && i < set->count; i++) {
        if (verify->checks[set->indexes[i]].object_count < DAMAGE_OBJECTS_LISTED)
            return true;
    }
    return false;
}

static void
remember_object(BackupCheck *check, const char *object)
{
    if (check->objects == NULL)
        check->objects = calloc(DAMAGE_OBJECTS_LISTED, sizeof *check->objects);
    CAIRN_ASSERT(check->objects != NULL);
    if (check->object_count < DAMAGE_OBJECTS_LISTED)
        check->objects[check->object_count] = object;
    check->object_count++;
}

/* object: kept in the report's arena as long as any of them has room for it. */
static void
blame(Verify *verify, const VerifySubject *subject, FindingKind kind, const BackupSet *set,
      const char *object)
{
    for (size_t i = 0; i < set->count; i++) {
        BackupCheck *check = &verify->checks[set->indexes[i]];
        if (kind == FINDING_UNREACHABLE || (subject->is_wal && kind == FINDING_MISSING)) {
            check->unproven = true;
            continue;
        }
        check->damaged = true;
        if (subject->creator == NULL)
            remember_object(check, object);
    }
}

static bool
file_finding(Verify *verify, const VerifySubject *subject, FindingKind kind, const BackupSet *set,
             CairnError *err)
{
    VerifyReport *report = verify->report;
    const char *object = subject->object;
    if (report->listed < VERIFY_FINDINGS_LISTED || is_remembered(verify, subject, set))
        object = arena_strdup(report->arena, object);
    report->finding_count++;
    report->counts[kind]++;
    if (report->listed < VERIFY_FINDINGS_LISTED) {
        report->findings[report->listed++] = (VerifyFinding){
            .kind = kind,
            .object = object,
            .text = arena_strdup(report->arena, err->message),
            .backups = verify_labels(verify, set),
            .files = arena_strdup(report->arena, subject->files != NULL ? subject->files : ""),
            .moments = subject->moments,
        };
    }
    cairn_error_clear(err);
    blame(verify, subject, kind, set, object);
    return subject->creator == NULL || kind == FINDING_UNREACHABLE ||
           damaged_packs_add(&verify->packs, subject->creator, subject->pack, err);
}

bool
verify_note(Verify *verify, const VerifySubject *subject, CairnError *err)
{
    CairnError failure = {0};
    if (verify_settle(verify, &failure))
        return verify_note_now(verify, subject, err);
    *err = failure;
    return false;
}

bool
verify_note_now(Verify *verify, const VerifySubject *subject, CairnError *err)
{
    FindingKind kind;
    size_t count;
    CairnError look = {0};
    if (!kind_of_finding(err->kind, &kind))
        return false;
    SCOPED_MEMORY uint32_t *indexes = calloc(subject->needed_by.count + 1, sizeof *indexes);
    if (indexes == NULL) {
        cairn_error_clear(err);
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    }
    if (!verify_keep_live(verify, &subject->needed_by, kind == FINDING_MISSING, indexes, &count,
                          &look)) {
        *err = look;
        return false;
    }
    const bool vanished = kind == FINDING_MISSING && subject->may_vanish;
    if (count == 0 && (vanished || subject->needed_by.count > 0)) {
        cairn_error_clear(err);
        return true;
    }
    return file_finding(verify, subject, kind, &(BackupSet){indexes, count}, err);
}
