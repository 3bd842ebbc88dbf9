//! The canonical norm: squares summed over fixed blocks of each segment, blocks merged by a binary
//! tree in canonical order.

use polestar_core::tree::BLOCK;
use polestar_core::tree::tree_sum;
use rayon::prelude::*;

/// Sum of squares of each [`BLOCK`] of a segment, or of a shard of one: shards begin on block edges,
/// so that a block's sum is the same whoever computes it, on however many threads.
pub fn block_sums(segment: &[f32]) -> Vec<f64> {
    segment.par_chunks(BLOCK).map(block_sum).collect()
}

/// Sum of squares of one block, in order of its elements within eight interleaved partial sums.
fn block_sum(block: &[f32]) -> f64 {
    let mut partial = [0.0_f64; 8];
    for group in block.chunks(8) {
        for (p, &x) in partial.iter_mut().zip(group) {
            *p += f64::from(x) * f64::from(x);
        }
    }
    tree_sum(&partial)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norm_is_right_and_doesnt_depend_on_threads() {
        let v: Vec<f32> = (0..3 * BLOCK + 5)
            .map(|i| ((i * 37) % 101) as f32 * 0.01)
            .collect();
        let plain: f64 = v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let one = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| tree_sum(&block_sums(&v)).sqrt())
        };
        assert!((one(1) - plain).abs() < 1e-9 * plain);
        assert_eq!(one(1).to_bits(), one(3).to_bits());
    }
}
