// The kernels' operations as plain loops, by the names and arguments of kernels/src/cuda/abi: what a launch is expected to
// come to, written without a look at the kernels. Fast enough for whole trainings; not the product's kernels.
#include "driver.h"
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace {

typedef uint32_t u32;
typedef long long i64;

struct bf16 {
    uint16_t bits;
    operator float() const {
        u32 wide = (u32)bits << 16;
        float value;
        memcpy(&value, &wide, 4);
        return value;
    }
    bf16 &operator=(float value) {
        u32 wide;
        memcpy(&wide, &value, 4);
        if (value == value) wide += 0x7fff + ((wide >> 16) & 1);
        else wide |= 0x400000;
        bits = wide >> 16;
        return *this;
    }
};

unsigned grid_y = 1;  // Of the launch that runs: the number of tiles.

float inverse_rms(const bf16 *x, int width, float eps) {
    float sum = 0;
    for (int i = 0; i < width; i++) sum += x[i] * x[i];
    return 1 / sqrtf(sum / width + eps);
}

void embedding_forward(const u32 *ids, const bf16 *table, bf16 *out, int tokens, int width) {
    for (int t = 0; t < tokens; t++) memcpy(out + (size_t)t * width, table + (size_t)ids[t] * width, 2 * width);
}

void embedding_backward(const u32 *distinct, const u32 *starts, const u32 *order, const bf16 *grad, float *table, int count,
                        int width) {
    for (int d = 0; d < count; d++)
        for (int i = 0; i < width; i++) {
            float sum = 0;
            for (u32 at = starts[d]; at < starts[d + 1]; at++) sum += grad[(size_t)order[at] * width + i];
            table[(size_t)distinct[d] * width + i] += sum;
        }
}

void rms_norm_forward(const bf16 *x, const u32 *picked, const float *weight, bf16 *out, int rows, int width, float eps) {
    for (int r = 0; r < rows; r++) {
        const bf16 *row = x + (size_t)(picked ? picked[r] : r) * width;
        float inverse = inverse_rms(row, width, eps);
        for (int i = 0; i < width; i++) out[(size_t)r * width + i] = row[i] * inverse * weight[i];
    }
}

void rms_norm_backward(const bf16 *x, const u32 *picked, const float *weight, const bf16 *grad, const bf16 *residual,
                       bf16 *x_grad, float *partials, int rows, int width, float eps, int each) {
    for (int first = 0, block = 0; first < rows; first += each, block++) {
        float *partial = partials + (size_t)block * width;
        for (int i = 0; i < width; i++) partial[i] = 0;
        for (int r = first; r < rows && r < first + each; r++) {
            size_t at = (size_t)(picked ? picked[r] : r) * width;
            const bf16 *row = x + at, *g = grad + (size_t)r * width;
            float inverse = inverse_rms(row, width, eps), dot = 0;
            for (int i = 0; i < width; i++) dot += g[i] * weight[i] * row[i];
            dot *= inverse * inverse * inverse / width;
            for (int i = 0; i < width; i++) {
                float value = g[i] * weight[i] * inverse - row[i] * dot;
                partial[i] += g[i] * row[i] * inverse;
                x_grad[at + i] = value + (residual ? (float)residual[at + i] : 0.0f);
            }
        }
    }
}

void rope_table(const u32 *positions, const float *frequencies, float *cosines, float *sines, int tokens, int pairs) {
    for (int t = 0; t < tokens; t++)
        for (int p = 0; p < pairs; p++) {
            double angle = (float)positions[t] * frequencies[p];
            cosines[t * pairs + p] = cos(angle);
            sines[t * pairs + p] = sin(angle);
        }
}

void rope(bf16 *qkv, const float *cosines, const float *sines, int tokens, int kv_heads, int group, int width, int back) {
    int half = width / 2;
    for (int t = 0; t < tokens; t++)
        for (int h = 0; h < kv_heads * (group + 2); h++) {
            if (h % (group + 2) == group + 1) continue;
            bf16 *head = qkv + ((size_t)t * kv_heads * (group + 2) + h) * width;
            for (int p = 0; p < half; p++) {
                float c = cosines[t * half + p], s = sines[t * half + p] * (back ? -1 : 1);
                float a = head[p], b = head[p + half];
                head[p] = a * c - b * s;
                head[p + half] = b * c + a * s;
            }
        }
}

float sigmoid(float x) { return 1 / (1 + expf(-x)); }

void swiglu_forward(const bf16 *gate_up, bf16 *out, int tokens, int width) {
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < width; i++) {
            float gate = gate_up[(size_t)t * 2 * width + i], up = gate_up[(size_t)t * 2 * width + width + i];
            out[(size_t)t * width + i] = gate * sigmoid(gate) * up;
        }
}

