// ajload - a load generator that plays a Choria AsyncJobs router: it sends tasks as NATS requests to
// CHORIA_AJ.H.T.<type>, checks every reply, and prints its figures as one line of JSON.
//
// build: gcc -O2 -Wall -Wextra -o ajload ajload.c -lnats -lm -lpthread (Debian: libnats-dev)
//
// One inbox wildcard subscription, the reply token is the task's index.
// Closed loop (-c outstanding) or open loop (-r Poisson arrivals, latency is
// measured from the *scheduled* arrival: no coordinated omission).
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <nats/nats.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

#define ST_NONE 0
#define ST_PENDING 1
#define ST_OK 2
#define ST_ERR 3
#define ST_TERM 4
#define ST_NORESP 5
#define ST_TIMEOUT 6
#define ST_SENDFAIL 7

enum { K_OK, K_ERROR, K_TERM, K_N };
static const char *KN[] = {"ok", "error", "terminate"};

typedef struct { double v[16]; double w[16]; int n; double tot; } dist_t;

typedef struct {
    int64_t t0;              // latency origin: scheduled arrival (open) / send (closed)
    int64_t sent;
    _Atomic int64_t recv;
    _Atomic int st;
    float svc_ms;
    uint8_t kind;
    uint8_t mismatch;
} rec_t;

static rec_t *R;
static long total_n;
static atomic_long answered, outstanding, dups, late, bad_body, bad_kind, badtoken;
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cv;
static _Atomic int waiting;
static bool echo_id;
static char idprefix[16];
static size_t tokoff;

static inline int64_t now_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

// xorshift64*
static uint64_t rs = 88172645463325252ULL;
static inline uint64_t rnd(void) { rs ^= rs >> 12; rs ^= rs << 25; rs ^= rs >> 27; return rs * 2685821657736338717ULL; }
static inline double rndu(void) { return ((rnd() >> 11) + 0.5) * (1.0 / 9007199254740992.0); }

static void dist_parse(dist_t *d, const char *s) {
    d->n = 0; d->tot = 0;
    char *c = strdup(s), *sv = NULL;
    for (char *p = strtok_r(c, ",", &sv); p; p = strtok_r(NULL, ",", &sv)) {
        char *col = strchr(p, ':');
        if (d->n == 16) { fprintf(stderr, "distribution too long\n"); exit(2); }
        d->v[d->n] = atof(p);
        d->w[d->n] = col ? atof(col + 1) : 1;
        d->tot += d->w[d->n];
        d->n++;
    }
    free(c);
}
static double dist_draw(dist_t *d) {
    if (!d->n) return 0;
    double x = rndu() * d->tot;
    for (int i = 0; i < d->n; i++) { if (x < d->w[i]) return d->v[i]; x -= d->w[i]; }
    return d->v[d->n - 1];
}

