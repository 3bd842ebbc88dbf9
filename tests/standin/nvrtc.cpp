// A stand-in for libnvrtc.so: see README.md. It compiles nothing.
#include "driver.h"
#include <cstdint>
#include <string>

namespace {
struct Program {
    std::string source, cubin;
};
}  // namespace

extern "C" {

int nvrtcVersion(int *major, int *minor) { return *major = 13, *minor = 0, 0; }
const char *nvrtcGetErrorString(int) { return "an error of the stand-in"; }

int nvrtcCreateProgram(void **program, const char *source, const char *, int, const char *const *, const char *const *) {
    return *program = new Program{source, ""}, 0;
}

int nvrtcCompileProgram(void *program, int options, const char *const *option) {
    Program *p = (Program *)program;
    uint64_t hash = 1469598103934665603ull;
    for (unsigned char c : p->source) hash = (hash ^ c) * 1099511628211ull;
    bool architecture = false;
    for (int i = 0; i < options; i++) architecture |= !std::string(option[i]).rfind("--gpu-architecture=", 0);
    if (!architecture) return 5;
    STANDIN_LOG("a source of %zu bytes is marked as compiled", p->source.size());
    p->cubin = "polestar stand-in " + std::to_string(hash);
    return 0;
}

int nvrtcGetCUBINSize(void *program, size_t *bytes) { return *bytes = ((Program *)program)->cubin.size() + 1, 0; }

int nvrtcGetCUBIN(void *program, char *cubin) {
    Program *p = (Program *)program;
    p->cubin.copy(cubin, p->cubin.size());
    cubin[p->cubin.size()] = 0;
    return 0;
}

int nvrtcGetProgramLogSize(void *, size_t *bytes) { return *bytes = 1, 0; }
int nvrtcGetProgramLog(void *, char *log) { return *log = 0, 0; }

int nvrtcDestroyProgram(void **program) {
    delete (Program *)*program;
    return *program = nullptr, 0;
}

}  // extern "C"
