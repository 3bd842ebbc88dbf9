//! Loops compiled for several instruction sets and chosen at run time, and the arithmetic they share.

/// How a product and a sum are rounded: it decides the bits of a result, so loops name it.
pub(crate) trait Arithmetic {
    /// `a * b + c`.
    fn mul_add(a: f32, b: f32, c: f32) -> f32;
}

/// One rounding, in one instruction.
pub(crate) struct Fused;

impl Arithmetic for Fused {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

/// Two roundings, for machines without that instruction.
#[cfg(not(target_arch = "aarch64"))]
pub(crate) struct Separate;

#[cfg(not(target_arch = "aarch64"))]
impl Arithmetic for Separate {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
}

/// Defines functions over slices, generic over [`Arithmetic`] `A`, that run the widest version this machine executes.
///
/// A body sees plain loops; the compiler vectorizes them for each instruction set.
macro_rules! vectorized {
    ($(
        $(#[$meta:meta])*
        fn $name:ident<$a:ident>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block
    )*) => {$(
        $(#[$meta])*
        pub(crate) fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn generic<$a: $crate::cpu::simd::Arithmetic>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    generic::<$crate::cpu::simd::Fused>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    generic::<$crate::cpu::simd::Fused>($($arg),*)
                }
                match $crate::cpu::simd::level() {
                    // SAFETY: `level` has seen that this machine executes these instructions.
                    $crate::cpu::simd::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::cpu::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::cpu::simd::Level::Baseline => {}
                }
            }
            #[cfg(target_arch = "aarch64")]
            return generic::<$crate::cpu::simd::Fused>($($arg),*);
            #[cfg(not(target_arch = "aarch64"))]
            generic::<$crate::cpu::simd::Separate>($($arg),*)
        }
    )*};
}
pub(crate) use vectorized;

/// Instruction sets with their own versions.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) enum Level {
    Avx512,
    Avx2,
    Baseline,
}

/// The widest instruction set of this machine.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn level() -> Level {
    let fma = is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match fma {
        true if avx512 => Level::Avx512,
        true if is_x86_feature_detected!("avx2") => Level::Avx2,
        _ => Level::Baseline,
    }
}

/// Partial results of a reduction: enough for two registers of the widest kind, and the same on every machine.
const LANES: usize = 16;

/// Sum of `f(element)` in a fixed order: 16 running sums, added up pairwise.
#[inline(always)]
pub(crate) fn sum_of<const N: usize>(inputs: [&[f32]; N], f: impl Fn(f32, [f32; N]) -> f32) -> f32 {
    let len = inputs[0].len();
    let inputs = inputs.map(|input| &input[..len]);
    let mut sums = [0.0f32; LANES];
    let whole = len / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        let chunks: [&[f32]; N] = inputs.map(|input| &input[start..start + LANES]);
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum = f(*sum, chunks.map(|chunk| chunk[lane]));
        }
    }
    for at in whole..len {
        let sum = &mut sums[at - whole];
        *sum = f(*sum, inputs.map(|input| input[at]));
    }
    fold(sums, |a, b| a + b)
}

/// Largest element; minus infinity for none. A NaN may be passed over: the sums that follow carry it on.
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, value);
    }
    fold(lanes, larger)
}

#[inline(always)]
fn fold(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = f(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// e^x with a relative error below 3e-7; 0 below -87.3, infinity above 88.3.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2; e^r is a polynomial, and n is added to its exponent.
#[inline(always)]
pub(crate) fn exp<A: Arithmetic>(x: f32) -> f32 {
    const LOWEST: f32 = -87.3;
    const HIGHEST: f32 = 88.3;
    /// 1.5 * 2^23: adding it rounds to the nearest integer, and leaves that integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts, the first exact in few bits.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;

    // Comparisons rather than min and max, which would swallow a NaN.
    let clamped = if x < LOWEST { LOWEST } else { x };
    let clamped = if clamped > HIGHEST { HIGHEST } else { clamped };
    let shifted = A::mul_add(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = A::mul_add(n, -LN_2_HIGH, clamped);
    let r = A::mul_add(n, -LN_2_LOW, r);
    let p = A::mul_add(r, 1.0 / 720.0, 1.0 / 120.0);
    let p = A::mul_add(p, r, 1.0 / 24.0);
    let p = A::mul_add(p, r, 1.0 / 6.0);
    let p = A::mul_add(p, r, 0.5);
    let p = A::mul_add(p, r, 1.0);
    let p = A::mul_add(p, r, 1.0);
    let y = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
    let y = if x < LOWEST { 0.0 } else { y };
    if x > HIGHEST { f32::INFINITY } else { y }
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(crate) fn sigmoid<A: Arithmetic>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<A>(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_over_its_whole_range() {
        fn check<A: Arithmetic>() {
            for step in 0..1_750_000 {
                let x = -87.2 + step as f32 * 1e-4;
                let (y, exact) = (f64::from(exp::<A>(x)), f64::from(x).exp());
                assert!(
                    (y / exact - 1.0).abs() < 3e-7,
                    "exp({x}) gave {y}, not {exact}"
                );
            }
            assert_eq!(exp::<A>(f32::NEG_INFINITY), 0.0);
            assert_eq!(exp::<A>(0.0), 1.0);
            assert_eq!(exp::<A>(100.0), f32::INFINITY);
            assert!(exp::<A>(f32::NAN).is_nan());
        }
        check::<Fused>();
        #[cfg(not(target_arch = "aarch64"))]
        check::<Separate>();
    }

    #[test]
    fn reductions_take_every_element_once() {
        for len in [0, 1, 15, 16, 17, 100] {
            let values: Vec<f32> = (1..=len).map(|i| i as f32).collect();
            let sum = sum_of([&values, &values], |sum, [a, b]| sum + a * b);
            let exact: f32 = values.iter().map(|v| v * v).sum();
            assert_eq!(sum, exact);
            assert_eq!(
                max(&values),
                values.last().copied().unwrap_or(f32::NEG_INFINITY)
            );
        }
    }
}
