// Operations on rows: embedding, norm, rotation, gated activation.

KERNEL __launch_bounds__(256)
embedding_forward(const u32* ids, const bf16* table, bf16* out, int tokens, int width) {
    const int row = blockIdx.x * 8 + threadIdx.x / WARP;
    const int lane = threadIdx.x % WARP;
    if (row >= tokens) {
        return;
    }
    const bf16* from = table + (u64)ids[row] * width;
    bf16* to = out + (u64)row * width;
    if (width % 8 == 0) {
        for (int column = 8 * lane; column < width; column += 8 * WARP) {
            *(uint4*)(to + column) = *(const uint4*)(from + column);
        }
    } else {
        for (int column = lane; column < width; column += WARP) {
            to[column] = from[column];
        }
    }
}

// A block has an id and 256 columns, a thread two of them. Tokens come in their order, so the sum has one order.
KERNEL __launch_bounds__(128)
embedding_backward(
    const u32* distinct, const u32* starts, const u32* order, const bf16* grad, float* table_grad, int distinct_ids,
    int width
) {
    const int at = blockIdx.x;
    const int column = blockIdx.y * 256 + 2 * threadIdx.x;
    if (column >= width) {
        return;
    }
    const u32 end = starts[at + 1];
    const bool both = column + 1 < width;
    const bool pairs = width % 2 == 0;
    float first = 0.0f, second = 0.0f;
#pragma unroll 4
    for (u32 i = starts[at]; i < end; ++i) {
        const bf16* row = grad + (u64)order[i] * width + column;
        if (pairs) {
            const u32 pair = *(const u32*)row;
            first += low_float(pair);
            second += high_float(pair);
        } else {
            first += to_float(row[0]);
            second += both ? to_float(row[1]) : 0.0f;
        }
    }
    float* into = table_grad + (u64)distinct[at] * width + column;
    into[0] += first;
    if (both) {
        into[1] += second;
    }
}

KERNEL __launch_bounds__(256)
rms_norm_forward(
    const bf16* x, const u32* picked, const float* weight, bf16* out, int rows, int width, float eps
) {
    const int row = blockIdx.x * 8 + threadIdx.x / WARP;
    const int lane = threadIdx.x % WARP;
    if (row >= rows) {
        return;
    }
    const bf16* from = x + (u64)(picked ? picked[row] : row) * width;
    bf16* to = out + (u64)row * width;
    float values[8], scales[8];
    float squares = 0.0f;
    for (int column = 8 * lane; column < width; column += 8 * WARP) {
        load8(from, column, width, values);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            squares = fmaf(values[i], values[i], squares);
        }
    }
    const float inverse = 1.0f / sqrtf(warp_sum(squares) / width + eps);
    // The second time from the first-level cache: a row has at most 16 KiB.
    for (int column = 8 * lane; column < width; column += 8 * WARP) {
        load8(from, column, width, values);
        load8(weight, column, width, scales);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            values[i] = values[i] * inverse * scales[i];
        }
        store8(to, column, width, values);
    }
}

// With n = x / rms and g = grad * weight: x_grad = (g - n * mean(g n)) / rms, and weight_grad sums grad * n.
//
// A block takes its rows one after the other, a thread 8 columns of each: it keeps the columns' sums in registers.
KERNEL __launch_bounds__(1024)
rms_norm_backward(
    const bf16* x, const u32* picked, const float* weight, const bf16* grad, const bf16* residual, bf16* x_grad,
    float* partials, int rows, int width, float eps, int each
) {
    const int most_warps = 32;
    const int column = 8 * threadIdx.x;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int warps = blockDim.x / WARP;
    // One row's sums are read while the next one's are written elsewhere: one barrier a row.
    SHARED(float, sums, 2 * 2 * most_warps);
    float w[8], weight_grad[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        w[i] = weight_grad[i] = 0.0f;
    }
    if (column < width) {
        load8(weight, column, width, w);
    }
    const int first = blockIdx.x * each;
    const int end = min(rows, first + each);
    for (int row = first; row < end; ++row) {
        const u64 place = (u64)(picked ? picked[row] : row) * width;
        float v[8], g[8];
        float squares = 0.0f, along = 0.0f;
        if (column < width) {
            load8(x + place, column, width, v);
            load8(grad + (u64)row * width, column, width, g);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                squares = fmaf(v[i], v[i], squares);
                along = fmaf(v[i], g[i] * w[i], along);
            }
        }
        squares = warp_sum(squares);
        along = warp_sum(along);
        float* of_row = sums + (row & 1) * 2 * most_warps;
        if (lane == 0) {
            of_row[warp] = squares;
            of_row[most_warps + warp] = along;
        }
        __syncthreads();
        squares = of_row[0];
        along = of_row[most_warps];
        for (int other = 1; other < warps; ++other) {
            squares += of_row[other];
            along += of_row[most_warps + other];
        }
        const float inverse = 1.0f / sqrtf(squares / width + eps);
        along = along * inverse * inverse / width;
        if (column < width) {
            float out[8], more[8];
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                out[i] = fmaf(-along, v[i], g[i] * w[i]) * inverse;
                weight_grad[i] = fmaf(g[i], v[i] * inverse, weight_grad[i]);
            }
            if (residual) {
                load8(residual + place, column, width, more);
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    out[i] += more[i];
                }
            }
            store8(x_grad + place, column, width, out);
        }
    }
    float* partial = partials + (u64)blockIdx.x * width;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        if (column + i < width) {
            partial[column + i] = weight_grad[i];
        }
    }
}

