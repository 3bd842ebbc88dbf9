// Attention's backward pass, in two: gradients of queries, then of keys and values. Each computes the weights anew from the
// scores and their log sums; neither shares a sum with another block, so nothing is left to chance.
//
// With P = exp(scale S - log_sum) and dP = dO V': dS = P (dP - delta), dQ = scale dS K, dK = scale dS' Q, dV = P' dO.

// Half a warp for a token's head.
KERNEL __launch_bounds__(256)
attention_delta(const bf16* out, const bf16* grad, float* delta, int tokens, int heads, int width) {
    const i64 at = (i64)blockIdx.x * 16 + threadIdx.x / 16;
    const int lane = threadIdx.x % 16;
    const bool there = at < (i64)tokens * heads;
    float sum = 0.0f;
    if (there && 8 * lane < width) {
        float a[8], b[8];
        load8(out + at * width, 8 * lane, width, a);
        load8(grad + at * width, 8 * lane, width, b);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            sum = fmaf(a[i], b[i], sum);
        }
    }
#pragma unroll
    for (int step = 8; step > 0; step /= 2) {
        sum += __shfl_xor_sync(ALL_LANES, sum, step);
    }
    if (there && lane == 0) {
        delta[at % heads * tokens + at / heads] = sum;
    }
}

// One block for 64 queries of a head, 16 a warp.
template <int HD>
DEVICE void attention_query_gradient(
    const bf16* qkv, const bf16* grad, const float* log_sums, const float* delta, bf16* qkv_grad, const u32* tiles,
    const u32* ranges, int tokens, int kv_heads, int group, int width, float scale
) {
    DYNAMIC_SHARED(shared);
    bf16* queries = (bf16*)shared;
    bf16* grads = queries + ROWS * HD;
    // Of each stage: keys, values.
    bf16* stages = grads + ROWS * HD;

    const Entry entry = entry_of(tiles, blockIdx.y);
    const int head = blockIdx.x, kv_head = head / group, heads = kv_heads * group;
    const i64 stride = (i64)kv_heads * (group + 2) * width;
    const i64 of_kv_head = (i64)kv_head * (group + 2) * width;
    const bf16* keys = qkv + of_kv_head + (i64)group * width;
    const i64 own = entry.start * stride + of_kv_head + (i64)(head % group) * width;

    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int quad = lane % 4;
    const int row = warp * 16 + lane / 4;
    const int query = entry.start + row;

    Walk ahead(ranges, entry), walk = ahead;
    bring<HD, ROWS>(queries, qkv + own, stride, entry.len, width);
    bring<HD, ROWS>(
        grads, grad + ((i64)entry.start * heads + head) * width, (i64)heads * width, entry.len, width
    );
    bring<HD, COLUMNS>(stages, keys + ahead.from * stride, stride, ahead.to - ahead.from, width);
    bring<HD, COLUMNS>(stages + COLUMNS * HD, keys + ahead.from * stride + width, stride, ahead.to - ahead.from, width);
    copies_commit();
    ahead.advance();

    const float factor = scale * LOG2E;
    // Of rows that are not there the weights are zero.
    float log_sum[2], mean[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const bool there = row + 8 * half < entry.len;
        const i64 at = (i64)head * tokens + query + 8 * half;
        log_sum[half] = there ? log_sums[at] * LOG2E : INFINITE;
        mean[half] = there ? delta[at] : 0.0f;
    }
    float sums[HD / 8][4];
    clear(sums);

    for (int step = 0; !walk.done(); ++step, walk.advance()) {
        if (!ahead.done()) {
            bf16* next = stages + ((step + 1) & 1) * 2 * COLUMNS * HD;
            bring<HD, COLUMNS>(next, keys + ahead.from * stride, stride, ahead.to - ahead.from, width);
            bring<HD, COLUMNS>(
                next + COLUMNS * HD, keys + ahead.from * stride + width, stride, ahead.to - ahead.from, width
            );
            ahead.advance();
        }
        copies_commit();
        copies_wait<1>();
        __syncthreads();
        const bf16* k_tile = stages + (step & 1) * 2 * COLUMNS * HD;
        const bf16* v_tile = k_tile + COLUMNS * HD;

        float scores[COLUMNS / 8][4], weight_grads[COLUMNS / 8][4];
        clear(scores);
        clear(weight_grads);
        add_product<HD>(scores, queries, warp * 16, k_tile);
        add_product<HD>(weight_grads, grads, warp * 16, v_tile);
        const bool masked = walk.from + COLUMNS > walk.to || walk.from + COLUMNS - 1 > entry.start + warp * 16;
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                float weight = fast_exp2(fmaf(scores[n][i], factor, -log_sum[i / 2]));
                const int key = walk.from + 8 * n + 2 * quad + i % 2;
                if (masked && (key >= walk.to || key > query + i / 2 * 8)) {
                    weight = 0.0f;
                }
                scores[n][i] = weight * (weight_grads[n][i] - mean[i / 2]);
            }
        }
        add_weighted<HD>(sums, scores, k_tile);
        __syncthreads();
    }
    copies_wait<0>();
    write_rows<HD>(
        qkv_grad + own + warp * 16 * stride, stride, entry.len - warp * 16, width, sums, scale, scale
    );
}

