//! Places in a distributed trace, made of what everybody knows: whoever leads a run finds the same trace for a trial.

use std::fmt;

/// A span of a trace. Displayed, it is a W3C `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace: [u8; 16],
    span: [u8; 8],
}

impl TraceContext {
    /// The span of these names in the trace of those.
    pub fn of(trace: &[&str], span: &[&str]) -> TraceContext {
        TraceContext {
            trace: first_bytes("polestar trace", trace),
            span: first_bytes("polestar span", span),
        }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        // Sampled.
        f.write_str("-01")
    }
}

/// The first bytes of a hash over names, each with its length.
fn first_bytes<const N: usize>(context: &str, names: &[&str]) -> [u8; N] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for name in names {
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
    }
    let mut bytes = [0; N];
    hasher.finalize_xof().fill(&mut bytes);
    // All zeros would be no span.
    bytes[N - 1] |= 1;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_trial_has_one_trace_and_each_span_a_name_of_its_own() {
        let of = |trial, span| TraceContext::of(&["s3://b/run", trial], &[span]).to_string();
        let (a, b) = (of("t", "e1g1"), of("t", "e1g2"));
        assert_eq!(a, of("t", "e1g1"));
        assert_eq!(a.len(), 55, "{a}");
        assert!(a.starts_with("00-") && a.ends_with("-01"), "{a}");
        assert_eq!(a[..36], b[..36]);
        assert_ne!(a[36..], b[36..]);
        assert_ne!(a[..36], of("u", "e1g1")[..36]);
    }
}