KERNEL __launch_bounds__(256)
rope_table(const u32* positions, const float* frequencies, float* cos_out, float* sin_out, int tokens, int pairs) {
    const i64 at = (i64)blockIdx.x * 256 + threadIdx.x;
    if (at >= (i64)tokens * pairs) {
        return;
    }
    // The angle is rounded to f32; its sine and cosine are exact before they are rounded.
    const double angle = __fmul_rn((float)positions[at / pairs], frequencies[at % pairs]);
    cos_out[at] = (float)cos(angle);
    sin_out[at] = (float)sin(angle);
}

// Element i of a head and element i + width / 2 by one angle.
KERNEL __launch_bounds__(256)
rope(
    bf16* qkv, const float* cos_table, const float* sin_table, int tokens, int kv_heads, int group, int width, int back
) {
    const int half = width / 2;
    const int pieces = (half + 7) / 8;
    const int rotated = group + 1;
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x;
    const int column = 8 * (int)(at % pieces);
    at /= pieces;
    const int part = (int)(at % rotated);
    at /= rotated;
    const int kv_head = (int)(at % kv_heads);
    at /= kv_heads;
    if (at >= tokens) {
        return;
    }
    bf16* first = qkv + ((at * kv_heads + kv_head) * (group + 2) + part) * width;
    bf16* second = first + half;
    float a[8], b[8], c[8], s[8];
    load8(first, column, half, a);
    load8(second, column, half, b);
    load8(cos_table + at * half, column, half, c);
    load8(sin_table + at * half, column, half, s);
    float x[8], y[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const float sine = back ? -s[i] : s[i];
        x[i] = fmaf(a[i], c[i], -(b[i] * sine));
        y[i] = fmaf(b[i], c[i], a[i] * sine);
    }
    store8(first, column, half, x);
    store8(second, column, half, y);
}

KERNEL __launch_bounds__(256)
swiglu_forward(const bf16* gate_up, bf16* out, int tokens, int width) {
    const int pieces = (width + 7) / 8;
    const i64 at = (i64)blockIdx.x * 256 + threadIdx.x;
    const i64 row = at / pieces;
    if (row >= tokens) {
        return;
    }
    const int column = 8 * (int)(at % pieces);
    const bf16* gates = gate_up + row * 2 * width;
    float gate[8], up[8];
    load8(gates, column, width, gate);
    load8(gates + width, column, width, up);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        gate[i] = gate[i] * sigmoid(gate[i]) * up[i];
    }
    store8(out + row * width, column, width, gate);
}

// silu' = sigmoid * (1 + gate * (1 - sigmoid)).
KERNEL __launch_bounds__(256)
swiglu_backward(
    const bf16* gate_up, const bf16* grad, bf16* gate_up_grad, bf16* product, int tokens, int width
) {
    const int pieces = (width + 7) / 8;
    const i64 at = (i64)blockIdx.x * 256 + threadIdx.x;
    const i64 row = at / pieces;
    if (row >= tokens) {
        return;
    }
    const int column = 8 * (int)(at % pieces);
    const bf16* gates = gate_up + row * 2 * width;
    float gate[8], up[8], g[8], out[8];
    load8(gates, column, width, gate);
    load8(gates + width, column, width, up);
    load8(grad + row * width, column, width, g);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const float s = sigmoid(gate[i]);
        const float silu = gate[i] * s;
        out[i] = silu * up[i];
        gate[i] = g[i] * up[i] * s * fmaf(gate[i], 1.0f - s, 1.0f);
        up[i] = g[i] * silu;
    }
    bf16* gate_grads = gate_up_grad + row * 2 * width;
    store8(gate_grads, column, width, gate);
    store8(gate_grads + width, column, width, up);
    if (product) {
        store8(product + row * width, column, width, out);
    }
}

KERNEL __launch_bounds__(256)
scatter_rows(const bf16* rows, const u32* picked, bf16* x, int count, int width) {
    const int row = blockIdx.x * 8 + threadIdx.x / WARP;
    const int lane = threadIdx.x % WARP;
    if (row >= count) {
        return;
    }
    bf16* into = x + (u64)picked[row] * width;
    float sum[8], more[8];
    for (int column = 8 * lane; column < width; column += 8 * WARP) {
        load8(into, column, width, sum);
        load8(rows + (u64)row * width, column, width, more);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            sum[i] += more[i];
        }
        store8(into, column, width, sum);
    }
}
