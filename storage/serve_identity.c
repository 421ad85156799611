/* Which repository lies here, for a client that comes back after its connection broke. */
#include "storage/serve_intern.h"

#include "common/digest.h"

#include <string.h>

enum { DESCRIPTOR_LIMIT = 64 << 10 };

/* A replica's descriptor has the bytes of the original's under another name. Where it lies in the
   original's place, it lacks what was written since, and nobody may write to it. */
static bool
digest_of(const char *name, const uint8_t *bytes, size_t size, uint8_t digest_out[SHA256_SIZE],
          CairnError *err)
{
    SCOPED(Sha256) sha = sha256_new(err);
    return sha != NULL && sha256_update(sha, name, strlen(name) + 1, err) &&
           sha256_update(sha, bytes, size, err) && sha256_finish(sha, digest_out, err);
}

/*
 * A digest of the descriptor: it holds a random id, and never changes. Device and inode would not
 * do: both may change when the same file system is mounted again, and another repository may be
 * copied into the same directory.
 */
void
serve_identity(Storage *storage, char identity_out[SSH_IDENTITY_SIZE + 1])
{
    static const char *const NAMES[] = {"pgcairn.repo", "pgcairn.replica"};
    uint8_t digest[SHA256_SIZE];
    _Static_assert(SSH_IDENTITY_SIZE == 2 * SHA256_SIZE, "hex of a digest");
    identity_out[0] = '\0';
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        /* What cannot be read is as good as not there: a client that knew one stops. */
        CairnError ignored = {0};
        size_t size;
        SCOPED_MEMORY uint8_t *bytes =
            storage_get(storage, NAMES[i], DESCRIPTOR_LIMIT, &size, &ignored);
        if (bytes != NULL && digest_of(NAMES[i], bytes, size, digest, &ignored)) {
            hex_encode(identity_out, digest, sizeof digest);
            return;
        }
    }
}
