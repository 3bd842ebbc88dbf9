// What all kernels share: small types, bf16, sums of a warp and of a block.
//
// Sources are compiled by NVRTC, without any header, and by a host compiler in front of which host/simt.h lies
// (POLESTAR_HOST). Whatever is an instruction of the device only has a twin there.
//
// Rules: no atomics on numbers; the order of every sum is written down here; products and sums are fused only where fmaf
// says so (compile with --fmad=false).

#ifndef POLESTAR_DEVICE_CUH
#define POLESTAR_DEVICE_CUH

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

// A bf16 number, as its bits.
struct bf16 {
    u16 bits;
};

#define KERNEL extern "C" __global__ void
#define WARP 32
#define ALL_LANES 0xffffffffu

#ifndef POLESTAR_HOST

#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__
// `count` elements of a block's shared memory.
#define SHARED(type, name, count) __shared__ type name[count]
// The shared memory whose size is decided at launch.
#define DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]

// 2^x to two units in the last place; denormal results are zero.
DEVICE float fast_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 1/x to one unit in the last place.
DEVICE float fast_reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Two numbers rounded to bf16, to nearest, ties to even; `low` in the lower half.
DEVICE u32 pack_bf16(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

#endif

#define LOG2E 1.4426950408889634f
#define INFINITE __int_as_float(0x7f800000)

DEVICE float to_float(bf16 x) {
    return __uint_as_float((u32)x.bits << 16);
}

DEVICE float low_float(u32 pair) {
    return __uint_as_float(pair << 16);
}

DEVICE float high_float(u32 pair) {
    return __uint_as_float(pair & 0xffff0000u);
}

DEVICE bf16 to_bf16(float x) {
    bf16 y;
    y.bits = (u16)(pack_bf16(x, 0.0f) & 0xffffu);
    return y;
}

DEVICE bool is_finite(float x) {
    return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;
}

// Whether an address allows 16-byte accesses.
DEVICE bool aligned16(const void* p) {
    return ((u64)p & 15) == 0;
}

// 8 numbers of a row from `column` on, zeros from `width` on. Rows of a multiple of 8 are read 16 bytes at a time.
DEVICE void load8(const bf16* row, int column, int width, float (&x)[8]) {
    if (width % 8 == 0) {
        const uint4 v = *(const uint4*)(row + column);
        const u32 pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            x[2 * i] = low_float(pairs[i]);
            x[2 * i + 1] = high_float(pairs[i]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            x[i] = column + i < width ? to_float(row[column + i]) : 0.0f;
        }
    }
}

// The other way round; nothing is written from `width` on.
DEVICE void store8(bf16* row, int column, int width, const float (&x)[8]) {
    if (width % 8 == 0) {
        uint4 v;
        v.x = pack_bf16(x[0], x[1]);
        v.y = pack_bf16(x[2], x[3]);
        v.z = pack_bf16(x[4], x[5]);
        v.w = pack_bf16(x[6], x[7]);
        *(uint4*)(row + column) = v;
    } else {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            if (column + i < width) {
                row[column + i] = to_bf16(x[i]);
            }
        }
    }
}

// 8 numbers of an f32 vector from `column` on, zeros from `width` on.
DEVICE void load8(const float* row, int column, int width, float (&x)[8]) {
    if (column + 8 <= width && aligned16(row + column)) {
        const float4 a = *(const float4*)(row + column);
        const float4 b = *(const float4*)(row + column + 4);
        x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
        x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
    } else {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            x[i] = column + i < width ? row[column + i] : 0.0f;
        }
    }
}

// Sum over a warp, the same bits in every lane: addition commutes, and lanes differ in the order of operands only.
DEVICE float warp_sum(float x) {
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) {
        x += __shfl_xor_sync(ALL_LANES, x, step);
    }
    return x;
}

// Logistic function.
DEVICE float sigmoid(float x) {
    return fast_reciprocal(1.0f + fast_exp2(-LOG2E * x));
}

#endif
