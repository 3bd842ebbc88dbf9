// A stand-in for libcuda.so: see README.md. Nothing here has anything to do with a GPU.
#include "driver.h"
#include <cstdint>
#include <cstring>
#include <deque>
#include <dlfcn.h>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

typedef int Result;
enum : Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NOT_FOUND = 500,
    NOT_READY = 600,
    LAUNCH_FAILED = 719,
};

namespace {

struct Event {
    uint64_t recorded = 0;  // Newest record that was asked for.
    uint64_t passed = 0;    // Newest record that a stream has come to.
};

struct Operation {
    std::function<bool()> ready;
    std::function<void()> run;
};

struct Stream {
    std::deque<Operation> queue;
};

struct Kernel {
    std::string name;
    int parameters;
};

struct State {
    std::recursive_mutex lock;
    std::vector<Stream *> streams;
    std::map<uintptr_t, size_t> device, pinned;
    size_t used = 0, capacity = 4ull << 30;
    std::mt19937_64 random{1};
    bool forget_events = false;
    int devices = 1;
    void *kernels = nullptr;
    // As kernels/cuda/host/kernels.cpp has them.
    int (*launch)(const char *, const unsigned *, unsigned, unsigned, void *const *) = nullptr;
    int (*parameters)(const char *) = nullptr;
    const char *(*error)() = nullptr;
    std::map<std::string, std::unique_ptr<Kernel>> functions;

    State() {
        if (const char *text = getenv("POLESTAR_STANDIN_SEED")) random.seed(strtoull(text, nullptr, 10));
        if (const char *text = getenv("POLESTAR_STANDIN_MEMORY")) capacity = strtoull(text, nullptr, 10);
        if (const char *text = getenv("POLESTAR_STANDIN_FORGET")) forget_events = !strcmp(text, "events");
        if (const char *text = getenv("POLESTAR_STANDIN_DEVICES")) devices = atoi(text);
    }
};

State &state() {
    static State *state = new State;  // Never destroyed: threads may outlive main.
    return *state;
}

// A device's context is its number and one; they share all memory.
thread_local uintptr_t current = 0;

bool holds(const std::map<uintptr_t, size_t> &regions, const void *address, size_t bytes) {
    uintptr_t at = (uintptr_t)address;
    auto next = regions.upper_bound(at);
    if (next == regions.begin()) return false;
    auto region = std::prev(next);
    return at + bytes <= region->first + region->second;
}

// Advances streams, one operation at a time, drawn among those that may go on, until `done`. Whoever doesn't `insist` is
// content with what can be done now, and with so many operations.
void drain(const std::function<bool()> &done, bool insist = true, size_t most = SIZE_MAX) {
    State &s = state();
    // How eager each stream is: some seeds starve one of them.
    std::vector<double> eager;
    for (size_t i = 0; i < s.streams.size(); i++) eager.push_back(1.0 / (1 << (s.random() % 7)));
    for (size_t i = 0; i < most && !done(); i++) {
        std::vector<size_t> able;
        std::vector<double> weights;
        for (size_t j = 0; j < s.streams.size(); j++) {
            Stream *stream = s.streams[j];
            if (!stream->queue.empty() && stream->queue.front().ready()) {
                able.push_back(j);
                weights.push_back(eager[j]);
            }
        }
        if (able.empty() && !insist) return;
        if (able.empty()) {
            STANDIN_LOG("the program waits for what can never happen");
            abort();
        }
        std::discrete_distribution<size_t> draw(weights.begin(), weights.end());
        Stream *stream = s.streams[able[draw(s.random)]];
        Operation operation = std::move(stream->queue.front());
        stream->queue.pop_front();
        operation.run();
    }
}

void push(void *stream, std::function<void()> run, std::function<bool()> ready = [] { return true; }) {
    ((Stream *)stream)->queue.push_back({std::move(ready), std::move(run)});
}

bool is_stream(void *stream) {
    for (Stream *known : state().streams)
        if (known == stream) return true;
    return false;
}

Result check_stream(void *stream) {
    if (!current) return INVALID_CONTEXT;
    return is_stream(stream) ? SUCCESS : INVALID_VALUE;
}

Result load_kernels() {
    State &s = state();
    if (s.kernels) return SUCCESS;
    const char *path = getenv("POLESTAR_STANDIN_KERNELS");
    if (!path || !(s.kernels = dlopen(path, RTLD_NOW | RTLD_LOCAL))) {
        STANDIN_LOG("POLESTAR_STANDIN_KERNELS is no library of kernels: %s", path ? dlerror() : "it is not set");
        return INVALID_IMAGE;
    }
    s.launch = (decltype(s.launch))dlsym(s.kernels, "polestar_host_launch");
    s.parameters = (decltype(s.parameters))dlsym(s.kernels, "polestar_host_parameters");
    s.error = (decltype(s.error))dlsym(s.kernels, "polestar_host_error");
    STANDIN_LOG("kernels are run on the CPU, from %s", path);
    return s.launch && s.parameters && s.error ? SUCCESS : INVALID_IMAGE;
}

}  // namespace

