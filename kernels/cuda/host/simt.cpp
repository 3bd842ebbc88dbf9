// Blocks, their fibers, and the order in which those run.

#include "simt.h"

#include "fiber.h"
#include "launch.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

namespace simt {

thread_local Lane* lane;
thread_local Index block_index, block_size, grid_size;

namespace {

const unsigned WARP_SIZE = 32;

// A small generator: what is wanted is variety, the same for the same seed.
struct Random {
    simt_u64 state = 0;

    simt_u32 below(simt_u32 bound) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        return static_cast<simt_u32>((state >> 32) * bound >> 32);
    }
};

enum class State { Ready, AtMeeting, AtBarrier, Done };

struct Thread : Lane {
    Fiber fiber;
    State state;
    simt_u32 number;
    // Where it waits.
    const char* at;
    int line;
    std::vector<Copy> copies;
    simt_u64 group;
};

struct Warp {
    // Lanes that can go on.
    simt_u32 ready;
    simt_u32 arrived;
};

struct Shared {
    const void* name;
    std::unique_ptr<unsigned char, void (*)(void*)> memory;
    size_t bytes;
};

Shared shared_memory(const void* name, size_t bytes) {
    void* memory = std::aligned_alloc(128, (bytes + 127) / 128 * 128);
    if (!memory) {
        std::abort();
    }
#if SIMT_ASAN
    __asan_poison_memory_region(static_cast<char*>(memory) + bytes, (bytes + 127) / 128 * 128 - bytes);
#endif
    // NaN in every format.
    std::memset(memory, 0xff, bytes);
    return Shared{name, {static_cast<unsigned char*>(memory), std::free}, bytes};
}

// What a host thread needs to run blocks; kept, since stacks are costly.
struct Machine {
    Fiber host;
    std::vector<std::unique_ptr<Thread>> threads;
    std::vector<Warp> warps;
    std::vector<Shared> named;
    std::unique_ptr<Shared> dynamic;
    const std::function<void()>* kernel = nullptr;
    simt_u32 size = 0, at_barrier = 0, done = 0;
    Random random;
    std::string failure;

    Thread& current() {
        return *static_cast<Thread*>(lane);
    }

    void start(const Launched& launch);
    // Goes on with some other thread, or with the host when none is left or the launch has failed.
    void next(Thread& from);
    Thread* pick(simt_u32 near);
    void finish(Thread& thread);
    void stuck();
};

thread_local Machine machine;

// Ends the launch. The fibers are left as they are.
[[noreturn]] void fail(const char* format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    char where[128];
    const Thread& thread = machine.current();
    std::snprintf(
        where, sizeof where, "block (%u, %u, %u), thread %u: ", block_index.x, block_index.y, block_index.z,
        thread.number
    );
    machine.failure = std::string(where) + text;
    Fiber::change(machine.current().fiber, machine.host);
    std::abort();
}

void run_thread() {
    Fiber::entered(machine.host);
    (*machine.kernel)();
    machine.finish(machine.current());
    std::abort();
}

void complete(const Copy& copy) {
    if (copy.there) {
        std::memcpy(copy.to, copy.from, 16);
    } else {
        std::memset(copy.to, 0, 16);
    }
}

}  // namespace

void Machine::start(const Launched& launch) {
    size = launch.threads;
    at_barrier = done = 0;
    while (threads.size() < size) {
        threads.push_back(std::make_unique<Thread>());
    }
    warps.assign((size + WARP_SIZE - 1) / WARP_SIZE, Warp{0, 0});
    for (simt_u32 i = 0; i < size; ++i) {
        Thread& thread = *threads[i];
        thread.thread = Index{i, 0, 0};
        thread.number = i;
        thread.state = State::Ready;
        thread.copies.clear();
        thread.group = 0;
        thread.fiber.prepare(run_thread);
        warps[i / WARP_SIZE].ready |= 1u << i % WARP_SIZE;
    }
    named.clear();
    dynamic = std::make_unique<Shared>(shared_memory(nullptr, launch.shared));
    Thread* first = pick(random.below(static_cast<simt_u32>(warps.size())));
    lane = first;
    Fiber::change(host, first->fiber);
    if (failure.empty() && done != size) {
        failure = "the block ended before its threads did";
    }
}

