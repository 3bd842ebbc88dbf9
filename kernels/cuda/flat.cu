// Operations on flat vectors.
//
// A thread has four elements, and reads them at once where all vectors begin on 16 bytes. Elements don't meet, so that
// a shard gets the bits that the whole would.

// The thread's first element.
DEVICE i64 first_of_four() {
    return 4 * ((i64)blockIdx.x * blockDim.x + threadIdx.x);
}

// Elements from `at` on, zeros from `elements` on.
DEVICE void load4(const float* vector, i64 at, i64 elements, float (&x)[4]) {
    if (at + 4 <= elements && aligned16(vector + at)) {
        const float4 v = *(const float4*)(vector + at);
        x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            x[i] = at + i < elements ? vector[at + i] : 0.0f;
        }
    }
}

DEVICE void store4(float* vector, i64 at, i64 elements, const float (&x)[4]) {
    if (at + 4 <= elements && aligned16(vector + at)) {
        float4 v;
        v.x = x[0], v.y = x[1], v.z = x[2], v.w = x[3];
        *(float4*)(vector + at) = v;
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (at + i < elements) {
                vector[at + i] = x[i];
            }
        }
    }
}

DEVICE void store4(bf16* vector, i64 at, i64 elements, const float (&x)[4]) {
    if (at + 4 <= elements && ((u64)(vector + at) & 7) == 0) {
        uint2 v;
        v.x = pack_bf16(x[0], x[1]);
        v.y = pack_bf16(x[2], x[3]);
        *(uint2*)(vector + at) = v;
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (at + i < elements) {
                vector[at + i] = to_bf16(x[i]);
            }
        }
    }
}

KERNEL __launch_bounds__(256) flat_zero(float* vector, i64 elements) {
    const float zeros[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    store4(vector, first_of_four(), elements, zeros);
}

KERNEL __launch_bounds__(256) flat_add(float* sum, const float* other, i64 elements) {
    const i64 at = first_of_four();
    float a[4], b[4];
    load4(sum, at, elements, a);
    load4(other, at, elements, b);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        a[i] += b[i];
    }
    store4(sum, at, elements, a);
}

// Neighbours, then neighbours of those: a left child without a sibling is its parent.
KERNEL __launch_bounds__(256)
flat_merge(
    float* out, const float* p0, const float* p1, const float* p2, const float* p3, const float* p4, const float* p5,
    const float* p6, const float* p7, int count, i64 elements
) {
    const int most = 8;
    const float* partials[most] = {p0, p1, p2, p3, p4, p5, p6, p7};
    const i64 at = first_of_four();
    float x[most][4];
#pragma unroll
    for (int k = 0; k < most; ++k) {
        if (k < count) {
            load4(partials[k], at, elements, x[k]);
        }
    }
#pragma unroll
    for (int step = 1; step < most; step *= 2) {
#pragma unroll
        for (int k = 0; k + step < most; k += 2 * step) {
            if (k + step < count) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    x[k][i] += x[k + step][i];
                }
            }
        }
    }
    store4(out, at, elements, x[0]);
}

KERNEL __launch_bounds__(64) sum_partials(const float* partials, float* gradient, int count, int width) {
    const int column = blockIdx.x * 64 + threadIdx.x;
    if (column >= width) {
        return;
    }
    float sum = 0.0f;
#pragma unroll 8
    for (int row = 0; row < count; ++row) {
        sum += partials[(u64)row * width + column];
    }
    gradient[column] += sum;
}

// Eight interleaved sums, one a thread, then their tree; 8 neighbouring threads read 32 bytes at a time.
KERNEL __launch_bounds__(128) block_sums(const float* vector, double* sums, i64 elements) {
    const i64 block = (i64)blockIdx.x * 16 + threadIdx.x / 8;
    const int of_eight = threadIdx.x % 8;
    const i64 end = min(elements, (block + 1) * 4096);
    double sum = 0.0;
    // A block beyond the end has nothing to add, but its threads take part in the exchange.
#pragma unroll 8
    for (i64 at = block * 4096 + of_eight; at < end; at += 8) {
        const double x = vector[at];
        sum = __dadd_rn(sum, __dmul_rn(x, x));
    }
#pragma unroll
    for (int step = 1; step < 8; step *= 2) {
        sum = __dadd_rn(sum, __shfl_xor_sync(ALL_LANES, sum, step));
    }
    if (of_eight == 0 && block * 4096 < elements) {
        sums[block] = sum;
    }
}