extern "C" {

void polestar_standin_enqueue(void *stream, std::function<void()> *work) {
    polestar_standin_enqueue_when(stream, new std::function<bool()>([] { return true; }), work);
}

void polestar_standin_enqueue_when(void *stream, std::function<bool()> *ready, std::function<void()> *work) {
    Guard guard;
    push(stream, std::move(*work), std::move(*ready));
    delete ready;
    delete work;
}

void polestar_standin_lock() { state().lock.lock(); }
void polestar_standin_unlock() { state().lock.unlock(); }
int polestar_standin_device() { return (int)current - 1; }
unsigned long polestar_standin_draw() {
    Guard guard;
    return state().random();
}

bool polestar_standin_is_device(const void *address, size_t bytes) {
    Guard guard;
    return holds(state().device, address, bytes);
}

Result cuInit(unsigned) {
    static bool told = false;
    Guard guard;
    if (!told) STANDIN_LOG("this is not NVIDIA's driver; nothing that is computed here was computed on a GPU");
    told = true;
    return SUCCESS;
}

Result cuDriverGetVersion(int *version) { return *version = 13000, SUCCESS; }

Result cuGetErrorName(Result code, const char **text) {
    switch (code) {
        case SUCCESS: *text = "CUDA_SUCCESS"; break;
        case INVALID_VALUE: *text = "CUDA_ERROR_INVALID_VALUE"; break;
        case OUT_OF_MEMORY: *text = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case INVALID_IMAGE: *text = "CUDA_ERROR_INVALID_IMAGE"; break;
        case INVALID_CONTEXT: *text = "CUDA_ERROR_INVALID_CONTEXT"; break;
        case NOT_FOUND: *text = "CUDA_ERROR_NOT_FOUND"; break;
        case NOT_READY: *text = "CUDA_ERROR_NOT_READY"; break;
        default: *text = "CUDA_ERROR_LAUNCH_FAILED";
    }
    return SUCCESS;
}

Result cuGetErrorString(Result code, const char **text) { return cuGetErrorName(code, text); }

Result cuDeviceGetCount(int *count) { return *count = state().devices, SUCCESS; }
Result cuDeviceGet(int *device, int ordinal) {
    return *device = ordinal, ordinal >= 0 && ordinal < state().devices ? SUCCESS : INVALID_VALUE;
}

Result cuDeviceGetUuid_v2(char *uuid, int device) {
    memset(uuid, 0, 16);
    return uuid[15] = (char)device, SUCCESS;
}

Result cuDeviceGetName(char *name, int bytes, int) {
    const char *text = getenv("POLESTAR_STANDIN_NAME");
    snprintf(name, bytes, "%s", text ? text : "stand-in (no GPU)");
    return SUCCESS;
}

Result cuDeviceGetAttribute(int *value, int attribute, int) {
    switch (attribute) {
        case 16: *value = 132; break;  // Multiprocessors.
        case 75: *value = 9; break;    // Compute capability.
        case 76: *value = 0; break;
        case 97: *value = 227 << 10; break;  // Shared memory that a block may opt in to.
        default: return INVALID_VALUE;
    }
    return SUCCESS;
}

Result cuDeviceTotalMem_v2(size_t *bytes, int) { return *bytes = state().capacity, SUCCESS; }
Result cuDevicePrimaryCtxRetain(void **context, int device) {
    return *context = (void *)(uintptr_t)(device + 1), SUCCESS;
}
Result cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
Result cuCtxSetCurrent(void *context) { return current = (uintptr_t)context, SUCCESS; }

Result cuStreamCreate(void **stream, unsigned) {
    Guard guard;
    if (!current) return INVALID_CONTEXT;
    Stream *made = new Stream;
    state().streams.push_back(made);
    return *stream = made, SUCCESS;
}

Result cuStreamSynchronize(void *stream) {
    Guard guard;
    if (Result wrong = check_stream(stream)) return wrong;
    drain([&] { return ((Stream *)stream)->queue.empty(); });
    return SUCCESS;
}

Result cuStreamDestroy_v2(void *stream) {
    Guard guard;
    if (Result wrong = check_stream(stream)) return wrong;
    auto &streams = state().streams;
    for (size_t i = 0; i < streams.size(); i++)
        if (streams[i] == stream) streams.erase(streams.begin() + i--);
    delete (Stream *)stream;
    return SUCCESS;
}

// Events are never freed, since operations in queues may still name them.
Result cuEventCreate(void **event, unsigned) { return *event = new Event, current ? SUCCESS : INVALID_CONTEXT; }
Result cuEventDestroy_v2(void *) { return SUCCESS; }

Result cuEventRecord(void *event, void *stream) {
    Guard guard;
    if (Result wrong = check_stream(stream)) return wrong;
    Event *recorded = (Event *)event;
    uint64_t number = ++recorded->recorded;
    push(stream, [=] { recorded->passed = std::max(recorded->passed, number); });
    return SUCCESS;
}

Result cuStreamWaitEvent(void *stream, void *event, unsigned) {
    Guard guard;
    if (Result wrong = check_stream(stream)) return wrong;
    if (state().forget_events) return SUCCESS;
    Event *awaited = (Event *)event;
    uint64_t number = awaited->recorded;
    push(stream, [] {}, [=] { return awaited->passed >= number; });
    return SUCCESS;
}

// Time passes while it is asked: something may be done meanwhile.
Result cuEventQuery(void *event) {
    Guard guard;
    if (!current) return INVALID_CONTEXT;
    Event *awaited = (Event *)event;
    uint64_t number = awaited->recorded;
    drain([=] { return awaited->passed >= number; }, false, 1 + state().random() % 8);
    return awaited->passed >= number ? SUCCESS : NOT_READY;
}

Result cuEventSynchronize(void *event) {
    Guard guard;
    if (!current) return INVALID_CONTEXT;
    Event *awaited = (Event *)event;
    uint64_t number = awaited->recorded;
    drain([=] { return awaited->passed >= number; });
    return SUCCESS;
}

Result cuMemAlloc_v2(uintptr_t *address, size_t bytes) {
    Guard guard;
    State &s = state();
    if (!current) return INVALID_CONTEXT;
    if (!bytes) return INVALID_VALUE;
    if (s.used + bytes > s.capacity) return OUT_OF_MEMORY;
    void *memory = aligned_alloc(512, (bytes + 511) / 512 * 512);
    if (!memory) return OUT_OF_MEMORY;
    // Not a number, in every element type: what is read before it is written shows.
    memset(memory, 0xff, bytes);
    s.used += bytes;
    s.device[(uintptr_t)memory] = bytes;
    return *address = (uintptr_t)memory, SUCCESS;
}

Result cuMemFree_v2(uintptr_t address) {
    Guard guard;
    auto found = state().device.find(address);
    if (found == state().device.end()) return INVALID_VALUE;
    // What waits for another rank may be another device's.
    drain(
        [] {
            for (Stream *stream : state().streams)
                if (!stream->queue.empty()) return false;
            return true;
        },
        false);
    state().used -= found->second;
    state().device.erase(found);
    free((void *)address);
    return SUCCESS;
}

Result cuMemHostAlloc(void **address, size_t bytes, unsigned) {
    Guard guard;
    if (!current) return INVALID_CONTEXT;
    *address = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    state().pinned[(uintptr_t)*address] = bytes;
    return *address ? SUCCESS : OUT_OF_MEMORY;
}

Result cuMemFreeHost(void *address) {
    Guard guard;
    if (!state().pinned.erase((uintptr_t)address)) return INVALID_VALUE;
    free(address);
    return SUCCESS;
}

// A copy that is asked for and one that is allowed to be: from page-locked memory it happens later, and from other memory
// it would not be asynchronous at all, which this program never wants.
Result cuMemcpyHtoDAsync_v2(uintptr_t to, const void *from, size_t bytes, void *stream) {
    Guard guard;
    if (Result wrong = check_stream(stream)) return wrong;
    if (!holds(state().device, (void *)to, bytes) || !holds(state().pinned, from, bytes)) return INVALID_VALUE;
    push(stream, [=] { memcpy((void *)to, from, bytes); });
    return SUCCESS;
}

Result cuMemcpyDtoHAsync_v2(void *to, uintptr_t from, size_t bytes, void *stream) {
    Guard guard;
    if (Result wrong = check_stream(stream)) return wrong;
    if (!holds(state().pinned, to, bytes) || !holds(state().device, (void *)from, bytes)) return INVALID_VALUE;
    push(stream, [=] { memcpy(to, (void *)from, bytes); });
    return SUCCESS;
}

Result cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t bytes, void *stream) {
    Guard guard;
    if (Result wrong = check_stream(stream)) return wrong;
    if (!holds(state().device, (void *)to, bytes) || !holds(state().device, (void *)from, bytes)) return INVALID_VALUE;
    push(stream, [=] { memmove((void *)to, (void *)from, bytes); });
    return SUCCESS;
}