// A thread of this warp, any of its lanes, or of another.
Thread* Machine::pick(simt_u32 near) {
    const auto count = static_cast<simt_u32>(warps.size());
    if (!warps[near].ready) {
        near = random.below(count);
    }
    for (simt_u32 i = 0; i < count; ++i) {
        const simt_u32 at = (near + i) % count;
        const simt_u32 ready = warps[at].ready;
        if (ready) {
            const simt_u32 turn = random.below(WARP_SIZE);
            const simt_u32 turned = ready >> turn | ready << (WARP_SIZE - turn) % WARP_SIZE;
            const simt_u32 bit = (static_cast<simt_u32>(__builtin_ctz(turned)) + turn) % WARP_SIZE;
            return threads[at * WARP_SIZE + bit].get();
        }
    }
    return nullptr;
}

void Machine::next(Thread& from) {
    Thread* to = pick(from.number / WARP_SIZE);
    if (!to) {
        if (done != size) {
            stuck();
        }
        Fiber::change(from.fiber, host);
        return;
    }
    if (to != &from) {
        lane = to;
        Fiber::change(from.fiber, to->fiber);
        lane = &from;
    }
}

void Machine::finish(Thread& thread) {
    if (!thread.copies.empty()) {
        fail("the kernel ends with copies under way: wait for them");
    }
    thread.state = State::Done;
    warps[thread.number / WARP_SIZE].ready &= ~(1u << thread.number % WARP_SIZE);
    ++done;
    next(thread);
}

void Machine::stuck() {
    const Thread* waiting = nullptr;
    const Thread* other = nullptr;
    for (simt_u32 i = 0; i < size; ++i) {
        const Thread& thread = *threads[i];
        if (thread.state == State::AtBarrier || thread.state == State::AtMeeting) {
            if (!waiting) {
                waiting = &thread;
            }
        }
    }
    for (simt_u32 i = 0; i < size; ++i) {
        const Thread& thread = *threads[i];
        if (thread.state == State::Done || thread.at != waiting->at || thread.line != waiting->line) {
            other = &thread;
        }
    }
    char text[512];
    const auto place = [](const Thread& thread) {
        if (thread.state == State::Done) {
            return std::string("has left the kernel");
        }
        std::string at = thread.state == State::AtBarrier ? "waits at the barrier " : "waits at ";
        at += thread.at;
        return thread.line ? at + ":" + std::to_string(thread.line) : at;
    };
    std::snprintf(
        text, sizeof text, "block (%u, %u, %u) is stuck: thread %u %s, thread %u %s", block_index.x, block_index.y,
        block_index.z, waiting->number, place(*waiting).c_str(), other ? other->number : waiting->number,
        place(other ? *other : *waiting).c_str()
    );
    failure = text;
}

void barrier(const char* file, int line) {
    Machine& m = machine;
    Thread& own = m.current();
    own.state = State::AtBarrier;
    own.at = file;
    own.line = line;
    if (++m.at_barrier < m.size) {
        m.warps[own.number / WARP_SIZE].ready &= ~(1u << own.number % WARP_SIZE);
        m.next(own);
        return;
    }
    for (simt_u32 i = 0; i < m.size; ++i) {
        Thread& thread = *m.threads[i];
        if (thread.at != file || thread.line != line) {
            fail("is at the barrier %s:%d, thread %u at %s:%d", file, line, i, thread.at, thread.line);
        }
        thread.state = State::Ready;
        m.warps[i / WARP_SIZE].ready |= 1u << i % WARP_SIZE;
    }
    m.at_barrier = 0;
    Thread* to = m.pick(m.random.below(static_cast<simt_u32>(m.warps.size())));
    if (to != &own) {
        lane = to;
        Fiber::change(own.fiber, to->fiber);
        lane = &own;
    }
}

