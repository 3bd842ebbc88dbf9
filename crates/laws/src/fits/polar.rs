//! Learning rate and batch size by the laws of the POLAR paper (appendix D).
//!
//! The paper says that parameters and tokens are counted in millions. Its own numbers come out only
//! with parameters in millions and tokens in billions, so that is how they are counted here; the batch
//! law then gives 1.04 times what the paper says it trained with (a factor of 0.96 that it doesn't
//! explain).

/// Learning rate for a model of `parameters` that was pre-trained as a language model on
/// `pretrain_tokens` and now learns from `tokens`.
pub fn learning_rate(parameters: f64, pretrain_tokens: f64, tokens: f64) -> f64 {
    0.000_230_6
        * (parameters / 1e6).powf(0.011_25)
        * (pretrain_tokens / 1e9).powf(-0.665_87)
        * (tokens / 1e9).powf(0.339_16)
}

/// Batch size, in triplets.
pub fn batch(parameters: f64, tokens: f64) -> f64 {
    31.9032 * (parameters / 1e6).powf(0.069_44) * (tokens / 1e9).powf(0.529_97)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_models_come_out() {
        for (n, pretrain, tokens, published_lr, published_batch) in [
            (1.8e9, 2.5e12, 0.94e12, 1.4e-5, 1940.0),
            (7e9, 4e12, 3.6e12, 1.67e-5, 4343.0),
        ] {
            let lr = learning_rate(n, pretrain, tokens);
            assert!((lr / published_lr - 1.0).abs() < 0.025, "{lr}");
            let ratio = published_batch / batch(n, tokens);
            assert!((ratio - 0.96).abs() < 0.001, "{ratio}");
        }
    }
}
