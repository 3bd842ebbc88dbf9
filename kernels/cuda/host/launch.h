// What it takes to run a kernel's blocks.

#pragma once

#include "simt.h"

#include <functional>
#include <string>

namespace simt {

struct Launched {
    simt_u32 blocks[3];
    simt_u32 threads;
    simt_u32 shared;
    simt_u64 seed;
};

// Runs `kernel` once for each thread of each block. Empty, or what went wrong.
std::string run(const Launched& launch, const std::function<void()>& kernel);

}  // namespace simt
