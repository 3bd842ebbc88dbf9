//! The kernels' sources, as NVRTC is given them.

/// A source file of kernels.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Its name, for messages.
    pub file: &'static str,
    /// All of it, what it shares with others in front: nothing is included.
    pub text: &'static str,
    /// The kernels in it.
    pub kernels: &'static [&'static str],
}

macro_rules! source {
    ($file:literal, [$($kernel:literal),+ $(,)?], $($shared:literal),+) => {
        Source {
            file: $file,
            text: concat!(
                $("#line 1 \"", $shared, "\"\n", include_str!(concat!("../../../cuda/", $shared)),)+
                "#line 1 \"", $file, "\"\n", include_str!(concat!("../../../cuda/", $file)),
            ),
            kernels: &[$($kernel),+],
        }
    };
}

/// What NVRTC is told, beside the architecture: sums and products are fused where the source says so and nowhere else.
pub const NVRTC_OPTIONS: [&str; 3] = ["--std=c++17", "--fmad=false", "--ftz=false"];

/// Every source.
pub const SOURCES: &[Source] = &[
    source!(
        "rows.cu",
        [
            "embedding_forward",
            "embedding_backward",
            "rms_norm_forward",
            "rms_norm_backward",
            "rope_table",
            "rope",
            "swiglu_forward",
            "swiglu_backward",
            "scatter_rows",
        ],
        "device.cuh"
    ),
    source!(
        "heads.cu",
        [
            "reward_forward",
            "reward_loss",
            "reward_backward",
            "reward_weight_gradient",
            "cross_entropy",
        ],
        "device.cuh"
    ),
    source!(
        "flat.cu",
        [
            "flat_zero",
            "flat_add",
            "flat_merge",
            "sum_partials",
            "block_sums",
            "tree_reduce",
            "clip_factor",
            "adamw",
            "finite_flag",
            "checksum",
            "cast_to_bf16",
            "cast_to_f32",
        ],
        "device.cuh"
    ),
    source!(
        "attention_forward.cu",
        [
            "attention_forward_16",
            "attention_forward_32",
            "attention_forward_64",
            "attention_forward_128",
        ],
        "device.cuh",
        "mma.cuh",
        "attention.cuh"
    ),
    source!(
        "attention_backward.cu",
        [
            "attention_delta",
            "attention_query_gradient_16",
            "attention_query_gradient_32",
            "attention_query_gradient_64",
            "attention_query_gradient_128",
            "attention_key_value_gradient_16",
            "attention_key_value_gradient_32",
            "attention_key_value_gradient_64",
            "attention_key_value_gradient_128",
        ],
        "device.cuh",
        "mma.cuh",
        "attention.cuh"
    ),
];

/// How many kernels there are.
pub const KERNELS: usize = {
    let mut count = 0;
    let mut at = 0;
    while at < SOURCES.len() {
        count += SOURCES[at].kernels.len();
        at += 1;
    }
    count
};
