// Fibers: a stack each, and a switch between two of them.

#pragma once

#include <cstddef>
#include <cstdint>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define SIMT_ASAN 1
#endif

#if defined(__x86_64__)

// Callee-saved registers go to the old stack and come from the new one.
extern "C" void simt_switch(void** save, void* to) __attribute__((visibility("hidden")));
__asm__(
    ".text\n"
    ".p2align 4\n"
    ".globl simt_switch\n"
    ".hidden simt_switch\n"
    ".type simt_switch,@function\n"
    "simt_switch:\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    "    ret\n"
    ".size simt_switch,.-simt_switch\n"
);

#else
#include <ucontext.h>
#endif

namespace simt {

class Fiber {
public:
    static const size_t STACK = 256 << 10;

    Fiber() = default;
    Fiber(const Fiber&) = delete;
    ~Fiber() {
        if (stack) {
            munmap(stack, STACK);
        }
    }

    // Makes `entry` what runs at the next switch to this fiber. It never returns.
    void prepare(void (*entry)()) {
        if (!stack) {
            void* memory = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            stack = memory == MAP_FAILED ? nullptr : static_cast<char*>(memory);
            if (!stack) {
                __builtin_trap();
            }
        }
#if SIMT_ASAN
        // What a launch that ended early left there.
        __asan_unpoison_memory_region(stack, STACK);
#endif
#if defined(__x86_64__)
        auto* top = reinterpret_cast<void**>(stack + STACK);
        *--top = nullptr;
        // At a function's first instruction the stack is 8 bytes off a multiple of 16.
        *--top = reinterpret_cast<void*>(entry);
        for (int i = 0; i < 6; ++i) {
            *--top = nullptr;
        }
        pointer = top;
#else
        getcontext(&context);
        context.uc_stack.ss_sp = stack;
        context.uc_stack.ss_size = STACK;
        context.uc_link = nullptr;
        makecontext(&context, entry, 0);
#endif
    }

    // Leaves `from` and goes on with `to`; returns when something switches back.
    static void change(Fiber& from, Fiber& to) {
#if SIMT_ASAN
        void* fake;
        __sanitizer_start_switch_fiber(&fake, to.stack ? to.stack : to.bottom, to.stack ? STACK : to.size);
#endif
#if defined(__x86_64__)
        simt_switch(&from.pointer, to.pointer);
#else
        swapcontext(&from.context, &to.context);
#endif
#if SIMT_ASAN
        __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
    }

    // To be called first in `entry`, with the fiber that a host thread runs on when no other does.
    static void entered(Fiber& host) {
#if SIMT_ASAN
        const void* bottom;
        size_t size;
        __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
        if (!host.bottom) {
            host.bottom = bottom;
            host.size = size;
        }
#else
        (void)host;
#endif
    }

private:
    char* stack = nullptr;
#if SIMT_ASAN
    const void* bottom = nullptr;
    size_t size = 0;
#endif
#if defined(__x86_64__)
    void* pointer = nullptr;
#else
    ucontext_t context;
#endif
};

}  // namespace simt
