/*
 * Between the parts of credentials: a search that goes from one provider to the next.
 */
#ifndef PGCAIRN_STORAGE_S3_CREDENTIALS_INTERN_H
#define PGCAIRN_STORAGE_S3_CREDENTIALS_INTERN_H

#include "common/secret.h"
#include "storage/s3/credentials.h"

enum { CREDENTIALS_TRIED_SIZE = 1024 };

typedef struct {
    const World *world;
    const S3Config *config;
    S3Http http;
    S3Credentials *found;                /* empty until a provider fills it */
    char from[S3_CREDENTIALS_TEXT_SIZE]; /* and says where from */
    bool rotates;                        /* a later fetch may find others */
    char tried[CREDENTIALS_TRIED_SIZE];  /* "environment: ...; profile: ..." */
    bool unreachable;                    /* one that may exist did not answer */
} CredentialSearch;

typedef enum { PROVIDER_FOUND, PROVIDER_ABSENT, PROVIDER_FAILED } ProviderResult;

/* ABSENT: not configured, as `tried` now says; FAILED: configured and of no use, err is filled. */
typedef ProviderResult CredentialProvider(CredentialSearch *search, CairnError *err);

CredentialProvider provider_config;         /* credentials_files.c */
CredentialProvider provider_chosen_profile; /* credentials_profile.c: the configured one only */
CredentialProvider provider_environment;    /* credentials_files.c */
CredentialProvider provider_profile;        /* credentials_profile.c */
CredentialProvider provider_web_identity;   /* credentials_web.c */
CredentialProvider provider_container;      /* credentials_metadata.c */
CredentialProvider provider_instance;       /* credentials_metadata.c */

/* What a variable says; NULL when unset or empty. */
const char *credentials_environment(const char *name);
ProviderResult credentials_absent(CredentialSearch *search, const char *format, ...)
    PRINTF_LIKE(2, 3);
/* For a field of S3Credentials: false with USAGE when it is too long. `what` names it. */
bool credentials_take(char *field, size_t field_size, const char *text, const char *what,
                      CairnError *err) MUST_CHECK;
/* A token that rotates: one line, readable to whomever its platform lets read it. */
Secret *credentials_read_token(const World *world, const char *path, CairnError *err) MUST_CHECK;
/* Role and token file to temporary credentials, by STS. session_name may be NULL. */
bool credentials_assume_role(CredentialSearch *search, const char *role, const char *token_file,
                             const char *session_name, CairnError *err) MUST_CHECK;

/* One request, asked again `attempts` times in all when nobody or a 5xx answers. The body is wiped
   by credentials_answer_free. */
bool credentials_call(CredentialSearch *search, const S3HttpRequest *request, int attempts,
                      S3HttpAnswer *answer_out, CairnError *err) MUST_CHECK;
void credentials_answer_free(S3HttpAnswer *answer);
#define SCOPED_S3_HTTP_ANSWER __attribute__((cleanup(credentials_answer_free)))

#endif