void swiglu_backward(const bf16 *gate_up, const bf16 *grad, bf16 *gate_up_grad, bf16 *product, int tokens, int width) {
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < width; i++) {
            size_t g = (size_t)t * 2 * width + i, u = g + width, o = (size_t)t * width + i;
            float gate = gate_up[g], up = gate_up[u], d = grad[o], s = sigmoid(gate);
            gate_up_grad[g] = d * up * s * (1 + gate * (1 - s));
            gate_up_grad[u] = d * gate * s;
            if (product) product[o] = gate * s * up;
        }
}

// One side's tile and what it meets of the other: the only mask within ranges is "not behind".
struct Heads {
    int tokens, kv_heads, group, width;
    size_t at(int token, int kv, int part) const {
        return ((size_t)token * kv_heads * (group + 2) + kv * (group + 2) + part) * width;
    }
};

float dot(const bf16 *a, const bf16 *b, int width) {
    float sum = 0;
    for (int i = 0; i < width; i++) sum += a[i] * b[i];
    return sum;
}

template <class Row>
void each_row(const u32 *tiles, Row row) {
    for (unsigned t = 0; t < grid_y; t++)
        for (u32 i = 0; i < tiles[4 * t + 1]; i++) row((int)(tiles[4 * t] + i), tiles + 4 * t);
}

void attention_forward(const bf16 *qkv, bf16 *out, float *log_sums, const u32 *tiles, const u32 *ranges, int tokens,
                       int kv_heads, int group, int width, float scale) {
    Heads h{tokens, kv_heads, group, width};
    each_row(tiles, [&](int q, const u32 *tile) {
        for (int head = 0; head < kv_heads * group; head++) {
            int kv = head / group;
            const bf16 *query = qkv + h.at(q, kv, head % group);
            std::vector<std::pair<int, float>> scores;
            float most = -INFINITY;
            for (u32 r = tile[2]; r < tile[3]; r++)
                for (int k = ranges[2 * r]; k < (int)ranges[2 * r + 1] && k <= q; k++) {
                    scores.push_back({k, scale * dot(query, qkv + h.at(k, kv, group), width)});
                    most = fmaxf(most, scores.back().second);
                }
            float sum = 0;
            for (auto &score : scores) sum += score.second = expf(score.second - most);
            for (int i = 0; i < width; i++) {
                float value = 0;
                for (auto &score : scores) value += score.second * qkv[h.at(score.first, kv, group + 1) + i];
                out[((size_t)q * kv_heads * group + head) * width + i] = value / sum;
            }
            log_sums[(size_t)head * tokens + q] = most + logf(sum);
        }
    });
}

void attention_delta(const bf16 *out, const bf16 *grad, float *delta, int tokens, int heads, int width) {
    for (int t = 0; t < tokens; t++)
        for (int h = 0; h < heads; h++) {
            size_t at = ((size_t)t * heads + h) * width;
            delta[(size_t)h * tokens + t] = dot(out + at, grad + at, width);
        }
}

void attention_query_gradient(const bf16 *qkv, const bf16 *grad, const float *log_sums, const float *delta, bf16 *qkv_grad,
                              const u32 *tiles, const u32 *ranges, int tokens, int kv_heads, int group, int width,
                              float scale) {
    Heads h{tokens, kv_heads, group, width};
    each_row(tiles, [&](int q, const u32 *tile) {
        for (int head = 0; head < kv_heads * group; head++) {
            int kv = head / group;
            const bf16 *query = qkv + h.at(q, kv, head % group);
            const bf16 *g = grad + ((size_t)q * kv_heads * group + head) * width;
            size_t row = (size_t)head * tokens + q;
            std::vector<float> sum(width);
            for (u32 r = tile[2]; r < tile[3]; r++)
                for (int k = ranges[2 * r]; k < (int)ranges[2 * r + 1] && k <= q; k++) {
                    const bf16 *key = qkv + h.at(k, kv, group);
                    float p = expf(scale * dot(query, key, width) - log_sums[row]);
                    float d = p * (dot(g, qkv + h.at(k, kv, group + 1), width) - delta[row]) * scale;
                    for (int i = 0; i < width; i++) sum[i] += d * key[i];
                }
            for (int i = 0; i < width; i++) qkv_grad[h.at(q, kv, head % group) + i] = sum[i];
        }
    });
}