void meet(const char* instruction, void* operand, void (*perform)(void* const*)) {
    Machine& m = machine;
    Thread& own = m.current();
    if (!perform) {
        fail("%s", instruction);
    }
    const simt_u32 number = own.number / WARP_SIZE;
    Warp& warp = m.warps[number];
    own.state = State::AtMeeting;
    own.operand = operand;
    own.internal = reinterpret_cast<void*>(perform);
    own.at = instruction;
    own.line = 0;
    if (++warp.arrived < WARP_SIZE) {
        warp.ready &= ~(1u << own.number % WARP_SIZE);
        m.next(own);
        return;
    }
    void* operands[WARP_SIZE];
    for (simt_u32 i = 0; i < WARP_SIZE; ++i) {
        Thread& thread = *m.threads[number * WARP_SIZE + i];
        // The same instruction, and the same place for whatever a template makes of it.
        if (thread.internal != own.internal) {
            fail("is at %s, thread %u of its warp at %s", instruction, thread.number, thread.at);
        }
        operands[i] = thread.operand;
        thread.state = State::Ready;
    }
    warp.arrived = 0;
    perform(operands);
    warp.ready = 0xffffffffu;
    // Now and then another warp gets ahead.
    if (m.random.below(8) == 0) {
        const auto count = static_cast<simt_u32>(m.warps.size());
        Thread* to = m.pick(m.random.below(count));
        if (to != &own) {
            lane = to;
            Fiber::change(own.fiber, to->fiber);
            lane = &own;
        }
    }
}

void* static_shared(const void* name, size_t bytes) {
    for (const Shared& shared : machine.named) {
        if (shared.name == name) {
            return shared.memory.get();
        }
    }
    machine.named.push_back(shared_memory(name, bytes));
    return machine.named.back().memory.get();
}

unsigned char* dynamic_shared() {
    return machine.dynamic->memory.get();
}

void check_shared(const char* instruction, const void* address) {
    const auto* at = static_cast<const unsigned char*>(address);
    const unsigned char* first = machine.dynamic->memory.get();
    const size_t bytes = machine.dynamic->bytes;
    if (at < first || at + 16 > first + bytes) {
        fail("%s at byte %td of %zu bytes of shared memory", instruction, at - first, bytes);
    }
    if ((at - first) % 16 != 0) {
        fail("%s at byte %td of shared memory, which is no multiple of 16", instruction, at - first);
    }
}

void copy_async(void* to, const void* from, bool there) {
    if (reinterpret_cast<uintptr_t>(from) % 16 != 0) {
        fail("cp.async from %p, which is no multiple of 16", from);
    }
    Thread& own = machine.current();
    const Copy copy = {to, from, there, own.group};
    // At once, or not before it must be.
    if (machine.random.below(2) == 0) {
        complete(copy);
    } else {
        own.copies.push_back(copy);
    }
}

void copies_commit() {
    ++machine.current().group;
}

void copies_wait(int pending) {
    Thread& own = machine.current();
    size_t kept = 0;
    for (const Copy& copy : own.copies) {
        if (copy.group + static_cast<simt_u64>(pending) < own.group) {
            complete(copy);
        } else {
            own.copies[kept++] = copy;
        }
    }
    own.copies.resize(kept);
}

std::string run(const Launched& launch, const std::function<void()>& kernel) {
    Machine& m = machine;
    m.failure.clear();
    m.kernel = &kernel;
    m.random.state = launch.seed * 0x9e3779b97f4a7c15ull + 0x2545f4914f6cdd1dull;
    block_size = Index{launch.threads, 1, 1};
    grid_size = Index{launch.blocks[0], launch.blocks[1], launch.blocks[2]};
    std::vector<Index> order;
    for (simt_u32 z = 0; z < launch.blocks[2]; ++z) {
        for (simt_u32 y = 0; y < launch.blocks[1]; ++y) {
            for (simt_u32 x = 0; x < launch.blocks[0]; ++x) {
                order.push_back(Index{x, y, z});
            }
        }
    }
    for (size_t i = order.size(); i > 1; --i) {
        std::swap(order[i - 1], order[m.random.below(static_cast<simt_u32>(i))]);
    }
    for (const Index& block : order) {
        block_index = block;
        m.start(launch);
        if (!m.failure.empty()) {
            break;
        }
    }
    m.named.clear();
    m.dynamic.reset();
    return m.failure;
}

}  // namespace simt
