// Tensor-core fragments and shared-memory tiles of bf16 rows.
//
// Layouts are those of the PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type" and "ldmatrix". With
// group = lane / 4 and quad = lane % 4, a lane holds
//   A (16 x 16): rows group, group + 8, group, group + 8 of columns 2 quad, 2 quad + 1 and, in the last two registers, + 8;
//   B (16 x 8):  rows 2 quad, 2 quad + 1 and, in the second register, + 8, of column group;
//   C (16 x 8):  row group, columns 2 quad, 2 quad + 1; row group + 8, the same columns.
// Two neighbouring C tiles are therefore, rounded to bf16, one A tile: see `as_operand`.

#ifndef POLESTAR_MMA_CUH
#define POLESTAR_MMA_CUH

#ifndef POLESTAR_HOST

// d += a b.
DEVICE void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1)
    );
}

// Four 8 x 8 matrices; lane 8 i + r names row r of matrix i. A lane gets row lane / 4, columns 2 (lane % 4) and the next.
DEVICE void ldmatrix(u32 (&m)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"((u32)__cvta_generic_to_shared(row))
                 : "memory");
}

// The same, each matrix transposed.
DEVICE void ldmatrix_transposed(u32 (&m)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"((u32)__cvta_generic_to_shared(row))
                 : "memory");
}

// Starts a copy of 16 bytes to shared memory; zeros, and nothing is read, unless `there`.
DEVICE void copy_async(void* to, const void* from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"((u32)__cvta_generic_to_shared(to)), "l"(from), "r"(there ? 16 : 0)
                 : "memory");
}

// Ends a group of copies.
DEVICE void copies_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits for this thread's copies but those of the last `PENDING` groups.
template <int PENDING> DEVICE void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

#endif

// Rows of HD bf16 numbers in shared memory, in pieces of 16 bytes that are permuted so that eight rows' same piece lies in
// eight different groups of banks: neither ldmatrix nor a copy of rows meets a bank twice.
template <int HD> struct Tile {
    static const int PIECES = HD / 8;

    // Where a row's piece is, in elements.
    static DEVICE_MEMBER int at(int row, int piece) {
        // Rows that share 128 bytes of banks are not permuted against each other.
        const int turn = HD >= 64 ? row % 8 : HD == 32 ? row / 2 % 4 : row / 4 % 2;
        return row * HD + 8 * (piece ^ turn);
    }
};

// Operand A: 16 rows from `row` on, columns 16 k to 16 k + 15.
template <int HD> DEVICE void load_a(u32 (&a)[4], const bf16* tile, int row, int k) {
    const int lane = threadIdx.x % WARP;
    ldmatrix(a, tile + Tile<HD>::at(row + lane % 16, 2 * k + lane / 16));
}

// Operand B, twice, from rows that are its columns: rows n to n + 7 (b[0], b[1]) and n + 8 to n + 15 (b[2], b[3]) of the
// tile, columns 16 k to 16 k + 15.
template <int HD> DEVICE void load_b(u32 (&b)[4], const bf16* tile, int n, int k) {
    const int lane = threadIdx.x % WARP;
    ldmatrix(b, tile + Tile<HD>::at(n + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
}

// Operand B, twice, from rows that are its rows: rows k to k + 15 of the tile, columns 16 n to 16 n + 7 (b[0], b[1]) and
// 16 n + 8 to 16 n + 15 (b[2], b[3]).
template <int HD> DEVICE void load_b_transposed(u32 (&b)[4], const bf16* tile, int k, int n) {
    const int lane = threadIdx.x % WARP;
    ldmatrix_transposed(b, tile + Tile<HD>::at(k + lane % 16, 2 * n + lane / 16));
}

template <int N> DEVICE void clear(float (&c)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
        c[n][0] = c[n][1] = c[n][2] = c[n][3] = 0.0f;
    }
}

// Two neighbouring accumulators, 16 columns, as operand A.
DEVICE void as_operand(u32 (&a)[4], const float (&left)[4], const float (&right)[4]) {
    a[0] = pack_bf16(left[0], left[1]);
    a[1] = pack_bf16(left[2], left[3]);
    a[2] = pack_bf16(right[0], right[1]);
    a[3] = pack_bf16(right[2], right[3]);
}

// c += a b', 16 rows of one tile by all 8 N rows of another.
//
// Not unrolled as a whole: the compiler would keep every step's addresses in registers, which wide heads haven't got.
template <int HD, int N> DEVICE void add_product(float (&c)[N][4], const bf16* a_tile, int row, const bf16* b_tile) {
#pragma unroll 2
    for (int k = 0; k < HD / 16; ++k) {
        u32 a[4];
        load_a<HD>(a, a_tile, row, k);
#pragma unroll
        for (int n = 0; n < N / 2; ++n) {
            u32 b[4];
            load_b<HD>(b, b_tile, 16 * n, k);
            mma(c[2 * n], a, b[0], b[1]);
            mma(c[2 * n + 1], a, b[2], b[3]);
        }
    }
}

// sums += w rows, w being 16 rows of 8 N numbers in registers, which are rounded, and `rows` a tile of 8 N rows.
template <int HD, int N> DEVICE void add_weighted(float (&sums)[HD / 8][4], const float (&w)[N][4], const bf16* rows) {
#pragma unroll
    for (int k = 0; k < N / 2; ++k) {
        u32 a[4];
        as_operand(a, w[2 * k], w[2 * k + 1]);
#pragma unroll
        for (int n = 0; n < HD / 16; ++n) {
            u32 b[4];
            load_b_transposed<HD>(b, rows, 16 * k, n);
            mma(sums[2 * n], a, b[0], b[1]);
            mma(sums[2 * n + 1], a, b[2], b[3]);
        }
    }
}

#endif
