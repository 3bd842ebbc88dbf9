// A stand-in for libnccl.so: see README.md. Ranks are processes or threads of this machine, and bytes go through sockets.
//
// What NCCL leaves to its user is refused or shows: a call before the last one was taken, memory that isn't a device's, and
// sizes that don't fit are errors; a send reads its memory at some moment, and a receive makes its memory NaNs until it has
// come. A rank that is gone shows as an error where something of it is waited for, and nothing goes on until the abort.
#include "driver.h"
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <map>
#include <memory>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <vector>

typedef int Result;
enum : Result {
    SUCCESS = 0,
    SYSTEM_ERROR = 2,
    INTERNAL_ERROR = 3,
    INVALID_ARGUMENT = 4,
    INVALID_USAGE = 5,
    REMOTE_ERROR = 6,
    IN_PROGRESS = 7,
};

struct UniqueId {
    char folder[128];
};

// As far as this program sets it.
struct Config {
    size_t size;
    unsigned magic, version;
    int blocking;
};

namespace {

struct Hello {
    int rank, world, device;
};

struct Header {
    uint64_t kind, bytes;  // 1: a message, 2: a part of a sum.
};

struct Peer {
    int fd = -1;
    bool greeted = false, gone = false;
    std::string out, in;
};

struct Send {
    int to;
    const char *from;
    size_t bytes;
};

struct Receive {
    int from;
    char *into;
    size_t bytes;
    bool adds;  // What comes is kept, to be added up.
    std::string values;
    bool done = false;
};

// Calls of one group, from their launch to their end.
struct Work {
    uint64_t kind = 1, number = 0;
    std::vector<Send> sends;
    std::vector<Receive> receives;
    const char *own = nullptr;  // This rank's part of a sum that ends here.
    bool begun = false, sent = false;
    unsigned delay = 0;
};

struct Comm {
    int rank, world, device, listener = -1;
    std::string folder, said;
    std::vector<Peer> peers;
    bool connected = false, aborted = false, hangs = false;
    Result error = SUCCESS;
    unsigned polls = 0;
    uint64_t works = 0;
    std::deque<std::pair<std::shared_ptr<Work>, void *>> launches;
    std::chrono::steady_clock::time_point pumped;
};

thread_local int depth = 0;
thread_local std::map<Comm *, std::pair<std::shared_ptr<Work>, void *>> group;

Result fail(Comm *comm, Result error, const std::string &said) {
    STANDIN_LOG("NCCL, rank %d: %s", comm->rank, said.c_str());
    comm->said = said;
    return comm->error = error;
}

std::string socket_of(const Comm *comm, int rank) { return comm->folder + "/" + std::to_string(rank); }

sockaddr_un address_of(const std::string &path) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    return address;
}

