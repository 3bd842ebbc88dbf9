// The heads: rewards and their loss, next-token loss.

// A norm, a dot product with the head: everything after the activations' bf16 is f32.
KERNEL __launch_bounds__(256)
reward_forward(
    const bf16* x, const u32* picked, const float* weight, const float* head, float* rewards, float* inverses,
    int rows, int width, float eps
) {
    const int row = blockIdx.x * 8 + threadIdx.x / WARP;
    const int lane = threadIdx.x % WARP;
    if (row >= rows) {
        return;
    }
    const bf16* values = x + (u64)picked[row] * width;
    float squares = 0.0f, dot = 0.0f;
    for (int column = lane; column < width; column += WARP) {
        const float v = to_float(values[column]);
        squares = fmaf(v, v, squares);
        dot = fmaf(v * weight[column], head[column], dot);
    }
    squares = warp_sum(squares);
    dot = warp_sum(dot);
    if (lane == 0) {
        const float inverse = 1.0f / sqrtf(squares / width + eps);
        inverses[row] = inverse;
        rewards[row] = dot * inverse;
    }
}

KERNEL __launch_bounds__(256)
reward_loss(
    const float* rewards, float* losses, float* margins, float* reward_grads, u32* flag, int triplets, float scale
) {
    const int triplet = blockIdx.x * 256 + threadIdx.x;
    if (triplet >= triplets) {
        return;
    }
    const float margin = rewards[2 * triplet] - rewards[2 * triplet + 1];
    // ln(1 + e^-m) without an exponential that overflows.
    const float tail = expf(-fabsf(margin));
    const float loss = fmaxf(-margin, 0.0f) + log1pf(tail);
    losses[triplet] = loss;
    margins[triplet] = margin;
    // fmaxf drops a NaN: look at the margin too.
    if (flag && !(is_finite(loss) && is_finite(margin))) {
        *flag = 1;
    }
    if (reward_grads) {
        const float wrong = margin > 0.0f ? tail / (1.0f + tail) : 1.0f / (1.0f + tail);
        reward_grads[2 * triplet] = -scale * wrong;
        reward_grads[2 * triplet + 1] = scale * wrong;
    }
}

KERNEL __launch_bounds__(256)
reward_backward(
    const bf16* x, const u32* picked, const float* weight, const float* head, const float* inverses,
    const float* reward_grads, bf16* x_grad, int rows, int width
) {
    const int row = blockIdx.x * 8 + threadIdx.x / WARP;
    const int lane = threadIdx.x % WARP;
    if (row >= rows) {
        return;
    }
    const u64 place = (u64)picked[row] * width;
    const bf16* values = x + place;
    const float inverse = inverses[row], grad = reward_grads[row];
    float along = 0.0f;
    for (int column = lane; column < width; column += WARP) {
        along = fmaf(to_float(values[column]) * weight[column], head[column], along);
    }
    along = warp_sum(along) * inverse * inverse / width;
    for (int column = lane; column < width; column += WARP) {
        const float g = weight[column] * head[column];
        const float out = fmaf(-along, to_float(values[column]), g) * inverse * grad;
        x_grad[place + column] = to_bf16(out);
    }
}

KERNEL __launch_bounds__(64)
reward_weight_gradient(
    const bf16* x, const u32* picked, const float* weight, const float* head, const float* inverses,
    const float* reward_grads, float* weight_grad, float* head_grad, int rows, int width
) {
    const int column = blockIdx.x * 64 + threadIdx.x;
    if (column >= width) {
        return;
    }
    float sum = 0.0f;
#pragma unroll 4
    for (int row = 0; row < rows; ++row) {
        const float normed = to_float(x[(u64)picked[row] * width + column]) * inverses[row];
        sum = fmaf(reward_grads[row], normed, sum);
    }
    // Both gradients are multiples of the one sum.
    const float scale = weight[column], factor = head[column];
    weight_grad[column] += sum * factor;
    head_grad[column] += sum * scale;
}

// A maximum and the sum of exponentials relative to it.
struct Softmax {
    float max, sum;
};

DEVICE Softmax merged(Softmax a, Softmax b) {
    Softmax both;
    both.max = fmaxf(a.max, b.max);
    // Nothing seen on either side: leave the empty sum alone.
    const float shift = both.max == -INFINITE ? 0.0f : both.max;
    both.sum = a.sum * fast_exp2(LOG2E * (a.max - shift)) + b.sum * fast_exp2(LOG2E * (b.max - shift));
    return both;
}

KERNEL __launch_bounds__(512)
cross_entropy(
    const float* logits, const u32* targets, const float* weights, float* losses, bf16* logits_grad, u32* flag,
    int rows, int classes, float scale
) {
    const int row = blockIdx.x;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int warps = blockDim.x / WARP;
    const float* values = logits + (u64)row * classes;
    SHARED(float, maxima, 16);
    SHARED(float, sums, 16);

    Softmax seen = {-INFINITE, 0.0f};
    for (int column = threadIdx.x; column < classes; column += blockDim.x) {
        const float x = values[column];
        if (x > seen.max) {
            seen.sum = seen.sum * fast_exp2(LOG2E * (seen.max - x)) + 1.0f;
            seen.max = x;
        } else {
            seen.sum += fast_exp2(LOG2E * (x - seen.max));
        }
    }
    // Of two lanes the lower one's comes first for both, so that all lanes have the same bits.
    for (int step = 1; step < WARP; step *= 2) {
        Softmax other;
        other.max = __shfl_xor_sync(ALL_LANES, seen.max, step);
        other.sum = __shfl_xor_sync(ALL_LANES, seen.sum, step);
        seen = lane & step ? merged(other, seen) : merged(seen, other);
    }
    if (lane == 0) {
        maxima[warp] = seen.max;
        sums[warp] = seen.sum;
    }
    __syncthreads();
    seen.max = maxima[0];
    seen.sum = sums[0];
    for (int other = 1; other < warps; ++other) {
        const Softmax next = {maxima[other], sums[other]};
        seen = merged(seen, next);
    }
    const float log_sum = seen.max + logf(seen.sum);
    const int target = (int)targets[row];
    if (threadIdx.x == 0) {
        const float loss = log_sum - values[target];
        losses[row] = loss;
        if (flag && !is_finite(loss)) {
            *flag = 1;
        }
    }
    if (logits_grad) {
        const float factor = weights ? scale * weights[row] : scale;
        bf16* grads = logits_grad + (u64)row * classes;
        for (int column = threadIdx.x; column < classes; column += blockDim.x) {
            const float p = fast_exp2(LOG2E * (values[column] - log_sum));
            grads[column] = to_bf16((column == target ? p - 1.0f : p) * factor);
        }
    }
}
