// What the passes of the attention share: tiles of rows on their way to shared memory, and the walk over ranges.

#ifndef POLESTAR_ATTENTION_CUH
#define POLESTAR_ATTENTION_CUH

// Rows of a tile, and of the other side that a block takes at a time. (TileTable in kernels/src/cuda/abi/tiles.rs.)
#define ROWS 64
#define COLUMNS 64
#define THREADS 128

// A block's entry of the table.
struct Entry {
    int start, len, range, end;
};

DEVICE Entry entry_of(const u32* tiles, int at) {
    const uint4 v = *(const uint4*)(tiles + 4 * at);
    Entry entry;
    entry.start = (int)v.x, entry.len = (int)v.y, entry.range = (int)v.z, entry.end = (int)v.w;
    return entry;
}

// Steps of at most COLUMNS tokens through an entry's ranges.
struct Walk {
    const u32* ranges;
    int range, last;
    // The current step: tokens from `from` on, below `to`.
    int from, to;

    DEVICE_MEMBER Walk(const u32* table, const Entry& entry)
        : ranges(table), range(entry.range), last(entry.end), from(0), to(0) {
        enter();
    }

    DEVICE_MEMBER bool done() const {
        return range >= last;
    }

    DEVICE_MEMBER void advance() {
        from += COLUMNS;
        if (from >= to) {
            ++range;
            enter();
        }
    }

    DEVICE_MEMBER void enter() {
        if (range < last) {
            from = (int)ranges[2 * range];
            to = (int)ranges[2 * range + 1];
        }
    }
};

// Starts to bring COUNT rows of `width` numbers, `stride` apart, into a tile, zeros behind `rows` and `width`.
template <int HD, int COUNT> DEVICE void bring(bf16* tile, const bf16* from, i64 stride, int rows, int width) {
    // A thread has one piece of every so many rows, which lie equally permuted.
    const int pieces = Tile<HD>::PIECES, apart = THREADS / pieces;
    const int piece = threadIdx.x % pieces, first = threadIdx.x / pieces;
    bf16* to = tile + Tile<HD>::at(first, piece);
    if (width % 8 == 0) {
        const bf16* row = from + first * stride + 8 * piece;
        const bool inside = 8 * piece < width;
#pragma unroll
        for (int i = 0; i < COUNT / apart; ++i) {
            const bool there = inside && first + i * apart < rows;
            copy_async(to + i * apart * HD, there ? row : from, there);
            row += apart * stride;
        }
    } else {
        // Odd widths are for tests' models: a number at a time.
#pragma unroll 1
        for (int at = 0; at < COUNT / apart * 8; ++at) {
            const int row = first + at / 8 * apart, column = 8 * piece + at % 8;
            bf16 x;
            x.bits = 0;
            if (row < rows && column < width) {
                x = from[row * stride + column];
            }
            to[at / 8 * apart * HD + at % 8] = x;
        }
    }
}

// Writes an accumulator's 16 rows, times a factor each, `stride` apart; `rows` of them are there.
template <int HD>
DEVICE void write_rows(
    bf16* to, i64 stride, int rows, int width, const float (&sums)[HD / 8][4], float above, float below
) {
    const int lane = threadIdx.x % WARP;
    const int group = lane / 4, quad = lane % 4;
#pragma unroll
    for (int n = 0; n < HD / 8; ++n) {
        const int column = 8 * n + 2 * quad;
        if (column < width) {
            if (group < rows) {
                *(u32*)(to + group * stride + column) = pack_bf16(sums[n][0] * above, sums[n][1] * above);
            }
            if (group + 8 < rows) {
                *(u32*)(to + (group + 8) * stride + column) = pack_bf16(sums[n][2] * below, sums[n][3] * below);
            }
        }
    }
}

#endif
