#include "storage/s3/http.h"

#include "common/cancel.h"

#include <ctype.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER_SIZE = 128 << 10, BODY_FIRST = 4096 };

/* What a request that is under way when a signal comes still gets: enough to end what it does, for
 * those that clean up too. */
static const int64_t CANCEL_GRACE_NS = INT64_C(5) * 1000000000;

/* A handle of curl's keeps its connections between exchanges. */
typedef struct {
    CURL *curl;
    curl_socket_t socket; /* of the connection made last, CURL_SOCKET_BAD: none is open */
} Handle;

struct HttpPool {
    const World *world;
    HttpPoolOptions options;
    struct curl_slist *hosts;
    pthread_mutex_t mutex;
    pthread_cond_t returned;
    Handle **idle; /* the one used last is taken first: its connection is the likeliest to live */
    int idle_count;
    int busy_count;
    pid_t owner;
};

/* One exchange. */
typedef struct {
    const HttpPool *pool;
    Handle *handle;
    const HttpRequest *request;
    HttpAnswer *answer;
    size_t sent;
    size_t body_capacity;
    bool too_long;
    bool out_of_memory;
    int64_t begin_ns;
} Exchange;

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static CURLcode curl_state;

/* OpenSSL is set up by the program; curl_global_cleanup is left to the end of the process, since
 * other libraries may use curl too. */
static void
start_curl(void)
{
    curl_state = curl_global_init(CURL_GLOBAL_DEFAULT);
}

