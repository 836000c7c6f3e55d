/* Preloaded into a server: makes the disk of its audit log fail as long as it is told to.
 *
 * FAULT_PATH: the audit directory, without symbolic links.  FAULT_DIR: a directory; while it has a file that is named after a
 * fault and holds the number of an error, what touches files of the audit directory fails with that error:
 *   write   write, writev and pwrite of what is already open
 *   sync    fdatasync and fsync
 *   open    opening for writing, or making, a file
 *   delay   no error, but milliseconds that a sync which fails takes before it does
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Which error a fault has now; 0 while there is none. */
static int told(const char *fault) {
    char path[4096], text[16] = "";
    const char *directory = getenv("FAULT_DIR");
    if (directory == NULL) return 0;
    snprintf(path, sizeof path, "%s/%s", directory, fault);
    int fd = REAL(open)(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    return length > 0 ? atoi(text) : 0;
}

static int is_below(const char *path) {
    const char *directory = getenv("FAULT_PATH");
    size_t length = directory == NULL ? 0 : strlen(directory);
    return length > 0 && strncmp(path, directory, length) == 0 && path[length] == '/';
}

static int is_audit_file(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return is_below(path);
}

static int fails(const char *fault, int fd) {
    int saved = errno, error = told(fault);
    if (error != 0 && is_audit_file(fd)) {
        errno = error;
        return 1;
    }
    errno = saved;
    return 0;
}

static int fails_to_sync(int fd) {
    if (!fails("sync", fd)) return 0;
    int delay_ms = told("delay");
    struct timespec rest = {delay_ms / 1000, delay_ms % 1000 * 1000000L};
    while (nanosleep(&rest, &rest) != 0) continue;
    errno = told("sync") ? told("sync") : EIO;
    return 1;
}

ssize_t write(int fd, const void *data, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    if (real == NULL) real = REAL(write);
    return fails("write", fd) ? -1 : real(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    static ssize_t (*real)(int, const struct iovec *, int);
    if (real == NULL) real = REAL(writev);
    return fails("write", fd) ? -1 : real(fd, parts, count);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (real == NULL) real = REAL(pwrite);
    return fails("write", fd) ? -1 : real(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (real == NULL) real = REAL(pwrite64);
    return fails("write", fd) ? -1 : real(fd, data, size, at);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (real == NULL) real = REAL(fdatasync);
    return fails_to_sync(fd) ? -1 : real(fd);
}

int fsync(int fd) {
    static int (*real)(int);
    if (real == NULL) real = REAL(fsync);
    return fails_to_sync(fd) ? -1 : real(fd);
}

static int may_not(const char *path, int flags) {
    int saved = errno, error = (flags & (O_WRONLY | O_RDWR | O_CREAT)) && is_below(path) ? told("open") : 0;
    errno = error != 0 ? error : saved;
    return error != 0;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        static int (*real)(const char *, int, ...); \
        if (real == NULL) real = dlsym(RTLD_NEXT, #name); \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = (flags & O_CREAT) ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        return may_not(path, flags) ? -1 : real(path, flags, mode); \
    }
#define OPENAT(name) \
    int name(int from, const char *path, int flags, ...) { \
        static int (*real)(int, const char *, int, ...); \
        if (real == NULL) real = dlsym(RTLD_NEXT, #name); \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = (flags & O_CREAT) ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        return may_not(path, flags) ? -1 : real(from, path, flags, mode); \
    }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
