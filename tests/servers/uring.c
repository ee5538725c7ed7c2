/* A server that binds and listens by io_uring (Linux 6.11), unseen by any seccomp filter on bind(2) and listen(2).
 * It shares its port (SO_REUSEPORT), answers each connection with its process ID, and dies at once on SIGTERM.
 *
 * usage: uring HOST PORT      or: uring --probe (exit status 0: this kernel can do it)
 */

#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OP_BIND = 56, OP_LISTEN = 57, THREADS = 32 };

static int ring, listener;
static struct io_uring_params params;
static struct io_uring_sqe *entries;
static char *submission, *completion;

static void *map(size_t size, off_t what) {
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, what);
    return at == MAP_FAILED ? NULL : at;
}

static int open_ring(void) {
    ring = (int)syscall(SYS_io_uring_setup, 4, &params);
    if (ring < 0) return -errno;
    submission = map(params.sq_off.array + params.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
    completion = map(params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING);
    entries = map(params.sq_entries * sizeof *entries, IORING_OFF_SQES);
    return submission && completion && entries ? 0 : -ENOMEM;
}

/* One operation, waited for. */
static int operate(const struct io_uring_sqe *entry) {
    unsigned *tail = (unsigned *)(submission + params.sq_off.tail);
    unsigned index = *tail & *(unsigned *)(submission + params.sq_off.ring_mask);
    entries[index] = *entry;
    ((unsigned *)(submission + params.sq_off.array))[index] = index;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0) return -errno;
    unsigned *head = (unsigned *)(completion + params.cq_off.head);
    unsigned mask = *(unsigned *)(completion + params.cq_off.ring_mask);
    int result = ((struct io_uring_cqe *)(completion + params.cq_off.cqes))[*head & mask].res;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return result;
}

static int bind_and_listen(const struct sockaddr_in *address) {
    int on = 1;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    struct io_uring_sqe bind = {.opcode = OP_BIND, .fd = listener};
    bind.addr = (uintptr_t)address;
    bind.off = sizeof *address;
    struct io_uring_sqe listen = {.opcode = OP_LISTEN, .fd = listener, .len = 128};
    int result = operate(&bind);
    return result < 0 ? result : operate(&listen);
}

static void *serve(void *unused) {
    (void)unused;
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0) continue;
        char request[4096], body[32], answer[128];
        if (read(client, request, sizeof request) > 0) {
            int length = snprintf(body, sizeof body, "pid=%d\n", getpid());
            length = snprintf(answer, sizeof answer, "HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s", length, body);
            if (write(client, answer, (size_t)length) < 0) perror("write");
        }
        close(client);
    }
    return NULL;
}

int main(int count, char **arguments) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int probe = count == 2 && strcmp(arguments[1], "--probe") == 0;
    if (!probe) {
        if (count != 3 || inet_pton(AF_INET, arguments[1], &address.sin_addr) != 1) return 2;
        address.sin_port = htons((uint16_t)atoi(arguments[2]));
    }
    int result = open_ring();
    if (result >= 0) result = bind_and_listen(&address);
    if (result < 0) {
        fprintf(stderr, "bind and listen by io_uring: %s\n", strerror(-result));
        return 1;
    }
    if (probe) return 0;
    for (int thread = 1; thread < THREADS; thread++) {
        pthread_t id;
        if (pthread_create(&id, NULL, serve, NULL) != 0) return 1;
    }
    serve(NULL);
    return 0;
}