HttpPool *
http_pool_new(const World *world, const HttpPoolOptions *options, CairnError *err)
{
    pthread_once(&curl_once, start_curl);
    if (curl_state != CURLE_OK) {
        cairn_error(err, CAIRN_INTERNAL, "libcurl does not start: %s",
                    curl_easy_strerror(curl_state));
        return NULL;
    }
    CAIRN_ASSERT(options->limit >= 1);
    HttpPool *pool = calloc(1, sizeof *pool);
    Handle **idle = calloc((size_t)options->limit, sizeof *idle);
    if (pool == NULL || idle == NULL) {
        free(pool);
        free(idle);
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    pool->world = world;
    pool->options = *options;
    pool->idle = idle;
    pool->owner = getpid();
    for (size_t i = 0; options->hosts != NULL && options->hosts[i] != NULL; i++)
        pool->hosts = curl_slist_append(pool->hosts, options->hosts[i]);
    CAIRN_ASSERT(pthread_mutex_init(&pool->mutex, NULL) == 0);
    CAIRN_ASSERT(pthread_cond_init(&pool->returned, NULL) == 0);
    return pool;
}

/* In a child: what the parent's connections are in the middle of is not ours to end. */
static void
forget_after_fork(HttpPool *pool)
{
    if (pool->owner == getpid())
        return;
    pool->owner = getpid();
    pool->idle_count = 0;
    pool->busy_count = 0;
}

static Handle *
handle_new(void)
{
    Handle *handle = calloc(1, sizeof *handle);

    if (handle == NULL)
        return NULL;
    handle->socket = CURL_SOCKET_BAD;
    handle->curl = curl_easy_init();
    if (handle->curl == NULL) {
        free(handle);
        return NULL;
    }
    return handle;
}

static void
handle_free(Handle *handle)
{
    curl_easy_cleanup(handle->curl);
    free(handle);
}

void
http_pool_free(HttpPool *pool)
{
    if (pool == NULL)
        return;
    forget_after_fork(pool);
    CAIRN_ASSERT(pool->busy_count == 0);
    for (int i = 0; i < pool->idle_count; i++)
        handle_free(pool->idle[i]);
    curl_slist_free_all(pool->hosts);
    pthread_mutex_destroy(&pool->mutex);
    pthread_cond_destroy(&pool->returned);
    free(pool->idle);
    free(pool);
}

static Handle *
take_handle(HttpPool *pool)
{
    Handle *handle = NULL;
    pthread_mutex_lock(&pool->mutex);
    forget_after_fork(pool);
    while (pool->busy_count >= pool->options.limit)
        pthread_cond_wait(&pool->returned, &pool->mutex);
    pool->busy_count++;
    if (pool->idle_count > 0)
        handle = pool->idle[--pool->idle_count];
    pthread_mutex_unlock(&pool->mutex);
    return handle != NULL ? handle : handle_new();
}

static void
return_handle(HttpPool *pool, Handle *handle)
{
    if (handle != NULL)
        curl_easy_reset(handle->curl); /* keeps its connection */
    pthread_mutex_lock(&pool->mutex);
    pool->busy_count--;
    if (handle != NULL)
        pool->idle[pool->idle_count++] = handle;
    pthread_cond_signal(&pool->returned);
    pthread_mutex_unlock(&pool->mutex);
}

/* -- what curl calls */

static bool
is_wanted(const HttpAnswer *answer)
{
    return answer->status == 200 || answer->status == 206;
}

/*
 * A server that sends headers and body apart, and keeps the second back until the first is
 * acknowledged (Nagle's algorithm: Ceph's gateway, as it comes), waits for our kernel, which holds
 * acknowledgements back for 40 ms: with each small answer, most of its time.
 */
static void
acknowledge_now(const Exchange *exchange)
{
    const int on = 1;
    const curl_socket_t fd = exchange->handle->socket;

    if (fd != CURL_SOCKET_BAD) /* slower without, no more */
        (void)setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
}

static int
on_socket(void *context, curl_socket_t fd, curlsocktype purpose)
{
    Handle *handle = context;

    (void)purpose;
    handle->socket = fd;
    return CURL_SOCKOPT_OK;
}

/* Also after the exchange that made the connection, and when the handle is freed. */
static int
on_close(void *context, curl_socket_t fd)
{
    Handle *handle = context;

    if (handle->socket == fd)
        handle->socket = CURL_SOCKET_BAD;
    return close(fd);
}

static size_t
on_header(char *data, size_t unit, size_t count, void *context)
{
    Exchange *exchange = context;
    HttpAnswer *answer = exchange->answer;
    const size_t size = unit * count;
    size_t length = size;

    /* A status line begins an answer; one may come after a 100 Continue. */
    if (size >= 12 && strncmp(data, "HTTP/", 5) == 0) {
        const char *space = memchr(data, ' ', size);
        answer->status = space != NULL ? atoi(space + 1) : 0;
        answer->headers_size = 0;
        acknowledge_now(exchange);
        return size;
    }
    while (length > 0 && (data[length - 1] == '\r' || data[length - 1] == '\n'))
        length--;
    const char *colon = memchr(data, ':', length);
    if (colon == NULL)
        return size;
    /* More than fits is dropped: what we look for comes early, and its absence is survivable. */
    if (answer->headers_size + length + 2 > sizeof answer->headers)
        return size;
    char *at = answer->headers + answer->headers_size;
    memcpy(at, data, length);
    for (char *c = at; c < at + (colon - data); c++)
        *c = (char)tolower((unsigned char)*c);
    at[length] = '\n';
    at[length + 1] = '\0';
    answer->headers_size += length + 1;
    return size;
}

static bool
keep_body(Exchange *exchange, const char *data, size_t size)
{
    HttpAnswer *answer = exchange->answer;
    if (size > exchange->request->body_limit - answer->body_size) {
        exchange->too_long = true;
        return false;
    }
    if (answer->body_size + size + 1 > exchange->body_capacity) {
        size_t capacity = exchange->body_capacity == 0 ? BODY_FIRST : exchange->body_capacity;
        while (capacity < answer->body_size + size + 1)
            capacity *= 2;
        char *body = realloc(answer->body, capacity);
        if (body == NULL) {
            exchange->out_of_memory = true;
            return false;
        }
        answer->body = body;
        exchange->body_capacity = capacity;
    }
    memcpy(answer->body + answer->body_size, data, size);
    answer->body_size += size;
    answer->body[answer->body_size] = '\0';
    return true;
}

static size_t
on_body(char *data, size_t unit, size_t count, void *context)
{
    Exchange *exchange = context;
    const HttpRequest *request = exchange->request;
    HttpAnswer *answer = exchange->answer;
    const size_t size = unit * count;

    if (request->into == NULL || !is_wanted(answer))
        return keep_body(exchange, data, size) ? size : 0;
    if (size > request->into_size - answer->into_size) {
        exchange->too_long = true;
        return 0;
    }
    memcpy((char *)request->into + answer->into_size, data, size);
    answer->into_size += size;
    return size;
}

static size_t
on_send(char *buffer, size_t unit, size_t count, void *context)
{
    Exchange *exchange = context;
    const size_t room = unit * count;
    const size_t left = exchange->request->body_size - exchange->sent;
    const size_t size = left < room ? left : room;
    memcpy(buffer, (const char *)exchange->request->body + exchange->sent, size);
    exchange->sent += size;
    return size;
}

/* curl begins again when a kept connection turned out to be dead. */
static int
on_rewind(void *context, curl_off_t offset, int origin)
{
    Exchange *exchange = context;
    if (origin != SEEK_SET || offset < 0 || (size_t)offset > exchange->request->body_size)
        return CURL_SEEKFUNC_FAIL;
    exchange->sent = (size_t)offset;
    return CURL_SEEKFUNC_OK;
}

static int
on_progress(void *context, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    Exchange *exchange = context;
    const Clock *clock = exchange->pool->world->clock;
    (void)a, (void)b, (void)c, (void)d;
    if (!cancel_requested())
        return 0;
    return clock->monotonic_ns(clock) - exchange->begin_ns > CANCEL_GRACE_NS;
}

/* -- one exchange */

static void
set_method(CURL *handle, Exchange *exchange)
{
    const HttpRequest *request = exchange->request;
    if (strcmp(request->method, "HEAD") == 0) {
        curl_easy_setopt(handle, CURLOPT_NOBODY, 1L);
    } else if (strcmp(request->method, "PUT") == 0) {
        curl_easy_setopt(handle, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(handle, CURLOPT_READFUNCTION, on_send);
        curl_easy_setopt(handle, CURLOPT_READDATA, exchange);
        curl_easy_setopt(handle, CURLOPT_SEEKFUNCTION, on_rewind);
        curl_easy_setopt(handle, CURLOPT_SEEKDATA, exchange);
        curl_easy_setopt(handle, CURLOPT_INFILESIZE_LARGE, (curl_off_t)request->body_size);
    } else if (strcmp(request->method, "POST") == 0) {
        curl_easy_setopt(handle, CURLOPT_POST, 1L);
        curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_size);
        curl_easy_setopt(handle, CURLOPT_POSTFIELDS, request->body_size > 0 ? request->body : "");
    } else if (strcmp(request->method, "GET") != 0) {
        curl_easy_setopt(handle, CURLOPT_CUSTOMREQUEST, request->method);
    }
}

static void
set_safety(CURL *handle, const HttpPool *pool, const HttpRequest *request)
{
    const HttpPoolOptions *options = &pool->options;
    const bool plain = strncmp(request->url, "http:", 5) == 0;
    curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR,
                     options->plain_http || request->direct ? "http,https" : "https");
    curl_easy_setopt(handle, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(handle, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(handle, CURLOPT_SSL_VERIFYHOST, 2L);
    curl_easy_setopt(handle, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (options->ca_file != NULL) {
        curl_easy_setopt(handle, CURLOPT_CAINFO, options->ca_file);
        curl_easy_setopt(handle, CURLOPT_CAPATH, NULL);
    }
    if (plain || request->direct)
        curl_easy_setopt(handle, CURLOPT_NOPROXY, "*");
}

static void
set_time(CURL *handle, const HttpRequest *request)
{
    curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, (long)request->connect_ms);
    curl_easy_setopt(handle, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(handle, CURLOPT_LOW_SPEED_TIME, (long)(request->stall_ms + 999) / 1000);
    curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, (long)request->total_ms);
    curl_easy_setopt(handle, CURLOPT_TCP_KEEPALIVE, 1L);
}

static void
set_callbacks(CURL *handle, Exchange *exchange)
{
    curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(handle, CURLOPT_HEADERDATA, exchange);
    curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(handle, CURLOPT_WRITEDATA, exchange);
    curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(handle, CURLOPT_XFERINFODATA, exchange);
    curl_easy_setopt(handle, CURLOPT_SOCKOPTFUNCTION, on_socket);
    curl_easy_setopt(handle, CURLOPT_SOCKOPTDATA, exchange->handle);
    curl_easy_setopt(handle, CURLOPT_CLOSESOCKETFUNCTION, on_close);
    curl_easy_setopt(handle, CURLOPT_CLOSESOCKETDATA, exchange->handle);
}

static struct curl_slist *
make_headers(const HttpRequest *request)
{
    /* Nobody waits a round trip for 100 Continue; a body that is refused early is cut short. */
    struct curl_slist *list = curl_slist_append(NULL, "Expect:");
    bool has_type = false;
    for (size_t i = 0; i < request->header_count; i++)
        has_type = has_type || strncasecmp(request->headers[i], "content-type:", 13) == 0;
    /* curl calls every POST a form, and Ceph then looks for a form's credentials. */
    if (list != NULL && !has_type && curl_slist_append(list, "Content-Type:") == NULL) {
        curl_slist_free_all(list);
        return NULL;
    }
    for (size_t i = 0; list != NULL && i < request->header_count; i++) {
        struct curl_slist *longer = curl_slist_append(list, request->headers[i]);
        if (longer == NULL) {
            curl_slist_free_all(list);
            return NULL;
        }
        list = longer;
    }
    return list;
}

/* Failures before the request can have arrived. */
static bool
failed_before_sending(CURLcode code)
{
    switch (code) {
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
        return true;
    default:
        return false;
    }
}

static bool
explain(const Exchange *exchange, CURLcode code, const char *detail, CairnError *err)
{
    const HttpPoolOptions *options = &exchange->pool->options;
    const char *text = detail[0] != '\0' ? detail : curl_easy_strerror(code);

    if (exchange->out_of_memory || code == CURLE_OUT_OF_MEMORY)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (exchange->too_long)
        return cairn_error(err, CAIRN_CORRUPT, "the answer is longer than it may be");
    switch (code) {
    case CURLE_ABORTED_BY_CALLBACK:
        return cancel_check(err) ? cairn_error(err, CAIRN_CANCELLED, "interrupted") : false;
    case CURLE_UNSUPPORTED_PROTOCOL:
        cairn_error(err, CAIRN_USAGE, "%s", text);
        return cairn_error_hint(err, "use https; plain-http = allowed is for loopback addresses");
    case CURLE_SSL_CACERT_BADFILE:
        return cairn_error(err, CAIRN_USAGE, "unable to use ca-file '%s': %s",
                           options->ca_file != NULL ? options->ca_file : "of the system", text);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
        cairn_error(err, CAIRN_UNAVAILABLE, "unable to verify the server's certificate: %s", text);
        return cairn_error_hint(err, "set ca-file to the certificate of the authority that signed "
                                     "it; verification cannot be turned off");
    case CURLE_SSL_CONNECT_ERROR:
        cairn_error(err, CAIRN_UNAVAILABLE, "no TLS connection comes about: %s", text);
        /* OpenSSL's words for an answer that is no TLS record. Anything else may pass. */
        if (strstr(text, "wrong version number") != NULL)
            cairn_error_hint(err, "the server does not speak TLS at this port");
        return false;
    default:
        return cairn_error(err, CAIRN_UNAVAILABLE, "%s", text);
    }
}

static bool
run(Exchange *exchange, struct curl_slist *headers, CairnError *err)
{
    CURL *handle = exchange->handle->curl;
    const HttpRequest *request = exchange->request;
    char detail[CURL_ERROR_SIZE] = "";

    curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, detail);
    curl_easy_setopt(handle, CURLOPT_URL, request->url);
    curl_easy_setopt(handle, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(handle, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(handle, CURLOPT_BUFFERSIZE, (long)BUFFER_SIZE);
    curl_easy_setopt(handle, CURLOPT_UPLOAD_BUFFERSIZE, (long)BUFFER_SIZE);
    curl_easy_setopt(handle, CURLOPT_RESOLVE, exchange->pool->hosts);
    set_safety(handle, exchange->pool, request);
    set_time(handle, request);
    set_callbacks(handle, exchange);
    set_method(handle, exchange);

    const CURLcode code = curl_easy_perform(handle);
    curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, NULL);
    if (code == CURLE_OK)
        return true;
    exchange->answer->may_have_run = !failed_before_sending(code);
    return explain(exchange, code, detail, err);
}

bool
http_exchange(HttpPool *pool, const HttpRequest *request, HttpAnswer *answer_out, CairnError *err)
{
    CAIRN_ASSERT(request->header_count <= HTTP_REQUEST_HEADERS_LIMIT);
    http_answer_free(answer_out);
    Exchange exchange = {.pool = pool,
                         .request = request,
                         .answer = answer_out,
                         .begin_ns = pool->world->clock->monotonic_ns(pool->world->clock)};
    struct curl_slist *headers = make_headers(request);
    exchange.handle = take_handle(pool);
    const bool good = headers != NULL && exchange.handle != NULL
                          ? run(&exchange, headers, err)
                          : cairn_error(err, CAIRN_INTERNAL, "out of memory");
    return_handle(pool, exchange.handle);
    curl_slist_free_all(headers);
    return good;
}

/* A body may hold credentials. */
void
http_answer_free(HttpAnswer *answer)
{
    if (answer->body != NULL)
        OPENSSL_cleanse(answer->body, answer->body_size);
    free(answer->body);
    answer->body = NULL;
    answer->body_size = 0;
    answer->into_size = 0;
    answer->headers_size = 0;
    answer->headers[0] = '\0';
    answer->status = 0;
    answer->may_have_run = false;
}

bool
http_header(const HttpAnswer *answer, const char *name, char *text, size_t size)
{
    const size_t name_size = strlen(name);
    text[0] = '\0';
    for (const char *line = answer->headers; *line != '\0';) {
        const char *end = strchr(line, '\n');
        if (end == NULL) /* a NUL among the headers */
            return false;
        const size_t length = (size_t)(end - line);
        if (length > name_size && line[name_size] == ':' && strncmp(line, name, name_size) == 0) {
            const char *value = line + name_size + 1;
            while (*value == ' ' || *value == '\t')
                value++;
            const size_t value_size = (size_t)(end - value);
            if (value_size >= size)
                return false;
            memcpy(text, value, value_size);
            text[value_size] = '\0';
            return true;
        }
        line = end + 1;
    }
    return false;
}