void attention_key_value_gradient(const bf16 *qkv, const bf16 *grad, const float *log_sums, const float *delta,
                                  bf16 *qkv_grad, const u32 *tiles, const u32 *ranges, int tokens, int kv_heads, int group,
                                  int width, float scale) {
    Heads h{tokens, kv_heads, group, width};
    each_row(tiles, [&](int k, const u32 *tile) {
        for (int kv = 0; kv < kv_heads; kv++) {
            const bf16 *key = qkv + h.at(k, kv, group), *value = qkv + h.at(k, kv, group + 1);
            std::vector<float> key_sum(width), value_sum(width);
            for (int head = kv * group; head < (kv + 1) * group; head++)
                for (u32 r = tile[2]; r < tile[3]; r++)
                    for (int q = ranges[2 * r]; q < (int)ranges[2 * r + 1]; q++) {
                        if (q < k) continue;
                        const bf16 *query = qkv + h.at(q, kv, head % group);
                        const bf16 *g = grad + ((size_t)q * kv_heads * group + head) * width;
                        size_t row = (size_t)head * tokens + q;
                        float p = expf(scale * dot(query, key, width) - log_sums[row]);
                        float d = p * (dot(g, value, width) - delta[row]) * scale;
                        for (int i = 0; i < width; i++) key_sum[i] += d * query[i], value_sum[i] += p * g[i];
                    }
            for (int i = 0; i < width; i++) {
                qkv_grad[h.at(k, kv, group) + i] = key_sum[i];
                qkv_grad[h.at(k, kv, group + 1) + i] = value_sum[i];
            }
        }
    });
}

void reward_forward(const bf16 *x, const u32 *picked, const float *weight, const float *head, float *rewards,
                    float *inverses, int rows, int width, float eps) {
    for (int r = 0; r < rows; r++) {
        const bf16 *row = x + (size_t)picked[r] * width;
        float sum = 0;
        inverses[r] = inverse_rms(row, width, eps);
        for (int i = 0; i < width; i++) sum += row[i] * inverses[r] * weight[i] * head[i];
        rewards[r] = sum;
    }
}

void reward_loss(const float *rewards, float *losses, float *margins, float *grads, u32 *, int triplets, float scale) {
    for (int t = 0; t < triplets; t++) {
        float margin = margins[t] = rewards[2 * t] - rewards[2 * t + 1];
        losses[t] = margin > 0 ? log1pf(expf(-margin)) : log1pf(expf(margin)) - margin;
        if (grads) grads[2 * t] = -scale * sigmoid(-margin), grads[2 * t + 1] = -grads[2 * t];
    }
}

void reward_backward(const bf16 *x, const u32 *picked, const float *weight, const float *head, const float *inverses,
                     const float *grads, bf16 *x_grad, int rows, int width) {
    for (int r = 0; r < rows; r++) {
        size_t at = (size_t)picked[r] * width;
        float sum = 0, inverse = inverses[r];
        for (int i = 0; i < width; i++) sum += weight[i] * head[i] * x[at + i];
        sum *= inverse * inverse * inverse / width;
        for (int i = 0; i < width; i++) x_grad[at + i] = grads[r] * (weight[i] * head[i] * inverse - x[at + i] * sum);
    }
}

void reward_weight_gradient(const bf16 *x, const u32 *picked, const float *weight, const float *head, const float *inverses,
                            const float *grads, float *weight_grad, float *head_grad, int rows, int width) {
    for (int i = 0; i < width; i++) {
        float sum = 0;
        for (int r = 0; r < rows; r++) sum += grads[r] * inverses[r] * x[(size_t)picked[r] * width + i];
        weight_grad[i] += sum * head[i];
        head_grad[i] += sum * weight[i];
    }
}

void cross_entropy(const float *logits, const u32 *targets, const float *weights, float *losses, bf16 *grads, u32 *, int rows,
                   int classes, float scale) {
    for (int r = 0; r < rows; r++) {
        const float *row = logits + (size_t)r * classes;
        float most = -INFINITY, sum = 0;
        for (int c = 0; c < classes; c++) most = fmaxf(most, row[c]);
        for (int c = 0; c < classes; c++) sum += expf(row[c] - most);
        losses[r] = most + logf(sum) - row[targets[r]];
        float factor = scale * (weights ? weights[r] : 1);
        for (int c = 0; grads && c < classes; c++)
            grads[(size_t)r * classes + c] = factor * (expf(row[c] - most) / sum - (c == (int)targets[r]));
    }
}