void unblock(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

// Moves what sockets take and have.
void pump(Comm *comm) {
    comm->pumped = std::chrono::steady_clock::now();
    for (Peer &peer : comm->peers) {
        if (peer.fd < 0 || peer.gone) continue;
        while (!peer.out.empty()) {
            ssize_t n = send(peer.fd, peer.out.data(), peer.out.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n < 0 && (errno == EAGAIN || errno == EINTR)) break;
            if (n < 0) {
                peer.gone = true;
                break;
            }
            peer.out.erase(0, n);
        }
        char buffer[65536];
        for (;;) {
            ssize_t n = recv(peer.fd, buffer, sizeof buffer, MSG_DONTWAIT);
            if (n > 0) peer.in.append(buffer, n);
            if (n > 0) continue;
            if (n == 0 || (errno != EAGAIN && errno != EINTR)) peer.gone = true;
            break;
        }
    }
}

// Takes a hello off a connection that has just come.
bool greet(Comm *comm, Peer &peer, int *rank) {
    Hello hello;
    ssize_t n = recv(peer.fd, &hello, sizeof hello, MSG_DONTWAIT | MSG_PEEK);
    if (n != sizeof hello) return false;
    (void)!recv(peer.fd, &hello, sizeof hello, 0);
    if (hello.world != comm->world) fail(comm, INVALID_USAGE, "ranks speak of worlds of other sizes");
    if (hello.device == comm->device) fail(comm, INVALID_USAGE, "Duplicate GPU detected");
    *rank = hello.rank;
    return true;
}

// One try to connect to whom is missing. Higher ranks dial lower ones; each says who it is.
void connect_some(Comm *comm) {
    static std::map<Comm *, std::vector<Peer>> strangers;
    Hello hello = {comm->rank, comm->world, comm->device};
    for (int rank = 0; rank < comm->rank; rank++) {
        Peer &peer = comm->peers[rank];
        if (peer.fd < 0) {
            int fd = socket(AF_UNIX, SOCK_STREAM, 0);
            sockaddr_un address = address_of(socket_of(comm, rank));
            if (connect(fd, (sockaddr *)&address, sizeof address)) {
                close(fd);
                continue;
            }
            (void)!send(fd, &hello, sizeof hello, MSG_NOSIGNAL);
            unblock(fd);
            peer.fd = fd;
        }
        int who;
        if (!peer.greeted) peer.greeted = greet(comm, peer, &who);
    }
    for (int fd; (fd = accept(comm->listener, nullptr, nullptr)) >= 0;) {
        (void)!send(fd, &hello, sizeof hello, MSG_NOSIGNAL);
        unblock(fd);
        Peer stranger;
        stranger.fd = fd;
        strangers[comm].push_back(stranger);
    }
    auto &waiting = strangers[comm];
    for (size_t i = 0; i < waiting.size(); i++) {
        int who;
        if (!greet(comm, waiting[i], &who)) continue;
        waiting[i].greeted = true;
        comm->peers[who] = waiting[i];
        waiting.erase(waiting.begin() + i--);
    }
    for (int rank = 0; rank < comm->world; rank++)
        if (rank != comm->rank && !comm->peers[rank].greeted) return;
    strangers.erase(comm);
    comm->connected = true;
    unlink(socket_of(comm, comm->rank).c_str());
    rmdir(comm->folder.c_str());  // By the last one.
}

// Faults: `KIND:RANK:WORK`, planted once if POLESTAR_STANDIN_NCCL_ONCE names a file that isn't there yet.
bool is_planted(Comm *comm, const Work &work, const char *kind) {
    const char *text = getenv("POLESTAR_STANDIN_NCCL");
    std::string here = std::string(kind) + ":" + std::to_string(comm->rank) + ":" + std::to_string(work.number);
    if (!text || here != text) return false;
    const char *once = getenv("POLESTAR_STANDIN_NCCL_ONCE");
    int fd = once ? open(once, O_CREAT | O_EXCL | O_WRONLY, 0600) : -1;
    if (once && fd < 0) return false;
    if (fd >= 0) close(fd);
    STANDIN_LOG("NCCL, rank %d: %s, as planted", comm->rank, kind);
    return true;
}

// The stream has come to a work: its receives' memory is of no meaning until they have come.
void begin(Comm *comm, Work &work) {
    work.begun = true;
    work.delay = polestar_standin_draw() % 4;
    for (Receive &receive : work.receives)
        if (!receive.adds) memset(receive.into, 0xff, receive.bytes);
    if (is_planted(comm, work, "error")) fail(comm, INTERNAL_ERROR, "an error that was planted");
    if (is_planted(comm, work, "hang")) comm->hangs = true;
}

void hand_over(Comm *comm, Work &work) {
    work.sent = true;
    bool dies = is_planted(comm, work, "die");
    for (const Send &send : work.sends) {
        Header header = {work.kind, send.bytes};
        std::string &out = comm->peers[send.to].out;
        out.append((const char *)&header, sizeof header);
        out.append(send.from, dies ? send.bytes / 2 : send.bytes);
    }
    if (!dies) return;
    // Half of it arrives.
    pump(comm);
    _exit(9);
}

// Takes what has come of one receive. False: it isn't all there.
bool take(Comm *comm, Work &work, Receive &receive) {
    Peer &peer = comm->peers[receive.from];
    Header header;
    bool headed = peer.in.size() >= sizeof header;
    if (headed) memcpy(&header, peer.in.data(), sizeof header);
    if (headed && (header.kind != work.kind || header.bytes != receive.bytes)) {
        fail(comm, INVALID_USAGE, "rank " + std::to_string(receive.from) + " sent " + std::to_string(header.bytes) +
                                      " bytes where " + std::to_string(receive.bytes) + " were expected");
        return false;
    }
    if (!headed || peer.in.size() < sizeof header + receive.bytes) {
        if (peer.gone) fail(comm, REMOTE_ERROR, "rank " + std::to_string(receive.from) + " is gone");
        return false;
    }
    receive.values = peer.in.substr(sizeof header, receive.bytes);
    peer.in.erase(0, sizeof header + receive.bytes);
    return receive.done = true;
}

bool is_ready(Comm *comm, Work &work) {
    if (comm->aborted) return true;
    if (comm->error || comm->hangs) return false;
    if (!work.begun) begin(comm, work);
    auto now = std::chrono::steady_clock::now();
    if (comm->error || now - comm->pumped < std::chrono::microseconds(20)) return false;
    comm->pumped = now;
    if (work.delay && work.delay--) return false;
    if (!work.sent) hand_over(comm, work);
    pump(comm);
    std::vector<bool> waits(comm->world);
    bool ready = true;
    for (Receive &receive : work.receives) {
        // In the order in which they were sent.
        if (receive.done || waits[receive.from] || comm->error) continue;
        if (!take(comm, work, receive)) ready = false, waits[receive.from] = true;
    }
    for (Peer &peer : comm->peers) {
        if (peer.out.empty()) continue;
        if (peer.gone && !comm->error) fail(comm, REMOTE_ERROR, "a rank that something goes to is gone");
        ready = false;
    }
    return ready && !comm->error;
}

void finish(Comm *comm, Work &work) {
    if (comm->aborted) return;
    Receive *sum = nullptr;
    for (Receive &receive : work.receives) {
        if (!receive.adds) memcpy(receive.into, receive.values.data(), receive.bytes);
        else sum = &receive;
    }
    if (!work.own) return;
    // In the order of ranks, which is no tree's.
    size_t count = sum ? sum->bytes / 4 : 0;
    for (size_t i = 0; i < count; i++) {
        float total = 0;
        for (int rank = 0; rank < comm->world; rank++) {
            float value;
            memcpy(&value, work.own + 4 * i, 4);
            for (Receive &receive : work.receives)
                if (receive.from == rank) memcpy(&value, receive.values.data() + 4 * i, 4);
            total = rank ? total + value : value;
        }
        memcpy(sum->into + 4 * i, &total, 4);
    }
}

// Gives the stream what was launched, some polls later.
Result launch(Comm *comm) {
    if (comm->launches.empty()) return SUCCESS;
    if (comm->polls && comm->polls--) return IN_PROGRESS;
    auto [work, stream] = comm->launches.front();
    comm->launches.pop_front();
    work->number = ++comm->works;
    polestar_standin_enqueue_when(stream, new std::function<bool()>([=] { return is_ready(comm, *work); }),
                                  new std::function<void()>([=] { finish(comm, *work); }));
    return comm->launches.empty() ? SUCCESS : IN_PROGRESS;
}

Result refuse(Comm *comm, const char *what) {
    fail(comm, INVALID_USAGE, what);
    return INVALID_USAGE;
}

// The work of this group's calls on a communicator.
Result work_of(Comm *comm, void *stream, uint64_t kind, Work **work) {
    if (!depth) return refuse(comm, "a call outside of a group");
    if (!comm->connected || !comm->launches.empty()) return refuse(comm, "a call before the last one was taken");
    if (polestar_standin_device() != comm->device) return refuse(comm, "another device is the thread's");
    auto &mine = group[comm];
    if (!mine.first) mine = {std::make_shared<Work>(), stream};
    mine.first->kind = kind;
    return *work = mine.first.get(), SUCCESS;
}

// The work that a message to or from another rank belongs to.
Result message(Comm *comm, void *stream, int peer, int type, const void *memory, size_t bytes, Work **work) {
    if (type != 0 || peer < 0 || peer >= comm->world || peer == comm->rank) return INVALID_ARGUMENT;
    if (!bytes || !polestar_standin_is_device(memory, bytes)) return INVALID_ARGUMENT;
    return work_of(comm, stream, 1, work);
}

// The work that a sum of so many f32 belongs to.
Result sum(Comm *comm, void *stream, int type, int operation, const void *from, size_t count, Work **work) {
    if (type != 7 || operation != 0 || !polestar_standin_is_device(from, 4 * count)) return INVALID_ARGUMENT;
    return work_of(comm, stream, 2, work);
}

// This rank's part in the sum of one range of everybody's vector.
Result part(Comm *comm, Work *work, const char *from, char *into, size_t bytes, int root) {
    if (root != comm->rank) return work->sends.push_back({root, from, bytes}), SUCCESS;
    if (!polestar_standin_is_device(into, bytes)) return INVALID_ARGUMENT;
    work->own = from;
    for (int rank = 0; rank < comm->world; rank++)
        if (rank != comm->rank) work->receives.push_back({rank, into, bytes, true, "", false});
    return SUCCESS;
}

}  // namespace

