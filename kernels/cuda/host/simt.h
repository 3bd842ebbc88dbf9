// Runs CUDA C++ kernels on the host: every thread of a block is a fiber, every warp instruction a meeting of 32 of them.
//
// A stand-in for the language and for the few instructions that ../*.cuh name, made to find mistakes: shared memory starts
// as NaN, copies arrive as early or as late as they may, and at every meeting a seed decides which warp, and which lane of
// it, goes on. A kernel whose result depends on the seed has a race. What a device would hang on, or make no sense of, ends the
// launch with a message: a barrier that a thread doesn't reach, lanes at different instructions, addresses outside shared
// memory.
//
// Followed: PTX ISA (section numbers of version 9.2), "Matrix fragments for mma.m16n8k16 with floating point type" (9.7.14.5),
// "Warp-level matrix load instruction: ldmatrix", "Data movement and conversion instructions: cp.async"; CUDA C++
// Programming Guide, "Warp shuffle functions", "Synchronization functions".

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __launch_bounds__(threads)
#define DEVICE static inline
#define DEVICE_MEMBER inline

typedef unsigned int simt_u32;
typedef unsigned long long simt_u64;

struct uint2 {
    simt_u32 x, y;
};
struct alignas(16) uint4 {
    simt_u32 x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

namespace simt {

struct Index {
    simt_u32 x, y, z;
};

// A copy to shared memory under way.
struct Copy {
    void* to;
    const void* from;
    bool there;
    simt_u64 group;
};

// What the running thread knows of itself.
struct Lane {
    Index thread;
    // What the current meeting needs of it: operands, and where results go.
    void* operand;
    void* internal;
};

extern thread_local Lane* lane;
extern thread_local Index block_index, block_size, grid_size;

// All threads of a block.
void barrier(const char* file, int line);
// The lanes of a warp; the last to arrive does `perform` with the operands of all, in lane order.
void meet(const char* instruction, void* operand, void (*perform)(void* const* operands));
// Memory of a block that has a name, and that whose size the launch says.
void* static_shared(const void* name, size_t bytes);
unsigned char* dynamic_shared();
// Ends the launch unless 16 bytes of shared memory begin there.
void check_shared(const char* instruction, const void* address);

void copy_async(void* to, const void* from, bool there);
void copies_commit();
void copies_wait(int pending);

template <class T> struct Shuffle {
    T value;
    int step;
    T result;
};

// Lane i gets what lane i xor step has.
template <class T> T shuffle_xor(simt_u32 mask, T value, int step) {
    if (mask != 0xffffffffu) {
        meet("a shuffle that is not of all lanes", nullptr, nullptr);
    }
    Shuffle<T> shuffle = {value, step, value};
    meet("__shfl_xor_sync", &shuffle, [](void* const* operands) {
        for (int i = 0; i < 32; ++i) {
            auto* own = static_cast<Shuffle<T>*>(operands[i]);
            own->result = static_cast<Shuffle<T>*>(operands[(i ^ own->step) & 31])->value;
        }
    });
    return shuffle.result;
}

inline float as_float(simt_u32 bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

inline simt_u32 as_bits(float x) {
    simt_u32 bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}

// To nearest, ties to even; any NaN is 0x7fff, as cvt.rn.bf16x2.f32 has it.
inline simt_u32 bf16_bits(float x) {
    const simt_u32 bits = as_bits(x);
    if (x != x) {
        return 0x7fff;
    }
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

}  // namespace simt

#define threadIdx (simt::lane->thread)
#define blockIdx (simt::block_index)
#define blockDim (simt::block_size)
#define gridDim (simt::grid_size)

#define SHARED(type, name, count)                                                                                      \
    static const char name##_is_here = 0;                                                                              \
    type* name = static_cast<type*>(simt::static_shared(&name##_is_here, sizeof(type) * (count)))
#define DYNAMIC_SHARED(name) unsigned char* name = simt::dynamic_shared()

#define __syncthreads() simt::barrier(__FILE__, __LINE__)

template <class T> inline T __shfl_xor_sync(simt_u32 mask, T value, int step) {
    return simt::shuffle_xor(mask, value, step);
}

inline float __uint_as_float(simt_u32 bits) {
    return simt::as_float(bits);
}
inline float __int_as_float(int bits) {
    return simt::as_float(static_cast<simt_u32>(bits));
}
inline simt_u32 __float_as_uint(float x) {
    return simt::as_bits(x);
}

// Compiled without contraction, every operation is rounded by itself.
inline float __fmul_rn(float a, float b) {
    return a * b;
}
inline float __fadd_rn(float a, float b) {
    return a + b;
}
inline float __fsub_rn(float a, float b) {
    return a - b;
}
inline float __fdiv_rn(float a, float b) {
    return a / b;
}
inline float __fsqrt_rn(float x) {
    return std::sqrt(x);
}
inline double __dmul_rn(double a, double b) {
    return a * b;
}
inline double __dadd_rn(double a, double b) {
    return a + b;
}

inline int min(int a, int b) {
    return b < a ? b : a;
}
inline long long min(long long a, long long b) {
    return b < a ? b : a;
}

inline float fast_exp2(float x) {
    const float y = std::exp2(x);
    // The instruction flushes denormal results.
    return y < 1.17549435e-38f ? 0.0f : y;
}
inline float fast_reciprocal(float x) {
    return 1.0f / x;
}
inline simt_u32 pack_bf16(float low, float high) {
    return simt::bf16_bits(high) << 16 | simt::bf16_bits(low);
}

// d += a b. The device adds in an order and with roundings of its own; here each sum is rounded once.
struct simt_mma {
    float* d;
    const simt_u32* a;
    simt_u32 b[2];
};

inline void mma(float (&d)[4], const simt_u32 (&a)[4], simt_u32 b0, simt_u32 b1) {
    simt_mma operand = {d, a, {b0, b1}};
    simt::meet("mma.sync.m16n8k16", &operand, [](void* const* operands) {
        // Fragments, unfolded: see mma.cuh for who holds what. B by column, as it is multiplied.
        float a[16][16], b[8][16];
        for (int lane = 0; lane < 32; ++lane) {
            const auto* of_lane = static_cast<const simt_mma*>(operands[lane]);
            const int group = lane / 4, quad = lane % 4;
            for (int part = 0; part < 4; ++part) {
                const int row = group + part % 2 * 8, column = 2 * quad + part / 2 * 8;
                a[row][column] = simt::as_float(of_lane->a[part] << 16);
                a[row][column + 1] = simt::as_float(of_lane->a[part] & 0xffff0000u);
            }
            for (int part = 0; part < 2; ++part) {
                const int row = 2 * quad + part * 8;
                b[group][row] = simt::as_float(of_lane->b[part] << 16);
                b[group][row + 1] = simt::as_float(of_lane->b[part] & 0xffff0000u);
            }
        }
        for (int lane = 0; lane < 32; ++lane) {
            float* d = static_cast<const simt_mma*>(operands[lane])->d;
            const int group = lane / 4, quad = lane % 4;
            for (int part = 0; part < 4; ++part) {
                const float* row = a[group + part / 2 * 8];
                const float* column = b[2 * quad + part % 2];
                // Products of two bf16 numbers are exact in f32.
                double sum = d[part];
                for (int k = 0; k < 16; ++k) {
                    sum += static_cast<double>(row[k] * column[k]);
                }
                d[part] = static_cast<float>(sum);
            }
        }
    });
}

struct simt_ldmatrix {
    simt_u32* m;
    const void* row;
};

inline void ldmatrix(simt_u32 (&m)[4], const void* row) {
    simt::check_shared("ldmatrix", row);
    simt_ldmatrix operand = {m, row};
    simt::meet("ldmatrix.x4", &operand, [](void* const* operands) {
        for (int lane = 0; lane < 32; ++lane) {
            auto* own = static_cast<simt_ldmatrix*>(operands[lane]);
            for (int matrix = 0; matrix < 4; ++matrix) {
                const auto* row = static_cast<const simt_ldmatrix*>(operands[8 * matrix + lane / 4])->row;
                std::memcpy(&own->m[matrix], static_cast<const char*>(row) + 4 * (lane % 4), 4);
            }
        }
    });
}

inline void ldmatrix_transposed(simt_u32 (&m)[4], const void* row) {
    simt::check_shared("ldmatrix", row);
    simt_ldmatrix operand = {m, row};
    simt::meet("ldmatrix.x4.trans", &operand, [](void* const* operands) {
        for (int lane = 0; lane < 32; ++lane) {
            auto* own = static_cast<simt_ldmatrix*>(operands[lane]);
            for (int matrix = 0; matrix < 4; ++matrix) {
                simt_u32 pair = 0;
                for (int i = 0; i < 2; ++i) {
                    const int from = 8 * matrix + 2 * (lane % 4) + i;
                    const auto* row = static_cast<const simt_ldmatrix*>(operands[from])->row;
                    std::uint16_t bits;
                    std::memcpy(&bits, static_cast<const char*>(row) + 2 * (lane / 4), 2);
                    pair |= static_cast<simt_u32>(bits) << (16 * i);
                }
                own->m[matrix] = pair;
            }
        }
    });
}

inline void copy_async(void* to, const void* from, bool there) {
    simt::check_shared("cp.async", to);
    simt::copy_async(to, from, there);
}
inline void copies_commit() {
    simt::copies_commit();
}
template <int PENDING> inline void copies_wait() {
    simt::copies_wait(PENDING);
}
