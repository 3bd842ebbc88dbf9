// What the stand-ins share.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <functional>

// A line on standard error that can't be taken for a device's.
#define STANDIN_LOG(...) (fprintf(stderr, "stand-in, no GPU: " __VA_ARGS__), fputc('\n', stderr))

// Puts work at a stream's end, to be run when the program waits. Defined by the driver's stand-in.
extern "C" void polestar_standin_enqueue(void *stream, std::function<void()> *work);
// Whether so many bytes are device memory. Defined by the driver's stand-in.
extern "C" bool polestar_standin_is_device(const void *address, size_t bytes);