extern "C" {

Result ncclGetVersion(int *version) { return *version = 22700, SUCCESS; }

const char *ncclGetErrorString(Result error) {
    static const char *names[] = {"no error", "unhandled cuda error", "unhandled system error", "internal error",
                                  "invalid argument", "invalid usage", "remote process exited or there was a network error",
                                  "in progress"};
    return error >= 0 && error < 8 ? names[error] : "unknown result code";
}

const char *ncclGetLastError(void *comm) {
    Guard guard;
    return comm ? ((Comm *)comm)->said.c_str() : "";
}

Result ncclGetUniqueId(UniqueId *id) {
    memset(id, 0, sizeof *id);
    strcpy(id->folder, "/tmp/polestar-standin-nccl-XXXXXX");
    return mkdtemp(id->folder) ? SUCCESS : SYSTEM_ERROR;
}

Result ncclCommInitRankConfig(void **made, int world, UniqueId id, int rank, Config *config) {
    Guard guard;
    if (config->magic != 0xcafebeef || config->size < sizeof(Config) || config->version < 21700 || config->blocking != 0) {
        STANDIN_LOG("NCCL: a configuration that isn't one of a communicator that doesn't block");
        return INVALID_ARGUMENT;
    }
    if (rank < 0 || rank >= world || polestar_standin_device() < 0) return INVALID_ARGUMENT;
    static bool told = false;
    if (!told) STANDIN_LOG("this is not NVIDIA's NCCL: ranks talk through sockets of this machine");
    told = true;
    Comm *comm = new Comm;  // Never freed: operations in queues may still name it.
    comm->rank = rank, comm->world = world, comm->device = polestar_standin_device();
    comm->folder = id.folder;
    comm->peers.resize(world);
    comm->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    unblock(comm->listener);
    sockaddr_un address = address_of(socket_of(comm, rank));
    if (bind(comm->listener, (sockaddr *)&address, sizeof address) || listen(comm->listener, world)) {
        STANDIN_LOG("NCCL: %s: %s", address.sun_path, strerror(errno));
        return SYSTEM_ERROR;
    }
    comm->polls = polestar_standin_draw() % 3;
    return *made = comm, IN_PROGRESS;
}

Result ncclCommGetAsyncError(void *handle, Result *state) {
    Guard guard;
    Comm *comm = (Comm *)handle;
    if (comm->aborted) return INVALID_ARGUMENT;
    if (!comm->connected && !comm->error) {
        if (!comm->polls || !comm->polls--) connect_some(comm);
        *state = comm->error ? comm->error : comm->connected ? SUCCESS : IN_PROGRESS;
        return SUCCESS;
    }
    *state = comm->error ? comm->error : launch(comm);
    return SUCCESS;
}

Result ncclCommAbort(void *handle) {
    Guard guard;
    Comm *comm = (Comm *)handle;
    if (comm->aborted) return INVALID_ARGUMENT;
    comm->aborted = true;
    comm->launches.clear();
    for (Peer &peer : comm->peers)
        if (peer.fd >= 0) close(peer.fd);
    close(comm->listener);
    unlink(socket_of(comm, comm->rank).c_str());
    rmdir(comm->folder.c_str());
    return SUCCESS;
}

Result ncclGroupStart() { return depth++, SUCCESS; }

Result ncclGroupEnd() {
    Guard guard;
    if (--depth) return SUCCESS;
    Result result = SUCCESS;
    for (auto &[comm, work] : group) {
        comm->launches.push_back(work);
        comm->polls = polestar_standin_draw() % 3;
        result = comm->error ? comm->error : IN_PROGRESS;
    }
    group.clear();
    return result;
}

Result ncclSend(const char *from, size_t bytes, int type, int to, Comm *comm, void *stream) {
    Guard guard;
    Work *work;
    if (Result wrong = message(comm, stream, to, type, from, bytes, &work)) return wrong;
    work->sends.push_back({to, from, bytes});
    return SUCCESS;
}

Result ncclRecv(char *into, size_t bytes, int type, int from, Comm *comm, void *stream) {
    Guard guard;
    Work *work;
    if (Result wrong = message(comm, stream, from, type, into, bytes, &work)) return wrong;
    work->receives.push_back({from, into, bytes, false, "", false});
    return SUCCESS;
}

// Sums of f32.
Result ncclReduce(const char *from, char *into, size_t count, int type, int operation, int root, Comm *comm, void *stream) {
    Guard guard;
    Work *work;
    if (Result wrong = sum(comm, stream, type, operation, from, count, &work)) return wrong;
    return part(comm, work, from, into, 4 * count, root);
}

Result ncclReduceScatter(const char *from, char *into, size_t each, int type, int operation, Comm *comm, void *stream) {
    Guard guard;
    Work *work;
    if (Result wrong = sum(comm, stream, type, operation, from, each * comm->world, &work)) return wrong;
    for (int root = 0; root < comm->world; root++)
        if (Result wrong = part(comm, work, from + 4 * each * root, into, 4 * each, root)) return wrong;
    return SUCCESS;
}

}  // extern "C"
