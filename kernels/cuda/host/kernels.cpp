// The kernels as a library of the host: one function that launches them by name, and counters that say which ones ran.
//
// Build: c++ -std=c++17 -O2 -ffp-contract=off -fno-strict-aliasing -fvisibility=hidden -fPIC -shared simt.cpp kernels.cpp
//
// polestar_host_launch(name, blocks, threads, shared, arguments): arguments are pointers to them, as cuLaunchKernel takes them,
// and addresses are the host's. 0; or not, and polestar_host_error() says why. Any thread may launch; blocks run one after the
// other on that thread.

#define POLESTAR_HOST

#include "launch.h"

#include <atomic>
#include <tuple>
#include <utility>

#include "../device.cuh"
#include "../mma.cuh"
#include "../attention.cuh"

#include "../attention_backward.cu"
#include "../attention_forward.cu"
#include "../flat.cu"
#include "../heads.cu"
#include "../rows.cu"

#include "faults.cu"

namespace {

using Call = std::function<void()> (*)(void* const* arguments);

struct Kernel {
    const char* name;
    simt_u32 parameters;
    Call call;
    std::atomic<simt_u64> launches{0};
};

template <auto KERNEL_FUNCTION> struct Caller;

template <class... P, void (*KERNEL_FUNCTION)(P...)> struct Caller<KERNEL_FUNCTION> {
    static const simt_u32 PARAMETERS = sizeof...(P);

    template <size_t... I> static std::function<void()> with(void* const* arguments, std::index_sequence<I...>) {
        // Copied now: whoever launches may forget them at once.
        return [values = std::make_tuple(*static_cast<const P*>(arguments[I])...)] {
            std::apply(KERNEL_FUNCTION, values);
        };
    }

    static std::function<void()> call(void* const* arguments) {
        return with(arguments, std::index_sequence_for<P...>());
    }
};

#define ENTRY(name) {#name, Caller<&name>::PARAMETERS, Caller<&name>::call},

Kernel kernels[] = {
    ENTRY(embedding_forward)
    ENTRY(embedding_backward)
    ENTRY(rms_norm_forward)
    ENTRY(rms_norm_backward)
    ENTRY(rope_table)
    ENTRY(rope)
    ENTRY(swiglu_forward)
    ENTRY(swiglu_backward)
    ENTRY(scatter_rows)
    ENTRY(reward_forward)
    ENTRY(reward_loss)
    ENTRY(reward_backward)
    ENTRY(reward_weight_gradient)
    ENTRY(cross_entropy)
    ENTRY(flat_zero)
    ENTRY(flat_add)
    ENTRY(flat_merge)
    ENTRY(sum_partials)
    ENTRY(block_sums)
    ENTRY(tree_reduce)
    ENTRY(clip_factor)
    ENTRY(adamw)
    ENTRY(finite_flag)
    ENTRY(checksum)
    ENTRY(cast_to_bf16)
    ENTRY(cast_to_f32)
    ENTRY(attention_forward_16)
    ENTRY(attention_forward_32)
    ENTRY(attention_forward_64)
    ENTRY(attention_forward_128)
    ENTRY(attention_delta)
    ENTRY(attention_query_gradient_16)
    ENTRY(attention_query_gradient_32)
    ENTRY(attention_query_gradient_64)
    ENTRY(attention_query_gradient_128)
    ENTRY(attention_key_value_gradient_16)
    ENTRY(attention_key_value_gradient_32)
    ENTRY(attention_key_value_gradient_64)
    ENTRY(attention_key_value_gradient_128)
    ENTRY(fault_skipped_barrier)
    ENTRY(fault_other_barrier)
    ENTRY(fault_left_warp)
    ENTRY(fault_missing_barrier)
    ENTRY(fault_missing_wait)
    ENTRY(fault_copies_left)
    ENTRY(fault_outside)
};

std::atomic<simt_u64> seed{0};
thread_local std::string error;

Kernel* find(const char* name) {
    for (Kernel& kernel : kernels) {
        if (std::strcmp(kernel.name, name) == 0) {
            return &kernel;
        }
    }
    return nullptr;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int polestar_host_launch(
    const char* name, const simt_u32* blocks, simt_u32 threads, simt_u32 shared, void* const* arguments
) {
    Kernel* kernel = find(name);
    if (!kernel) {
        error = std::string("no kernel is called ") + name;
        return 1;
    }
    // What a driver refuses.
    if (!blocks[0] || !blocks[1] || !blocks[2] || !threads || threads > 1024 || threads % 32 || shared > 227u << 10 ||
        blocks[1] > 65535 || blocks[2] > 65535) {
        error = std::string(name) + ": no grid of a device";
        return 2;
    }
    const simt::Launched launch = {{blocks[0], blocks[1], blocks[2]}, threads, shared, seed};
    const std::string failure = simt::run(launch, kernel->call(arguments));
    if (!failure.empty()) {
        error = std::string(name) + ": " + failure;
        return 3;
    }
    ++kernel->launches;
    return 0;
}

// Of this thread's last launch that failed.
EXPORT const char* polestar_host_error() {
    return error.c_str();
}

// Launches of a kernel, or of all, that came to their end in this process.
EXPORT simt_u64 polestar_host_launches(const char* name) {
    simt_u64 sum = 0;
    for (const Kernel& kernel : kernels) {
        if (!name || std::strcmp(kernel.name, name) == 0) {
            sum += kernel.launches;
        }
    }
    return sum;
}

// Parameters of a kernel; -1 if there is none of this name.
EXPORT int polestar_host_parameters(const char* name) {
    const Kernel* kernel = find(name);
    return kernel ? static_cast<int>(kernel->parameters) : -1;
}

// The order in which warps and lanes go on, from the next launch on.
EXPORT void polestar_host_seed(simt_u64 value) {
    seed = value;
}
