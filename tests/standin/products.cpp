// A stand-in for libcublasLt.so: see README.md. Plain products in a fixed order, and a strict reader of descriptions.
#include "driver.h"
#include <cstdint>
#include <cstring>
#include <vector>

enum { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum { R_32F = 0, R_16BF = 14, COMPUTE_32F = 68 };

namespace {

struct Layout {
    int type;
    uint64_t rows, columns;
    int64_t leading;
};

struct Description {
    int compute, scale;
    int transposed[2] = {0, 0};
};

struct Preference {
    uint64_t workspace = 0;
    uint32_t reduction = 7, alignment[4] = {0, 0, 0, 0};
};

const size_t USED = 4096;  // Bytes of workspace that every product scribbles on.

float wide(const void *values, int type, size_t at) {
    if (type == R_32F) return ((const float *)values)[at];
    uint32_t bits = (uint32_t)((const uint16_t *)values)[at] << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

void store(void *values, int type, size_t at, float value) {
    if (type == R_32F) {
        ((float *)values)[at] = value;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (value == value) bits += 0x7fff + ((bits >> 16) & 1);  // To nearest, ties to even.
    else bits |= 0x400000;
    ((uint16_t *)values)[at] = bits >> 16;
}

bool refuse(const char *what) {
    STANDIN_LOG("cuBLASLt: %s", what);
    return false;
}

// Whether layouts say the same product; its sizes.
bool fits(const Description *d, const Layout *a, const Layout *b, const Layout *c, const Layout *r, uint64_t sizes[3]) {
    if (d->compute != COMPUTE_32F || d->scale != R_32F) return refuse("sums that are not f32");
    for (const Layout *x : {a, b, c, r}) {
        if (x->leading < (int64_t)x->rows) return refuse("a leading dimension below the rows");
        int bytes = x->type == R_32F ? 4 : 2;
        if (x->leading * bytes % 16) return refuse("columns that don't begin on 16 bytes");
    }
    if (a->type != R_16BF || b->type != R_16BF) return refuse("operands that are not bf16");
    if (c->type != r->type || c->rows != r->rows || c->columns != r->columns) return refuse("C that is not like D");
    uint64_t m = d->transposed[0] ? a->columns : a->rows, k = d->transposed[0] ? a->rows : a->columns;
    uint64_t n = d->transposed[1] ? b->rows : b->columns, inner = d->transposed[1] ? b->columns : b->rows;
    if (k != inner || r->rows != m || r->columns != n) return refuse("sizes that don't fit together");
    sizes[0] = m, sizes[1] = n, sizes[2] = k;
    return true;
}

}  // namespace

extern "C" {

int cublasLtCreate(void **handle) {
    STANDIN_LOG("products are computed by plain loops on the CPU");
    return *handle = new int(0), SUCCESS;
}
int cublasLtDestroy(void *handle) { return delete (int *)handle, SUCCESS; }
size_t cublasLtGetVersion() { return 0; }

int cublasLtMatrixLayoutCreate(void **layout, int type, uint64_t rows, uint64_t columns, int64_t leading) {
    return *layout = new Layout{type, rows, columns, leading}, SUCCESS;
}
int cublasLtMatrixLayoutDestroy(void *layout) { return delete (Layout *)layout, SUCCESS; }

int cublasLtMatmulDescCreate(void **description, int compute, int scale) {
    return *description = new Description{compute, scale}, SUCCESS;
}
int cublasLtMatmulDescDestroy(void *description) { return delete (Description *)description, SUCCESS; }
int cublasLtMatmulDescSetAttribute(void *description, int attribute, const void *value, size_t bytes) {
    if (bytes != 4 || (attribute != 3 && attribute != 4)) return INVALID_VALUE;
    memcpy(&((Description *)description)->transposed[attribute - 3], value, 4);
    return SUCCESS;
}

int cublasLtMatmulPreferenceCreate(void **preference) { return *preference = new Preference, SUCCESS; }
int cublasLtMatmulPreferenceDestroy(void *preference) { return delete (Preference *)preference, SUCCESS; }
int cublasLtMatmulPreferenceSetAttribute(void *preference, int attribute, const void *value, size_t bytes) {
    Preference *p = (Preference *)preference;
    if (attribute == 1 && bytes == 8) memcpy(&p->workspace, value, 8);
    else if (attribute == 3 && bytes == 4) memcpy(&p->reduction, value, 4);
    else if (attribute >= 5 && attribute <= 8 && bytes == 4) memcpy(&p->alignment[attribute - 5], value, 4);
    else return INVALID_VALUE;
    return SUCCESS;
}

struct Algorithm {
    uint64_t data[8];
};
struct Heuristic {
    Algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

int cublasLtMatmulAlgoGetHeuristic(void *, void *description, void *a, void *b, void *c, void *d, void *preference,
                                   int asked, Heuristic *found, int *count) {
    uint64_t sizes[3];
    Preference *p = (Preference *)preference;
    *count = 0;
    if (!fits((Description *)description, (Layout *)a, (Layout *)b, (Layout *)c, (Layout *)d, sizes)) return NOT_SUPPORTED;
    if (asked != 1 || p->reduction != 0 || p->workspace < USED) {
        refuse("a preference that lets sums be split");
        return NOT_SUPPORTED;
    }
    for (uint32_t alignment : p->alignment)
        if (alignment != 16) return refuse("an alignment that nobody stated"), NOT_SUPPORTED;
    memset(found, 0, sizeof *found);
    found->algorithm.data[0] = 0x5354414e44494eull;
    memcpy(&found->algorithm.data[1], sizes, sizeof sizes);
    found->workspace = USED;
    *count = 1;
    return SUCCESS;
}

int cublasLtMatmulAlgoConfigGetAttribute(const Algorithm *algorithm, int attribute, void *value, size_t bytes,
                                         size_t *written) {
    if (bytes < 4) return INVALID_VALUE;
    uint32_t answer = attribute == 1 ? (uint32_t)(algorithm->data[1] % 7) : 0;
    memcpy(value, &answer, 4);
    *written = 4;
    return SUCCESS;
}

int cublasLtMatmul(void *, void *description, const float *alpha, const void *a, void *al, const void *b, void *bl,
                   const float *beta, const void *c, void *cl, void *d, void *dl, const Algorithm *algorithm,
                   void *workspace, size_t bytes, void *stream) {
    Description *described = (Description *)description;
    Layout first = *(Layout *)al, second = *(Layout *)bl, added = *(Layout *)cl, result = *(Layout *)dl;
    uint64_t sizes[3];
    if (!fits(described, &first, &second, &added, &result, sizes)) return INVALID_VALUE;
    if (memcmp(&algorithm->data[1], sizes, sizeof sizes)) return refuse("an algorithm of another shape"), INVALID_VALUE;
    auto extent = [](const Layout &x) { return (size_t)x.leading * x.columns * (x.type == R_32F ? 4 : 2); };
    for (auto [address, size] : {std::pair<const void *, size_t>{a, extent(first)}, {b, extent(second)}, {c, extent(added)},
                                 {d, extent(result)}, {workspace, bytes}}) {
        if ((uintptr_t)address % 16) return refuse("an address that isn't aligned"), INVALID_VALUE;
        if (!polestar_standin_is_device(address, size)) return refuse("memory that is not the device's"), INVALID_VALUE;
    }
    if (bytes < USED) return refuse("a workspace that is too small"), INVALID_VALUE;
    bool ta = described->transposed[0], tb = described->transposed[1];
    float scale = *alpha, keep = *beta;
    auto work = new std::function<void()>([=] {
        memset(workspace, 0x5a, USED);
        uint64_t m = sizes[0], n = sizes[1], k = sizes[2];
        std::vector<float> left(m * k), right(n * k);
        for (uint64_t i = 0; i < m; i++)
            for (uint64_t l = 0; l < k; l++)
                left[i * k + l] = wide(a, first.type, ta ? i * first.leading + l : l * first.leading + i);
        for (uint64_t j = 0; j < n; j++)
            for (uint64_t l = 0; l < k; l++)
                right[j * k + l] = wide(b, second.type, tb ? l * second.leading + j : j * second.leading + l);
        for (uint64_t j = 0; j < n; j++)
            for (uint64_t i = 0; i < m; i++) {
                float part[8] = {0};
                const float *x = &left[i * k], *y = &right[j * k];
                for (uint64_t l = 0; l < k; l++) part[l % 8] += x[l] * y[l];
                float sum = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
                float more = keep == 0 ? 0 : keep * wide(c, added.type, j * added.leading + i);
                store(d, result.type, j * result.leading + i, scale * sum + more);
            }
    });
    polestar_standin_enqueue(stream, work);
    return SUCCESS;
}

}  // extern "C"