KERNEL __launch_bounds__(256) tree_reduce(const double* values, double* sums, i64 count) {
    const int most = 1024;
    SHARED(double, tree, most);
    const i64 first = (i64)blockIdx.x * most;
    const int here = (int)min((i64)most, count - first);
    for (int i = threadIdx.x; i < here; i += 256) {
        tree[i] = values[first + i];
    }
    for (int step = 1; step < here; step *= 2) {
        __syncthreads();
        for (int i = 2 * step * threadIdx.x; i + step < here; i += 2 * step * 256) {
            tree[i] += tree[i + step];
        }
    }
    if (threadIdx.x == 0) {
        // Thread 0 made the root itself.
        sums[blockIdx.x] = tree[0];
    }
}

KERNEL __launch_bounds__(32)
clip_factor(const double* total, double* norm, float* factor, u32* flag, float clip) {
    if (threadIdx.x != 0) {
        return;
    }
    const double length = sqrt(*total);
    *norm = length;
    *factor = clip > 0.0f && length > (double)clip ? (float)((double)clip / length) : 1.0f;
    // Infinity and NaN fail the comparison.
    if (flag && !(length < (double)INFINITE)) {
        *flag = 1;
    }
}

// Not one product and sum is fused: the bits of the CPU.
KERNEL __launch_bounds__(256)
adamw(
    float* param, float* m, float* v, const float* grad, bf16* copy, const float* factor, i64 elements, float keep,
    float beta1, float beta2, float eps, float scale, float rate, float root_correction
) {
    const i64 at = first_of_four();
    if (at >= elements) {
        return;
    }
    const float by = factor ? *factor : scale;
    float p[4], first[4], second[4], g[4];
    load4(param, at, elements, p);
    load4(m, at, elements, first);
    load4(v, at, elements, second);
    load4(grad, at, elements, g);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float x = __fmul_rn(g[i], by);
        first[i] = __fadd_rn(__fmul_rn(beta1, first[i]), __fmul_rn(1.0f - beta1, x));
        second[i] = __fadd_rn(__fmul_rn(beta2, second[i]), __fmul_rn(1.0f - beta2, __fmul_rn(x, x)));
        const float denominator = __fadd_rn(__fmul_rn(__fsqrt_rn(second[i]), root_correction), eps);
        p[i] = __fsub_rn(__fmul_rn(keep, p[i]), __fmul_rn(rate, __fdiv_rn(first[i], denominator)));
    }
    store4(param, at, elements, p);
    store4(m, at, elements, first);
    store4(v, at, elements, second);
    if (copy) {
        store4(copy, at, elements, p);
    }
}

KERNEL __launch_bounds__(256) finite_flag(const float* vector, u32* flag, i64 elements) {
    float x[4];
    load4(vector, first_of_four(), elements, x);
    if (!(is_finite(x[0]) && is_finite(x[1]) && is_finite(x[2]) && is_finite(x[3]))) {
        // Whoever writes writes the same.
        *flag = 1;
    }
}

// Integers: any order gives the same sum.
KERNEL __launch_bounds__(256) checksum(const float* vector, u64* sums, i64 elements) {
    const i64 block = (i64)blockIdx.x * 8 + threadIdx.x / WARP;
    const int lane = threadIdx.x % WARP;
    const i64 first = block * 4096;
    if (first >= elements) {
        return;
    }
    const int here = (int)min((i64)4096, elements - first);
    u64 sum = 0;
    for (int i = lane; i < here; i += WARP) {
        const u64 weight = ((u64)(i + 1) * 0x9e3779b97f4a7c15ull) | 1;
        sum += (u64)__float_as_uint(vector[first + i]) * weight;
    }
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) {
        sum += __shfl_xor_sync(ALL_LANES, sum, step);
    }
    if (lane == 0) {
        sums[block] = sum * (u64)(2 * block + 1);
    }
}

KERNEL __launch_bounds__(256) cast_to_bf16(const float* values, bf16* out, i64 elements) {
    const i64 at = first_of_four();
    float x[4];
    load4(values, at, elements, x);
    store4(out, at, elements, x);
}

KERNEL __launch_bounds__(256) cast_to_f32(const bf16* values, float* out, i64 elements) {
    const i64 at = first_of_four();
    float x[4];
    if (at + 4 <= elements && ((u64)(values + at) & 7) == 0) {
        const uint2 v = *(const uint2*)(values + at);
        x[0] = low_float(v.x), x[1] = high_float(v.x), x[2] = low_float(v.y), x[3] = high_float(v.y);
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            x[i] = at + i < elements ? to_float(values[at + i]) : 0.0f;
        }
    }
    store4(out, at, elements, x);
}
