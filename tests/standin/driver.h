// What the stand-ins share.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <functional>

// A line on standard error that can't be taken for a device's.
#define STANDIN_LOG(...) (fprintf(stderr, "stand-in, no GPU: " __VA_ARGS__), fputc('\n', stderr))

// Puts work at a stream's end, to be run when the program waits. Defined by the driver's stand-in.
extern "C" void polestar_standin_enqueue(void *stream, std::function<void()> *work);
// The same, of work that may begin once `ready` says so. It is asked again and again, from the stream's coming there on.
extern "C" void polestar_standin_enqueue_when(void *stream, std::function<bool()> *ready, std::function<void()> *work);
// What all of this process' calls are made under: recursive.
extern "C" void polestar_standin_lock();
extern "C" void polestar_standin_unlock();

// Holds it as long as it lives.
struct Guard {
    Guard() { polestar_standin_lock(); }
    ~Guard() { polestar_standin_unlock(); }
    Guard(const Guard &) = delete;
};

// The calling thread's device; -1 for none.
extern "C" int polestar_standin_device();
// A number that the seed draws.
extern "C" unsigned long polestar_standin_draw();
// Whether so many bytes are device memory. Defined by the driver's stand-in.
extern "C" bool polestar_standin_is_device(const void *address, size_t bytes);
