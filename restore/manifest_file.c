#include "restore/manifest_file.h"

#include "common/digest.h"
#include "common/file.h"
#include "postgres/manifest.h"

#include <fcntl.h>
#include <string.h>

static const char MANIFEST_NAME[] = "backup_manifest";

void
manifest_edits_drop(ManifestEdits *edits, const char *path)
{
    CAIRN_ASSERT(edits->count < MANIFEST_EDIT_LIMIT);
    edits->edits[edits->count++] = (ManifestEdit){.path = path, .dropped = true};
}

void
manifest_edits_set(ManifestEdits *edits, const char *path, const void *data, size_t size)
{
    CAIRN_ASSERT(edits->count < MANIFEST_EDIT_LIMIT);
    edits->edits[edits->count++] = (ManifestEdit){
        .path = path,
        .size_bytes = size,
        .crc32c = crc32c(0, data, size),
    };
}

/* Two passes over the stored manifest: which edited files it names, then the rewriting itself. */
typedef struct {
    const World *world;
    int fd;
    const ManifestEdits *edits;
    bool named[MANIFEST_EDIT_LIMIT];
    ManifestReader *reader;
    ManifestRewriter *rewriter;
} Rewrite;

static size_t
find_edit(const ManifestEdits *edits, const ManifestFile *file)
{
    size_t i = 0;
    while (i < edits->count && (strlen(edits->edits[i].path) != file->path_size ||
                                memcmp(edits->edits[i].path, file->path, file->path_size) != 0)) {
        i++;
    }
    return i;
}

static bool
note_named(void *context, const ManifestFile *file, CairnError *err)
{
    Rewrite *rewrite = context;
    const size_t i = find_edit(rewrite->edits, file);
    (void)err;
    if (i < rewrite->edits->count)
        rewrite->named[i] = true;
    return true;
}

static ManifestVerdict
change_entry(void *context, const ManifestFile *file, ManifestFile *replacement_out)
{
    const Rewrite *rewrite = context;
    const size_t i = find_edit(rewrite->edits, file);
    if (i == rewrite->edits->count)
        return MANIFEST_KEEP;
    const ManifestEdit *edit = &rewrite->edits->edits[i];
    if (edit->dropped)
        return MANIFEST_DROP;
    replacement_out->size_bytes = edit->size_bytes;
    replacement_out->has_crc32c = true;
    replacement_out->crc32c = edit->crc32c;
    return MANIFEST_REPLACE;
}

static bool
write_bytes(void *context, const void *data, size_t size, CairnError *err)
{
    const Rewrite *rewrite = context;
    return file_write(rewrite->world, rewrite->fd, data, size, MANIFEST_NAME, err);
}

static bool
feed_reader(void *context, const void *data, size_t size, CairnError *err)
{
    return manifest_reader_feed(((Rewrite *)context)->reader, data, size, err);
}

static bool
feed_rewriter(void *context, const void *data, size_t size, CairnError *err)
{
    return manifest_rewriter_feed(((Rewrite *)context)->rewriter, data, size, err);
}

static bool
add_entries(const Rewrite *rewrite, ManifestRewriter *rewriter, CairnError *err)
{
    const int64_t now_s = rewrite->world->clock->wall_us(rewrite->world->clock) / 1000000;
    for (size_t i = 0; i < rewrite->edits->count; i++) {
        const ManifestEdit *edit = &rewrite->edits->edits[i];
        const ManifestFile file = {
            .path = edit->path,
            .path_size = strlen(edit->path),
            .size_bytes = edit->size_bytes,
            .has_crc32c = true,
            .crc32c = edit->crc32c,
        };
        if (!rewrite->named[i] && !edit->dropped &&
            !manifest_rewriter_add(rewriter, &file, now_s, err)) {
            return false;
        }
    }
    return true;
}

static bool
rewrite_manifest(MapReader *map, FrameReader *frames, Rewrite *rewrite, CairnError *err)
{
    MapEntry entry;
    bool found;

    SCOPED(ManifestReader) reader = manifest_reader_new(note_named, rewrite, err);
    if (reader == NULL)
        return false;
    rewrite->reader = reader;
    if (!stored_file_find(map, MAP_CLASS_OURS, MANIFEST_NAME, &entry, &found, err) ||
        !stored_file_stream(map, frames, &entry, feed_reader, rewrite, err) ||
        !manifest_reader_finish(reader, err)) {
        return false;
    }

    SCOPED(ManifestRewriter)
    rewriter = manifest_rewriter_new(change_entry, write_bytes, rewrite, err);
    if (rewriter == NULL)
        return false;
    rewrite->rewriter = rewriter;
    return add_entries(rewrite, rewriter, err) &&
           stored_file_find(map, MAP_CLASS_OURS, MANIFEST_NAME, &entry, &found, err) &&
           stored_file_stream(map, frames, &entry, feed_rewriter, rewrite, err) &&
           manifest_rewriter_finish(rewriter, err);
}

bool
manifest_file_lay(MapReader *map, FrameReader *frames, const World *world,
                  TargetDirectory *directory, const ManifestEdits *edits, uint32_t mode,
                  CairnError *err)
{
    const Disk *disk = world->disk;
    MapEntry entry;
    bool found;
    if (!stored_file_find(map, MAP_CLASS_OURS, MANIFEST_NAME, &entry, &found, err))
        return false;
    if (!found)
        return true;

    Rewrite rewrite = {.world = world, .edits = edits};
    rewrite.fd =
        disk->openat(disk, target_directory_fd(directory), MANIFEST_NAME,
                     O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (rewrite.fd < 0)
        return cairn_error_errno(err, "unable to create '%s'", MANIFEST_NAME);
    bool good = rewrite_manifest(map, frames, &rewrite, err);
    if (good && disk->fchmod(disk, rewrite.fd, (mode_t)mode) != 0)
        good = cairn_error_errno(err, "unable to set the mode of '%s'", MANIFEST_NAME);
    if (disk->close(disk, rewrite.fd) != 0 && good)
        good = cairn_error_errno(err, "unable to close '%s'", MANIFEST_NAME);
    return good;
}