// One block for 64 keys of a key and value head, 16 a warp. Scores are transposed: rows are keys, columns queries. The query
// heads come one after the other, each with its queries in token order: the sums have one order.
template <int HD>
DEVICE void attention_key_value_gradient(
    const bf16* qkv, const bf16* grad, const float* log_sums, const float* delta, bf16* qkv_grad, const u32* tiles,
    const u32* ranges, int tokens, int kv_heads, int group, int width, float scale
) {
    DYNAMIC_SHARED(shared);
    bf16* keys = (bf16*)shared;
    bf16* values = keys + ROWS * HD;
    // Of each stage: queries, gradients of their output.
    bf16* stages = values + ROWS * HD;
    // Of each stage: log sums, deltas.
    float* numbers = (float*)(stages + 2 * 2 * COLUMNS * HD);

    const Entry entry = entry_of(tiles, blockIdx.y);
    const int kv_head = blockIdx.x, heads = kv_heads * group;
    const i64 stride = (i64)kv_heads * (group + 2) * width;
    const i64 of_kv_head = (i64)kv_head * (group + 2) * width;
    const i64 own = entry.start * stride + of_kv_head + (i64)group * width;

    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int quad = lane % 4;
    const int key = entry.start + warp * 16 + lane / 4;

    // Walks through the ranges once for each query head.
    int head_ahead = 0;
    Walk ahead(ranges, entry);
    const auto bring_queries = [&](int stage) {
        const int head = kv_head * group + head_ahead;
        const int there = ahead.to - ahead.from;
        bf16* tile = stages + stage * 2 * COLUMNS * HD;
        bring<HD, COLUMNS>(
            tile, qkv + ahead.from * stride + of_kv_head + (i64)head_ahead * width, stride, there, width
        );
        bring<HD, COLUMNS>(
            tile + COLUMNS * HD, grad + ((i64)ahead.from * heads + head) * width, (i64)heads * width, there, width
        );
        if (threadIdx.x < COLUMNS) {
            // Of queries that are not there the weights are zero.
            const int column = threadIdx.x;
            const i64 at = (i64)head * tokens + ahead.from + column;
            float* of_stage = numbers + stage * 2 * COLUMNS;
            of_stage[column] = column < there ? log_sums[at] * LOG2E : INFINITE;
            of_stage[COLUMNS + column] = column < there ? delta[at] : 0.0f;
        }
        ahead.advance();
        if (ahead.done()) {
            ++head_ahead;
            ahead = Walk(ranges, entry);
        }
    };

    bring<HD, ROWS>(keys, qkv + own, stride, entry.len, width);
    bring<HD, ROWS>(values, qkv + own + width, stride, entry.len, width);
    bring_queries(0);
    copies_commit();

    const float factor = scale * LOG2E;
    float key_sums[HD / 8][4], value_sums[HD / 8][4];
    clear(key_sums);
    clear(value_sums);

    int step = 0;
    for (int head = 0; head < group; ++head) {
        for (Walk walk(ranges, entry); !walk.done(); walk.advance(), ++step) {
            if (head_ahead < group) {
                bring_queries((step + 1) & 1);
            }
            copies_commit();
            copies_wait<1>();
            __syncthreads();
            const bf16* q_tile = stages + (step & 1) * 2 * COLUMNS * HD;
            const bf16* g_tile = q_tile + COLUMNS * HD;
            const float* of_stage = numbers + (step & 1) * 2 * COLUMNS;

            float weights[COLUMNS / 8][4];
            clear(weights);
            add_product<HD>(weights, keys, warp * 16, q_tile);
            // A query before the key doesn't see it.
            const bool masked = walk.from < entry.start + warp * 16 + 15;
#pragma unroll
            for (int n = 0; n < COLUMNS / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int column = 8 * n + 2 * quad + i % 2;
                    const float weight = fast_exp2(fmaf(weights[n][i], factor, -of_stage[column]));
                    weights[n][i] = masked && walk.from + column < key + i / 2 * 8 ? 0.0f : weight;
                }
            }
            add_weighted<HD>(value_sums, weights, g_tile);

            float weight_grads[COLUMNS / 8][4];
            clear(weight_grads);
            add_product<HD>(weight_grads, values, warp * 16, g_tile);
#pragma unroll
            for (int n = 0; n < COLUMNS / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int column = 8 * n + 2 * quad + i % 2;
                    weights[n][i] *= weight_grads[n][i] - of_stage[COLUMNS + column];
                }
            }
            add_weighted<HD>(key_sums, weights, q_tile);
            __syncthreads();
        }
    }
    copies_wait<0>();
    bf16* to = qkv_grad + own + warp * 16 * stride;
    const int rows = entry.len - warp * 16;
    write_rows<HD>(to, stride, rows, width, key_sums, scale, scale);
    write_rows<HD>(to + width, stride, rows, width, value_sums, 1.0f, 1.0f);
}

#define ATTENTION_BACKWARD(PASS, HD)                                                                                   \
    KERNEL __launch_bounds__(THREADS) PASS##_##HD(                                                                     \
        const bf16* qkv, const bf16* grad, const float* log_sums, const float* delta, bf16* qkv_grad,                  \
        const u32* tiles, const u32* ranges, int tokens, int kv_heads, int group, int width, float scale               \
    ) {                                                                                                                \
        PASS<HD>(                                                                                                      \
            qkv, grad, log_sums, delta, qkv_grad, tiles, ranges, tokens, kv_heads, group, width, scale                 \
        );                                                                                                             \
    }

ATTENTION_BACKWARD(attention_query_gradient, 16)
ATTENTION_BACKWARD(attention_query_gradient, 32)
ATTENTION_BACKWARD(attention_query_gradient, 64)
ATTENTION_BACKWARD(attention_query_gradient, 128)
ATTENTION_BACKWARD(attention_key_value_gradient, 16)
ATTENTION_BACKWARD(attention_key_value_gradient, 32)
ATTENTION_BACKWARD(attention_key_value_gradient, 64)
ATTENTION_BACKWARD(attention_key_value_gradient, 128)