static void mkid(char out[28], long i) {   // 27 characters, KSUID-like
    static const char A[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    memcpy(out, idprefix, 12);
    uint64_t x = (uint64_t)i * 0x9E3779B97F4A7C15ULL;
    for (int k = 12; k < 19; k++) { out[k] = A[x % 62]; x /= 62; }
    unsigned long y = (unsigned long)i;
    for (int k = 26; k >= 19; k--) { out[k] = A[y % 62]; y /= 62; }
    out[27] = 0;
}

static const char B64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static size_t b64(const unsigned char *in, size_t n, char *out) {
    size_t o = 0, i;
    for (i = 0; i + 2 < n; i += 3) {
        uint32_t v = in[i] << 16 | in[i + 1] << 8 | in[i + 2];
        out[o++] = B64[v >> 18]; out[o++] = B64[v >> 12 & 63]; out[o++] = B64[v >> 6 & 63]; out[o++] = B64[v & 63];
    }
    if (i < n) {
        uint32_t v = in[i] << 16 | (i + 1 < n ? in[i + 1] << 8 : 0);
        out[o++] = B64[v >> 18]; out[o++] = B64[v >> 12 & 63];
        out[o++] = i + 1 < n ? B64[v >> 6 & 63] : '='; out[o++] = '=';
    }
    return o;
}

static void release_slot(void) {
    atomic_fetch_sub(&outstanding, 1);
    if (atomic_load(&waiting)) {
        pthread_mutex_lock(&mu);
        pthread_cond_signal(&cv);
        pthread_mutex_unlock(&mu);
    }
}

static void on_reply(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *closure) {
    (void)nc; (void)sub; (void)closure;
    int64_t t = now_ns();
    const char *subj = natsMsg_GetSubject(msg);
    char *e;
    long i = strlen(subj) > tokoff ? strtol(subj + tokoff, &e, 10) : -1;
    if (i < 0 || i >= total_n) { atomic_fetch_add(&badtoken, 1); natsMsg_Destroy(msg); return; }
    rec_t *r = &R[i];
    int st = ST_OK;
    const char *v = NULL;
    if (natsMsg_IsNoResponders(msg)) st = ST_NORESP;
    else if (natsMsgHeader_Get(msg, "AJ-Terminate", &v) == NATS_OK && v && *v) st = ST_TERM;
    else if (natsMsgHeader_Get(msg, "AJ-Error", &v) == NATS_OK && v && *v) st = ST_ERR;
    int old = ST_PENDING;
    if (!atomic_compare_exchange_strong(&r->st, &old, st)) {
        if (old == ST_TIMEOUT) atomic_fetch_add(&late, 1);
        else atomic_fetch_add(&dups, 1);
        natsMsg_Destroy(msg);
        return;
    }
    atomic_store(&r->recv, t);
    if (st != ST_NORESP) {
        int want = r->kind == K_OK ? ST_OK : r->kind == K_ERROR ? ST_ERR : ST_TERM;
        if (st != want) atomic_fetch_add(&bad_kind, 1);
        if (echo_id && st == ST_OK) {
            char id[28]; mkid(id, i);
            int l = natsMsg_GetDataLength(msg);
            if (!memmem(natsMsg_GetData(msg), l, id, 27)) atomic_fetch_add(&bad_body, 1);
        }
    }
    natsMsg_Destroy(msg);
    atomic_fetch_add(&answered, 1);
    release_slot();
}

static int cmpd(const void *a, const void *b) { double x = *(double *)a, y = *(double *)b; return x < y ? -1 : x > y; }
static double pct(double *a, long n, double p) {
    if (!n) return 0;
    long k = (long)ceil(p / 100.0 * n) - 1;
    return a[k < 0 ? 0 : k >= n ? n - 1 : k];
}

static void usage(void) {
    fprintf(stderr,
        "ajload [options]\n"
        " -s URL          server (nats://127.0.0.1:4222)\n"
        " -t TYPES        task types, comma separated (bench)\n"
        " -P PREFIX       subject prefix (CHORIA_AJ.H.T.)\n"
        " -n COUNT        measured tasks (1000)\n"
        " -w COUNT        warm-up tasks, not measured (0)\n"
        " -c N            outstanding requests: closed loop: the limit (32); open loop: a cap (none)\n"
        " -r RATE         open loop: RATE tasks/s, Poisson arrivals (--uniform: evenly spaced)\n"
        " -p BYTES        padding in the task payload (0)\n"
        " -d SECONDS      deadline header, from now (30)\n"
        " --timeout SEC   wait for a reply (deadline + 2)\n"
        " --sleep DIST    e.g. 5:90,200:10 = 90%% 5 ms, 10%% 200 ms -> payload sleep_ms\n"
        " --cpu DIST      -> payload cpu_ms\n"
        " --kind DIST     0:w,1:w,2:w = ok, error, terminate -> payload kind\n"
        " --echo-id       an ok reply's body must hold the task's id\n"
        " --max-time SEC  stop sending after SEC (600)\n"
        " --batch         let cnats batch writes (1 ms flusher) rather than write at once\n"
        " --seed N        --trace FILE (CSV: n,sched_s,svc_ms,lat_ms,status)  --label TEXT\n"
        " --no-responders-ok / --timeouts-ok   do not fail on those\n"
        "exit: 0 all answered as asked, 1 lost / duplicate / wrong replies, 2 usage or connect\n");
    exit(2);
}

int main(int argc, char **argv) {
    const char *url = "nats://127.0.0.1:4222", *types = "bench", *prefix = "CHORIA_AJ.H.T.", *trace = NULL, *label = "";
    long n = 1000, warm = 0, conc = -1, pad = 0, deadline = 30;
    double rate = 0, timeout = -1, maxtime = 600;
    bool uniform = false, batch = false, nr_ok = false, to_ok = false;
    uint64_t seed = 1;
    dist_t ds = {0}, dc = {0}, dk = {0};
    static struct option lo[] = {{"sleep", 1, 0, 1}, {"cpu", 1, 0, 2}, {"kind", 1, 0, 3}, {"echo-id", 0, 0, 4},
        {"seed", 1, 0, 5}, {"trace", 1, 0, 6}, {"label", 1, 0, 7}, {"uniform", 0, 0, 8}, {"timeout", 1, 0, 9},
        {"max-time", 1, 0, 10}, {"batch", 0, 0, 11}, {"no-responders-ok", 0, 0, 12}, {"timeouts-ok", 0, 0, 13},
        {"help", 0, 0, 'h'}, {0, 0, 0, 0}};
    int o;
    while ((o = getopt_long(argc, argv, "s:t:P:n:w:c:r:p:d:h", lo, NULL)) != -1) switch (o) {
        case 's': url = optarg; break;
        case 't': types = optarg; break;
        case 'P': prefix = optarg; break;
        case 'n': n = atol(optarg); break;
        case 'w': warm = atol(optarg); break;
        case 'c': conc = atol(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 'p': pad = atol(optarg); break;
        case 'd': deadline = atol(optarg); break;
        case 1: dist_parse(&ds, optarg); break;
        case 2: dist_parse(&dc, optarg); break;
        case 3: dist_parse(&dk, optarg); break;
        case 4: echo_id = true; break;
        case 5: seed = strtoull(optarg, 0, 10); break;
        case 6: trace = optarg; break;
        case 7: label = optarg; break;
        case 8: uniform = true; break;
        case 9: timeout = atof(optarg); break;
        case 10: maxtime = atof(optarg); break;
        case 11: batch = true; break;
        case 12: nr_ok = true; break;
        case 13: to_ok = true; break;
        default: usage();
    }
    if (conc < 0) conc = rate > 0 ? 1000000 : 32;
    if (n < 1 || warm < 0 || conc < 1 || pad < 0) usage();
    if (timeout < 0) timeout = deadline + 2;
    rs = seed * 0x9E3779B97F4A7C15ULL + 1;
    for (int i = 0; i < 8; i++) rnd();
    prctl(PR_SET_TIMERSLACK, 1000UL);
    pthread_condattr_t ca; pthread_condattr_init(&ca); pthread_condattr_setclock(&ca, CLOCK_MONOTONIC); pthread_cond_init(&cv, &ca);

    char *tv[64]; int tn = 0; char *sv = NULL, *tc = strdup(types);
    for (char *p = strtok_r(tc, ",", &sv); p && tn < 64; p = strtok_r(NULL, ",", &sv)) tv[tn++] = p;
    if (!tn) usage();
    char *subjects[64];
    for (int i = 0; i < tn; i++) if (asprintf(&subjects[i], "%s%s", prefix, tv[i]) < 0) return 2;

    total_n = n + warm;
    R = calloc(total_n, sizeof *R);
    natsOptions *opts = NULL; natsConnection *nc = NULL; natsSubscription *sub = NULL;
    natsStatus s = natsOptions_Create(&opts);
    if (s == NATS_OK) s = natsOptions_SetURL(opts, url);
    if (s == NATS_OK) s = natsOptions_SetName(opts, "ajload");
    if (s == NATS_OK) s = natsOptions_SetSendAsap(opts, !batch);
    if (s == NATS_OK) s = natsOptions_SetMaxReconnect(opts, 600);
    if (s == NATS_OK) s = natsOptions_SetReconnectWait(opts, 100);
    if (s == NATS_OK) s = natsConnection_Connect(&nc, opts);
    if (s != NATS_OK) { fprintf(stderr, "connect %s: %s\n", url, natsStatus_GetText(s)); return 2; }
    natsInbox *inbox = NULL;
    natsInbox_Create(&inbox);
    char isub[128]; snprintf(isub, sizeof isub, "%s.*", inbox);
    tokoff = strlen(inbox) + 1;
    snprintf(idprefix, sizeof idprefix, "2%.11s", inbox + strlen(inbox) - 11);
    // not natsOptions_SetMaxPendingMsgs: 3.4.1 sets bytes = msgs * 1024 in an int, which overflows to 0
    s = natsConnection_Subscribe(&sub, nc, isub, on_reply, NULL);
    if (s == NATS_OK) s = natsSubscription_SetPendingLimits(sub, 0x7fffffff, 0x7fffffff);
    if (s == NATS_OK) s = natsConnection_FlushTimeout(nc, 5000);
    if (s != NATS_OK) { fprintf(stderr, "subscribe %s: %s: %s\n", isub, natsStatus_GetText(s), nats_GetLastError(NULL)); return 2; }

    unsigned char *pl = malloc(pad + 512);
    char *body = malloc((pad + 512) * 2 + 1024), *padb = malloc(pad + 1);
    for (long i = 0; i < pad; i++) padb[i] = 'a' + i % 26;
    padb[pad] = 0;

    int64_t start = 0, next = 0, phase0 = 0;
    long oldest = 0, i = 0, timeouts = 0, sendfail = 0;
    int64_t tmo = (int64_t)(timeout * 1e9);
    char dl[40] = ""; time_t dlsec = 0;
    struct rusage ru0, ru1;
    getrusage(RUSAGE_SELF, &ru0);
    int64_t begin = now_ns();
    double nextf = 0;

    #define SWEEP(t) do { int64_t _t = (t); while (oldest < i) { rec_t *q = &R[oldest]; int st_ = atomic_load(&q->st); \
        if (st_ == ST_PENDING) { if (_t - q->sent < tmo) break; int ex = ST_PENDING; \
            if (atomic_compare_exchange_strong(&q->st, &ex, ST_TIMEOUT)) { atomic_store(&q->recv, _t); timeouts++; atomic_fetch_sub(&outstanding, 1); } } \
        oldest++; } } while (0)
    #define WAIT_SLOT(limit) while (atomic_load(&outstanding) >= (limit)) { \
        pthread_mutex_lock(&mu); atomic_store(&waiting, 1); \
        if (atomic_load(&outstanding) >= (limit)) { struct timespec ts; clock_gettime(CLOCK_MONOTONIC, &ts); ts.tv_nsec += 50000000; \
            if (ts.tv_nsec >= 1000000000) { ts.tv_nsec -= 1000000000; ts.tv_sec++; } pthread_cond_timedwait(&cv, &mu, &ts); } \
        atomic_store(&waiting, 0); pthread_mutex_unlock(&mu); SWEEP(now_ns()); }

    for (i = 0; i < total_n; i++) {
        if (i == warm) {
            if (warm) WAIT_SLOT(1);
            getrusage(RUSAGE_SELF, &ru0);
            start = now_ns();
        }
        if (i == 0 || i == warm) { phase0 = now_ns() + 1000000; nextf = 0; }
        rec_t *r = &R[i];
        double sl = dist_draw(&ds), cp = dist_draw(&dc);
        r->kind = dk.n ? (uint8_t)dist_draw(&dk) % K_N : K_OK;
        r->svc_ms = sl + cp;
        if (rate > 0) {
            nextf += uniform ? 1.0 / rate : -log(rndu()) / rate;
            next = phase0 + (int64_t)(nextf * 1e9);
        }
        // body is built before the slot / arrival time
        int pn = snprintf((char *)pl, pad + 512, "{\"n\":%ld", i);
        if (ds.n) pn += sprintf((char *)pl + pn, ",\"sleep_ms\":%g", sl);
        if (dc.n) pn += sprintf((char *)pl + pn, ",\"cpu_ms\":%g", cp);
        if (dk.n) pn += sprintf((char *)pl + pn, ",\"kind\":\"%s\"", KN[r->kind]);
        if (pad) pn += sprintf((char *)pl + pn, ",\"pad\":\"%s\"", padb);
        pl[pn++] = '}';
        char id[28]; mkid(id, i);
        const char *tt = tv[i % tn];
        int bn = sprintf(body, "{\"id\":\"%s\",\"type\":\"%s\",\"queue\":\"DEFAULT\",\"payload\":\"", id, tt);
        bn += b64(pl, pn, body + bn);
        struct timespec rt; clock_gettime(CLOCK_REALTIME, &rt);
        struct tm tm; gmtime_r(&rt.tv_sec, &tm);
        char ts1[48]; int tl = strftime(ts1, sizeof ts1, "%Y-%m-%dT%H:%M:%S", &tm); sprintf(ts1 + tl, ".%09ldZ", rt.tv_nsec);
        bn += sprintf(body + bn, "\",\"max_tries\":10,\"state\":\"active\",\"created\":\"%s\",\"tried\":\"%s\",\"tries\":%ld}", ts1, ts1, 1 + i % 9);
        if (rt.tv_sec != dlsec) {
            dlsec = rt.tv_sec;
            time_t d = dlsec + deadline; gmtime_r(&d, &tm);
            strftime(dl, sizeof dl, "%Y-%m-%dT%H:%M:%SZ", &tm);
        }
        char reply[160]; snprintf(reply, sizeof reply, "%s.%ld", inbox, i);
        natsMsg *m = NULL;
        s = natsMsg_Create(&m, subjects[i % tn], reply, body, bn);
        if (s == NATS_OK) s = natsMsgHeader_Set(m, "AJ-Content-Type", "application/x-asyncjobs-task+json");
        if (s == NATS_OK) s = natsMsgHeader_Set(m, "AJ-Handler-Deadline", dl);
        if (s != NATS_OK) { fprintf(stderr, "message: %s\n", natsStatus_GetText(s)); return 2; }
        if (rate > 0) {
            int64_t t = now_ns();
            if (next > t) { struct timespec w = {next / 1000000000LL, next % 1000000000LL}; while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &w, NULL) == EINTR) ; }
            if ((i & 63) == 0) SWEEP(now_ns());
            WAIT_SLOT(conc);
        } else WAIT_SLOT(conc);
        int64_t t = now_ns();
        if ((t - begin) > (int64_t)(maxtime * 1e9)) { natsMsg_Destroy(m); break; }
        r->sent = t;
        r->t0 = rate > 0 ? next : t;
        atomic_store(&r->st, ST_PENDING);
        atomic_fetch_add(&outstanding, 1);
        s = natsConnection_PublishMsg(nc, m);
        natsMsg_Destroy(m);
        if (s != NATS_OK) {
            int ex = ST_PENDING;
            if (atomic_compare_exchange_strong(&r->st, &ex, ST_SENDFAIL)) { sendfail++; atomic_fetch_sub(&outstanding, 1); }
            struct timespec w = {0, 5000000}; nanosleep(&w, NULL);
        }
    }
    long sent_all = i;
    WAIT_SLOT(1);
    int64_t endt = now_ns();
    getrusage(RUSAGE_SELF, &ru1);
    struct timespec grace = {0, 100000000}; nanosleep(&grace, NULL);   // late duplicates

    long c_ok = 0, c_err = 0, c_term = 0, c_nr = 0, c_to = 0, c_sf = 0, k = 0;
    double *lat = malloc(sizeof(double) * (n + 1)), *ovh = malloc(sizeof(double) * (n + 1));
    int64_t last = start; double svcsum = 0, lsum = 0, osum = 0, lagmax = 0;
    FILE *tf = trace ? fopen(trace, "w") : NULL;
    if (tf) fprintf(tf, "n,sched_s,svc_ms,lat_ms,status\n");
    for (long j = warm; j < sent_all; j++) {
        rec_t *r = &R[j]; int st = atomic_load(&r->st); int64_t rc = atomic_load(&r->recv);
        switch (st) { case ST_OK: c_ok++; break; case ST_ERR: c_err++; break; case ST_TERM: c_term++; break;
            case ST_NORESP: c_nr++; break; case ST_SENDFAIL: c_sf++; break; default: c_to++; }
        if (st == ST_OK || st == ST_ERR || st == ST_TERM) {
            lat[k] = (rc - r->t0) / 1e6; ovh[k] = lat[k] - r->svc_ms; svcsum += r->svc_ms; lsum += lat[k]; osum += ovh[k]; k++;
            if (rc > last) last = rc;
        }
        double lg = (r->sent - r->t0) / 1e6; if (lg > lagmax) lagmax = lg;
        if (tf) fprintf(tf, "%ld,%.6f,%g,%.3f,%d\n", j, (r->t0 - start) / 1e9, r->svc_ms, rc ? (rc - r->t0) / 1e6 : -1, st);
    }
    if (tf) fclose(tf);
    qsort(lat, k, sizeof *lat, cmpd); qsort(ovh, k, sizeof *ovh, cmpd);
    double wall = ((k ? last : endt) - start) / 1e9;
    #define TVD(a, b) ((b.tv_sec - a.tv_sec) + (b.tv_usec - a.tv_usec) / 1e6)
    double cpu = TVD(ru0.ru_utime, ru1.ru_utime) + TVD(ru0.ru_stime, ru1.ru_stime);
    long sent = sent_all - warm > 0 ? sent_all - warm : 0;
    printf("{\"label\":\"%s\",\"sent\":%ld,\"ok\":%ld,\"aj_error\":%ld,\"aj_terminate\":%ld,\"no_responders\":%ld,\"timeouts\":%ld,"
           "\"send_failed\":%ld,\"duplicates\":%ld,\"late\":%ld,\"bad_body\":%ld,\"unexpected_kind\":%ld,\"bad_token\":%ld,"
           "\"wall_s\":%.4f,\"per_s\":%.1f,\"svc_mean_ms\":%.3f,"
           "\"lat_ms\":{\"mean\":%.3f,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"p99.9\":%.3f,\"max\":%.3f},"
           "\"overhead_ms\":{\"mean\":%.3f,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"p99.9\":%.3f,\"max\":%.3f},"
           "\"send_lag_max_ms\":%.3f,\"ajload_cpu_us_per_task\":%.2f}\n",
           label, sent, c_ok, c_err, c_term, c_nr, c_to, c_sf, atomic_load(&dups), atomic_load(&late), atomic_load(&bad_body),
           atomic_load(&bad_kind), atomic_load(&badtoken), wall, wall > 0 ? k / wall : 0, k ? svcsum / k : 0,
           k ? lsum / k : 0, pct(lat, k, 50), pct(lat, k, 90), pct(lat, k, 99), pct(lat, k, 99.9), k ? lat[k - 1] : 0,
           k ? osum / k : 0, pct(ovh, k, 50), pct(ovh, k, 90), pct(ovh, k, 99), pct(ovh, k, 99.9), k ? ovh[k - 1] : 0,
           lagmax, sent ? cpu * 1e6 / sent : 0);
    fflush(stdout);
    natsSubscription_Destroy(sub); natsConnection_Close(nc); natsConnection_Destroy(nc); natsOptions_Destroy(opts); natsInbox_Destroy(inbox);
    nats_Close();
    bool bad = atomic_load(&dups) || atomic_load(&bad_body) || atomic_load(&bad_kind) || atomic_load(&badtoken) || sent_all < total_n ||
               (c_to && !to_ok) || (c_sf && !to_ok) || (c_nr && !nr_ok);
    return bad ? 1 : 0;
}
