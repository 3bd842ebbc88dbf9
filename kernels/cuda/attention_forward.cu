// Attention's forward pass: one block for 64 queries of a head, 16 a warp.
//
// Softmax in one pass over the keys, with a running maximum; keys and values come in two stages, one under way while the
// other is used. Scores never leave registers.

template <int HD>
DEVICE void attention_forward(
    const bf16* qkv, bf16* out, float* log_sums, const u32* tiles, const u32* ranges, int tokens, int kv_heads,
    int group, int width, float scale
) {
    DYNAMIC_SHARED(shared);
    bf16* queries = (bf16*)shared;
    // Of each stage: keys, values.
    bf16* stages = queries + ROWS * HD;

    const Entry entry = entry_of(tiles, blockIdx.y);
    const int head = blockIdx.x, kv_head = head / group;
    const i64 stride = (i64)kv_heads * (group + 2) * width;
    const bf16* of_kv_head = qkv + (i64)kv_head * (group + 2) * width;
    const bf16* keys = of_kv_head + (i64)group * width;

    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int quad = lane % 4;
    // Each lane has two rows of its warp's 16, eight apart.
    const int row = warp * 16 + lane / 4;
    const int query = entry.start + row;

    Walk ahead(ranges, entry), walk = ahead;
    bring<HD, ROWS>(queries, of_kv_head + entry.start * stride + (i64)(head % group) * width, stride, entry.len, width);
    bring<HD, COLUMNS>(stages, keys + ahead.from * stride, stride, ahead.to - ahead.from, width);
    bring<HD, COLUMNS>(stages + COLUMNS * HD, keys + ahead.from * stride + width, stride, ahead.to - ahead.from, width);
    copies_commit();
    ahead.advance();

    u32 q[HD / 16][4];
    float sums[HD / 8][4];
    clear(sums);
    // In units of the exponent of 2: scores times `factor`.
    const float factor = scale * LOG2E;
    float max[2] = {-INFINITE, -INFINITE}, total[2] = {0.0f, 0.0f};

    for (int step = 0; !walk.done(); ++step, walk.advance()) {
        if (!ahead.done()) {
            bf16* next = stages + ((step + 1) & 1) * 2 * COLUMNS * HD;
            bring<HD, COLUMNS>(next, keys + ahead.from * stride, stride, ahead.to - ahead.from, width);
            bring<HD, COLUMNS>(
                next + COLUMNS * HD, keys + ahead.from * stride + width, stride, ahead.to - ahead.from, width
            );
            ahead.advance();
        }
        // An empty group where nothing is left to bring: the last but one is always the one that is needed.
        copies_commit();
        copies_wait<1>();
        __syncthreads();
        const bf16* k_tile = stages + (step & 1) * 2 * COLUMNS * HD;
        const bf16* v_tile = k_tile + COLUMNS * HD;
        if (step == 0) {
#pragma unroll
            for (int k = 0; k < HD / 16; ++k) {
                load_a<HD>(q[k], queries, warp * 16, k);
            }
        }

        float scores[COLUMNS / 8][4];
        clear(scores);
#pragma unroll
        for (int k = 0; k < HD / 16; ++k) {
#pragma unroll
            for (int n = 0; n < COLUMNS / 16; ++n) {
                u32 b[4];
                load_b<HD>(b, k_tile, 16 * n, k);
                mma(scores[2 * n], q[k], b[0], b[1]);
                mma(scores[2 * n + 1], q[k], b[2], b[3]);
            }
        }
        // Keys behind the range's end or behind the query are not seen. Most steps have none of either.
        if (walk.from + COLUMNS > walk.to || walk.from + COLUMNS - 1 > entry.start + warp * 16) {
#pragma unroll
            for (int n = 0; n < COLUMNS / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int key = walk.from + 8 * n + 2 * quad + i % 2;
                    if (key >= walk.to || key > query + i / 2 * 8) {
                        scores[n][i] = -INFINITE;
                    }
                }
            }
        }

        float shift[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float most = max[half];
#pragma unroll
            for (int n = 0; n < COLUMNS / 8; ++n) {
                most = fmaxf(most, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
            }
            most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 1));
            most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 2));
            // A query sees the first key of its first range, so that from the first step on there is a maximum.
            const float kept = fast_exp2((max[half] - most) * factor);
            max[half] = most;
            total[half] *= kept;
#pragma unroll
            for (int n = 0; n < HD / 8; ++n) {
                sums[n][2 * half] *= kept;
                sums[n][2 * half + 1] *= kept;
            }
            shift[half] = most * factor;
        }
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float weight = fast_exp2(fmaf(scores[n][i], factor, -shift[i / 2]));
                scores[n][i] = weight;
                total[i / 2] += weight;
            }
        }
        add_weighted<HD>(sums, scores, v_tile);
        // The stage is free only now.
        __syncthreads();
    }
    copies_wait<0>();

    const int rows = entry.len - warp * 16;
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        total[half] += __shfl_xor_sync(ALL_LANES, total[half], 1);
        total[half] += __shfl_xor_sync(ALL_LANES, total[half], 2);
        inverse[half] = 1.0f / total[half];
        if (quad == 0 && lane / 4 + 8 * half < rows) {
            log_sums[(i64)head * tokens + query + 8 * half] = fmaf(max[half], scale, logf(total[half]));
        }
    }
    const int heads = kv_heads * group;
    bf16* to = out + ((i64)(entry.start + warp * 16) * heads + head) * width;
    write_rows<HD>(to, (i64)heads * width, rows, width, sums, inverse[0], inverse[1]);
}

#define ATTENTION_FORWARD(HD)                                                                                          \
    KERNEL __launch_bounds__(THREADS) attention_forward_##HD(                                                          \
        const bf16* qkv, bf16* out, float* log_sums, const u32* tiles, const u32* ranges, int tokens, int kv_heads,    \
        int group, int width, float scale                                                                              \
    ) {                                                                                                                \
        attention_forward<HD>(qkv, out, log_sums, tiles, ranges, tokens, kv_heads, group, width, scale);               \
    }

ATTENTION_FORWARD(16)
ATTENTION_FORWARD(32)
ATTENTION_FORWARD(64)
ATTENTION_FORWARD(128)
