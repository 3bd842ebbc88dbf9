// Kernels with mistakes, for the tests of the stand-in itself: each must be found.

// Half the block doesn't come to the barrier.
KERNEL fault_skipped_barrier(int* out) {
    if (threadIdx.x < 64) {
        __syncthreads();
    }
    out[threadIdx.x] = 1;
}

// Each half comes to a barrier of its own.
KERNEL fault_other_barrier(int* out) {
    if (threadIdx.x < 64) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 1;
}

// One lane is gone when the others add up.
KERNEL fault_left_warp(float* out) {
    if (threadIdx.x == 5) {
        return;
    }
    out[threadIdx.x] = warp_sum(1.0f);
}

// Reads what another warp may not have written yet.
KERNEL fault_missing_barrier(int* out) {
    SHARED(int, shared, 128);
    shared[threadIdx.x] = (int)threadIdx.x;
    out[threadIdx.x] = shared[127 - threadIdx.x];
}

// Reads what may not have arrived yet.
KERNEL fault_missing_wait(const u32* in, u32* out) {
    DYNAMIC_SHARED(shared);
    copy_async(shared + 16 * threadIdx.x, in + 4 * threadIdx.x, true);
    copies_commit();
    out[threadIdx.x] = ((const u32*)shared)[4 * threadIdx.x];
    copies_wait<0>();
}

// Ends while copies are under way.
KERNEL fault_copies_left(const u32* in, u32* out) {
    DYNAMIC_SHARED(shared);
    copy_async(shared + 16 * threadIdx.x, in + 4 * threadIdx.x, true);
    copies_commit();
    out[threadIdx.x] = 0;
}

// Reads a matrix from beyond the end of shared memory.
KERNEL fault_outside(u32* out) {
    DYNAMIC_SHARED(shared);
    u32 m[4];
    ldmatrix(m, shared + 16 * threadIdx.x + 16);
    out[threadIdx.x] = m[0];
}
