/* Preloaded into every process of a command: counts the calls that change files below one folder, in a counter that all
   processes share, and kills the process group at one of them. Calls are counted before they are made, but the opening of
   a file for writing after it was made: the file is then empty under its name. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The same layout as CONTROL in kill_process.py. */
struct control {
    _Atomic unsigned count; /* calls so far */
    unsigned kill_at;       /* the call that is not survived; 0: none */
    int group;              /* the process group of the command; 0: nothing is counted */
    char last[500];         /* what the last counted call was */
    char root[PATH_MAX];    /* only calls below this folder count */
};
static struct control *control;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("KILL_CALLS");
    if (!name) return;
    int file = syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CLOEXEC);
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED) control = mapped;
}

static int link_of(const char *name, char *out) {
    ssize_t length = readlink(name, out, PATH_MAX - 1);
    if (length <= 0) return 0;
    out[length] = 0;
    return 1;
}

static int path_of(int file, char *out) {
    char name[64];
    if (file == AT_FDCWD) return link_of("/proc/self/cwd", out);
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    return link_of(name, out);
}

static void count(const char *call, int folder, const char *path) {
    if (!control || !control->group) return;
    int before = errno;
    char base[PATH_MAX] = "";
    const char *place = path;
    if (!path || path[0] != '/') {
        if (!path_of(folder, base)) { errno = before; return; }
        size_t length = strlen(base);
        if (path && length < PATH_MAX - 1) memcpy(base + length, "/", 2);
        place = base;
    }
    if (!strncmp(place, control->root, strlen(control->root))) {
        unsigned number = atomic_fetch_add(&control->count, 1) + 1;
        if (!control->kill_at || number <= control->kill_at)
            snprintf(control->last, sizeof control->last, "%s %s%s", call, base, path ? path : "");
        if (number == control->kill_at) {
            kill(-control->group, SIGKILL);
            syscall(SYS_kill, getpid(), SIGKILL);
            for (;;) pause();
        }
    }
    errno = before;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define BEFORE(name, parameters, arguments, folder, path) \
    int name parameters { REAL(name); count(#name, folder, path); return real arguments; }

BEFORE(rename, (const char *a, const char *b), (a, b), AT_FDCWD, b)
BEFORE(renameat, (int f, const char *a, int g, const char *b), (f, a, g, b), g, b)
BEFORE(renameat2, (int f, const char *a, int g, const char *b, unsigned o), (f, a, g, b, o), g, b)
BEFORE(unlink, (const char *a), (a), AT_FDCWD, a)
BEFORE(unlinkat, (int f, const char *a, int o), (f, a, o), f, a)
BEFORE(remove, (const char *a), (a), AT_FDCWD, a)
BEFORE(rmdir, (const char *a), (a), AT_FDCWD, a)
BEFORE(mkdir, (const char *a, mode_t m), (a, m), AT_FDCWD, a)
BEFORE(mkdirat, (int f, const char *a, mode_t m), (f, a, m), f, a)
BEFORE(link, (const char *a, const char *b), (a, b), AT_FDCWD, b)
BEFORE(linkat, (int f, const char *a, int g, const char *b, int o), (f, a, g, b, o), g, b)
BEFORE(symlink, (const char *a, const char *b), (a, b), AT_FDCWD, b)
BEFORE(symlinkat, (const char *a, int g, const char *b), (a, g, b), g, b)
BEFORE(ftruncate, (int f, off_t n), (f, n), f, NULL)
BEFORE(ftruncate64, (int f, off64_t n), (f, n), f, NULL)
BEFORE(fsync, (int f), (f), f, NULL)
BEFORE(fdatasync, (int f), (f), f, NULL)

#define MODE \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
#define WRITES(flags) ((flags) & (O_CREAT | O_TRUNC) && ((flags) & O_ACCMODE) != O_RDONLY)
#define OPEN(name) \
    int name(const char *path, int flags, ...) { MODE REAL(name); int file = real(path, flags, mode); \
        if (file >= 0 && WRITES(flags)) count(#name, AT_FDCWD, path); return file; }
#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { MODE REAL(name); int file = real(folder, path, flags, mode); \
        if (file >= 0 && WRITES(flags)) count(#name, folder, path); return file; }
#define FOPEN(name) \
    FILE *name(const char *path, const char *how) { REAL(name); FILE *file = real(path, how); \
        if (file && how[0] != 'r') count(#name, AT_FDCWD, path); return file; }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
FOPEN(fopen)
FOPEN(fopen64)