Result cuMemsetD8Async(uintptr_t to, unsigned char value, size_t bytes, void *stream) {
    Guard guard;
    if (Result wrong = check_stream(stream)) return wrong;
    if (!holds(state().device, (void *)to, bytes)) return INVALID_VALUE;
    push(stream, [=] { memset((void *)to, value, bytes); });
    return SUCCESS;
}

Result cuModuleLoadData(void **module, const void *image) {
    Guard guard;
    if (!current) return INVALID_CONTEXT;
    if (strncmp((const char *)image, "polestar stand-in", 17)) return INVALID_IMAGE;
    return *module = &state(), load_kernels();
}

Result cuModuleUnload(void *) { return SUCCESS; }

Result cuModuleGetFunction(void **function, void *, const char *name) {
    Guard guard;
    State &s = state();
    auto &kernel = s.functions[name];
    if (!kernel) {
        int parameters = s.parameters(name);
        if (parameters < 0) {
            STANDIN_LOG("no kernel is called %s", name);
            return NOT_FOUND;
        }
        kernel = std::make_unique<Kernel>(Kernel{name, parameters});
    }
    return *function = kernel.get(), SUCCESS;
}

Result cuFuncSetAttribute(void *, int, int) { return SUCCESS; }

Result cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, void *stream, void **parameters, void **extra) {
    Guard guard;
    if (Result wrong = check_stream(stream)) return wrong;
    Kernel *kernel = (Kernel *)function;
    if (!gx || !gy || !gz || !bx || bx > 1024 || by != 1 || bz != 1 || gy > 65535 || gz > 65535 || shared > 227 << 10 || extra) {
        STANDIN_LOG("%s: a grid of %u x %u x %u blocks of %u threads and %u bytes of shared memory", kernel->name.c_str(),
                    gx, gy, gz, bx * by * bz, shared);
        return INVALID_VALUE;
    }
    // Arguments are copied now, as the driver does. This program keeps each in eight bytes, whatever the parameter's size.
    std::vector<uint64_t> values(kernel->parameters);
    for (int i = 0; i < kernel->parameters; i++) memcpy(&values[i], parameters[i], 8);
    push(stream, [=]() mutable {
        std::vector<void *> pointers;
        for (uint64_t &value : values) pointers.push_back(&value);
        const unsigned grid[3] = {gx, gy, gz};
        if (state().launch(kernel->name.c_str(), grid, bx, shared, pointers.data())) {
            STANDIN_LOG("%s", state().error());
            abort();
        }
    });
    return SUCCESS;
}

}  // extern "C"