void flat_add(float *sum, const float *other, i64 elements) {
    for (i64 i = 0; i < elements; i++) sum[i] += other[i];
}

void flat_merge(float *out, const float *p0, const float *p1, const float *p2, const float *p3, const float *p4,
                const float *p5, const float *p6, const float *p7, int count, i64 elements) {
    const float *p[8] = {p0, p1, p2, p3, p4, p5, p6, p7};
    for (i64 i = 0; i < elements; i++) {
        float x[8] = {0};
        for (int k = 0; k < count; k++) x[k] = p[k][i];
        for (int left = count; left > 1; left = (left + 1) / 2)
            for (int k = 0; k < left; k += 2) x[k / 2] = k + 1 < left ? x[k] + x[k + 1] : x[k];
        out[i] = x[0];
    }
}

void sum_partials(const float *partials, float *gradient, int count, int width) {
    for (int i = 0; i < width; i++) {
        float sum = 0;
        for (int r = 0; r < count; r++) sum += partials[(size_t)r * width + i];
        gradient[i] += sum;
    }
}

void block_sums(const float *vector, double *sums, i64 elements) {
    for (i64 from = 0, block = 0; from < elements; from += 4096, block++) {
        double part[8] = {0};
        for (i64 i = from; i < elements && i < from + 4096; i++) part[(i - from) % 8] += (double)vector[i] * vector[i];
        sums[block] = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
    }
}

void adamw(float *param, float *m, float *v, const float *grad, bf16 *copy, const float *factor, i64 elements, float keep,
           float beta1, float beta2, float eps, float scale, float rate, float root_correction) {
    for (i64 i = 0; i < elements; i++) {
        float g = grad[i] * (factor ? *factor : scale);
        m[i] = beta1 * m[i] + (1 - beta1) * g;
        v[i] = beta2 * v[i] + (1 - beta2) * (g * g);
        param[i] = keep * param[i] - rate * (m[i] / (sqrtf(v[i]) * root_correction + eps));
        if (copy) copy[i] = param[i];
    }
}

void cast_to_bf16(const float *values, bf16 *out, i64 elements) {
    for (i64 i = 0; i < elements; i++) out[i] = values[i];
}

struct Entry {
    int parameters;
    std::function<void(void *const *)> run;
};

template <class... A, size_t... I>
void call(void (*kernel)(A...), void *const *p, std::index_sequence<I...>) {
    kernel(*(std::remove_reference_t<A> *)p[I]...);
}

template <class... A>
Entry entry(void (*kernel)(A...)) {
    return {sizeof...(A), [kernel](void *const *p) { call(kernel, p, std::index_sequence_for<A...>{}); }};
}

std::map<std::string, Entry> &entries() {
    static std::map<std::string, Entry> *entries = [] {
        auto *e = new std::map<std::string, Entry>;
#define OPERATION(name) (*e)[#name] = entry(name)
        OPERATION(embedding_forward), OPERATION(embedding_backward), OPERATION(rms_norm_forward);
        OPERATION(rms_norm_backward), OPERATION(rope_table), OPERATION(rope), OPERATION(swiglu_forward);
        OPERATION(swiglu_backward), OPERATION(attention_delta), OPERATION(reward_forward), OPERATION(reward_loss);
        OPERATION(reward_backward), OPERATION(reward_weight_gradient), OPERATION(cross_entropy), OPERATION(flat_add);
        OPERATION(flat_merge), OPERATION(sum_partials), OPERATION(block_sums), OPERATION(adamw), OPERATION(cast_to_bf16);
        for (const char *width : {"16", "32", "64", "128"}) {
            (*e)[std::string("attention_forward_") + width] = entry(attention_forward);
            (*e)[std::string("attention_query_gradient_") + width] = entry(attention_query_gradient);
            (*e)[std::string("attention_key_value_gradient_") + width] = entry(attention_key_value_gradient);
        }
        return e;
    }();
    return *entries;
}

}  // namespace

// The interface of kernels/cuda/host/kernels.cpp.
extern "C" {

// Parameters of a kernel. One that the engine never launches has none here.
int polestar_host_parameters(const char *name) {
    auto found = entries().find(name);
    return found == entries().end() ? 0 : found->second.parameters;
}

int polestar_host_launch(const char *name, const unsigned *blocks, unsigned, unsigned, void *const *parameters) {
    auto found = entries().find(name);
    if (found == entries().end()) return 1;
    grid_y = blocks[1];
    found->second.run(parameters);
    return 0;
}

const char *polestar_host_error() { return "a kernel was launched that is not written as a plain loop"; }

}  // extern "C"
