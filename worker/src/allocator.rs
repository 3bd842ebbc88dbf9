//! Settings of the C library's allocator for processes that train.

use std::ffi::OsString;

/// An environment variable for the processes that train, and its value. glibc's allocator then keeps
/// freed memory instead of giving it back, asks for large pages, and has one heap, so that what one
/// thread frees another can use. A step takes and frees the same buffers of megabytes again and again;
/// without this an eighth of its time goes to page faults, and heaps hold what nobody uses. And what is
/// copied by megabytes goes past the caches, which takes two thirds of the time: training waits for such a
/// copy when a checkpoint is saved.
///
/// What the user says of glibc goes before what we do.
pub fn allocator() -> (&'static str, OsString) {
    const VARIABLE: &str = "GLIBC_TUNABLES";
    const OURS: &str = "glibc.malloc.trim_threshold=8589934592:glibc.malloc.mmap_threshold=33554432\
        :glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1:glibc.cpu.x86_non_temporal_threshold=4194304";
    (
        VARIABLE,
        std::env::var_os(VARIABLE).unwrap_or_else(|| OURS.into()),
    )
}
