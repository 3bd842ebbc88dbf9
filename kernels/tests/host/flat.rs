//! Operations on flat vectors, most of them bit for bit those of the CPU.

use crate::library::{Host, Output, at, narrow, widen};
use crate::reference::noise;
use polestar_core::digest;
use polestar_core::tree::{BLOCK, TreeSum, tree_sum};
use polestar_core::{Lane, tree::Subtree};
use polestar_kernels::adamw::{self, AdamW};
use polestar_kernels::cuda::abi::{
    AdamwUpdate, BlockSums, CastToBf16, CastToF32, Checksum, ClipFactor, FiniteFlag, FlatAdd,
    FlatMerge, FlatZero, KERNELS, SOURCES, TreeReduce,
};

/// One element, less than a thread's four, no multiple of four, several blocks.
const LENGTHS: [usize; 5] = [1, 3, 1025, BLOCK, 2 * BLOCK + 77];

#[test]
fn every_kernel_that_is_listed_exists() {
    let Some(host) = Host::open() else { return };
    let names: Vec<&str> = SOURCES
        .iter()
        .flat_map(|source| source.kernels)
        .copied()
        .collect();
    assert_eq!(names.len(), KERNELS);
    for source in SOURCES {
        for kernel in source.kernels {
            assert!(
                host.parameters(kernel).is_some(),
                "{kernel} is in the library"
            );
            assert!(
                !source.text.contains("#include"),
                "{} includes nothing",
                source.file
            );
        }
    }
}

#[test]
fn elements_are_zeroed_added_and_cast() {
    let Some(host) = Host::open() else { return };
    for len in LENGTHS {
        // A vector may begin at any element.
        for skip in [0, 1] {
            let (a, b) = (noise(1, len + skip), noise(2, len + skip));
            let elements = len as u64;
            let outputs = [
                Output::f32(len + skip),
                Output::F32(a.clone()),
                Output::bf16(len + skip),
                Output::f32(len + skip),
            ];
            let [zero, sum, half, wide] = host.run(outputs, |[zero, sum, half, wide]| {
                let byte = 4 * skip as u64;
                let zero = FlatZero {
                    vector: zero + byte,
                    elements,
                };
                let add = FlatAdd {
                    sum: sum + byte,
                    other: at(&b) + byte,
                    elements,
                };
                let cast = CastToBf16 {
                    values: at(&a) + byte,
                    out: half + byte / 2,
                    elements,
                };
                let back = CastToF32 {
                    values: half + byte / 2,
                    out: wide + byte,
                    elements,
                };
                vec![zero.launch(), add.launch(), cast.launch(), back.launch()]
            });
            let expected = |f: &dyn Fn(usize) -> f32, first: f32| {
                Output::F32(
                    (0..len + skip)
                        .map(|i| if i < skip { first } else { f(i) })
                        .collect(),
                )
            };
            assert_eq!(zero, expected(&|_| 0.0, f32::NAN));
            assert_eq!(sum, expected(&|i| a[i] + b[i], a[0]));
            assert_eq!(wide, expected(&|i| widen(narrow(a[i])), f32::NAN));
            assert!(
                matches!(half, Output::Bf16(bits) if bits[skip..].iter().zip(&a[skip..]).all(|(b, a)| *b == narrow(*a)))
            );
        }
    }
}

#[test]
fn rounding_is_to_nearest_with_ties_to_even() {
    let Some(host) = Host::open() else { return };
    let bits = [
        0x3f80_8000_u32,
        0x3f81_8000,
        0x3f80_8001,
        0x3f80_7fff,
        0x7f7f_ffff,
        0x7f80_0000,
        0x7fc0_1234,
        0x8000_0001,
    ];
    let values = bits.map(f32::from_bits);
    let [out] = host.run([Output::bf16(values.len())], |[out]| {
        let cast = CastToBf16 {
            values: at(&values),
            out,
            elements: values.len() as u64,
        };
        vec![cast.launch()]
    });
    let expected = [
        0x3f80, 0x3f82, 0x3f81, 0x3f80, 0x7f80, 0x7f80, 0x7fff, 0x8000,
    ];
    assert_eq!(out, Output::Bf16(expected.to_vec()));
}

#[test]
fn partial_sums_merge_by_the_lanes_tree() {
    let Some(host) = Host::open() else { return };
    for count in 1..=8_u32 {
        let partials: Vec<Vec<f32>> = (0..count).map(|k| noise(u64::from(k) + 1, 1027)).collect();
        let mut tree = TreeSum::default();
        for (lane, partial) in (0..count).zip(&partials) {
            tree.push(
                Subtree::leaf(Lane(lane), count),
                partial.clone(),
                |mut left, right| {
                    polestar_core::tree::add_into(&mut left, &right);
                    left
                },
            );
        }
        let expected = tree.into_root().expect("all lanes were pushed");
        let [out] = host.run([Output::f32(1027)], |[out]| {
            let mut addresses = [0; 8];
            for (address, partial) in addresses.iter_mut().zip(&partials) {
                *address = at(partial);
            }
            let merge = FlatMerge {
                out,
                partials: addresses,
                count,
                elements: 1027,
            };
            vec![merge.launch()]
        });
        assert_eq!(out, Output::F32(expected), "{count} partial sums");
    }
}

#[test]
fn the_norm_has_the_bits_of_the_cpu() {
    let Some(host) = Host::open() else { return };
    for len in LENGTHS.into_iter().chain([40 * BLOCK + 5]) {
        let vector = noise(1, len);
        let expected: Vec<f64> = vector
            .chunks(BLOCK)
            .map(|block| {
                let mut partial = [0.0_f64; 8];
                for group in block.chunks(8) {
                    for (p, &x) in partial.iter_mut().zip(group) {
                        *p += f64::from(x) * f64::from(x);
                    }
                }
                tree_sum(&partial)
            })
            .collect();
        let [sums] = host.run([Output::f64(expected.len())], |[sums]| {
            let sums = BlockSums {
                vector: at(&vector),
                sums,
                elements: len as u64,
            };
            vec![sums.launch()]
        });
        assert_eq!(sums, Output::F64(expected), "{len} elements");
    }
    for count in [1, 2, 3, 1000, 1024, 1025, 5000] {
        let values: Vec<f64> = noise(2, count)
            .into_iter()
            .map(|x| f64::from(x).exp())
            .collect();
        let count = count as u64;
        let middle = TreeReduce::sums(count);
        let [_, total, norm, factor, flag] = host.run(
            [
                Output::f64(middle as usize),
                Output::f64(1),
                Output::f64(1),
                Output::f32(1),
                Output::U32(vec![0]),
            ],
            |[sums, total, norm, factor, flag]| {
                let first = TreeReduce {
                    values: at(&values),
                    sums,
                    count,
                };
                let second = TreeReduce {
                    values: sums,
                    sums: total,
                    count: middle,
                };
                let clip = ClipFactor {
                    total,
                    norm,
                    factor,
                    flag,
                    clip: 2.0,
                };
                vec![first.launch(), second.launch(), clip.launch()]
            },
        );
        let expected = tree_sum(&values);
        assert_eq!(total, Output::F64(vec![expected]), "{count} sums");
        let root = expected.sqrt();
        assert_eq!(norm, Output::F64(vec![root]));
        let clipped = if root > 2.0 { (2.0 / root) as f32 } else { 1.0 };
        assert_eq!(factor, Output::F32(vec![clipped]));
        assert_eq!(flag, Output::U32(vec![0]));
    }
    for total in [f64::INFINITY, f64::NAN] {
        let total = [total];
        let outputs = [Output::f64(1), Output::f32(1), Output::U32(vec![0])];
        let [_, _, flag] = host.run(outputs, |[norm, factor, flag]| {
            let clip = ClipFactor {
                total: at(&total),
                norm,
                factor,
                flag,
                clip: 0.0,
            };
            vec![clip.launch()]
        });
        assert_eq!(flag, Output::U32(vec![1]));
    }
}

#[test]
fn adamw_has_the_bits_of_the_cpu() {
    let Some(host) = Host::open() else { return };
    let config = AdamW {
        lr: 1e-2,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
    };
    for len in LENGTHS {
        let (param, m, grad) = (noise(1, len), noise(2, len), noise(3, len));
        let v: Vec<f32> = noise(4, len).iter().map(|x| x * x).collect();
        let factor = [0.37_f32];
        for device_factor in [false, true] {
            let outputs = [
                Output::F32(param.clone()),
                Output::F32(m.clone()),
                Output::F32(v.clone()),
                Output::bf16(len),
            ];
            let [p, first, second, copy] = host.run(outputs, |[param, m, v, copy]| {
                let update = AdamwUpdate {
                    param,
                    m,
                    v,
                    grad: at(&grad),
                    copy,
                    factor: if device_factor { at(&factor) } else { 0 },
                    elements: len as u64,
                    config,
                    number: 3,
                    scale: if device_factor { f32::NAN } else { 0.37 },
                };
                vec![update.launch()]
            });
            let (mut param, mut m, mut v) = (param.clone(), m.clone(), v.clone());
            let parameters = adamw::Parameters {
                param: &mut param,
                m: &mut m,
                v: &mut v,
            };
            adamw::step(&config, 3, 0.37, parameters, &grad);
            assert_eq!(
                copy,
                Output::Bf16(param.iter().map(|&p| narrow(p)).collect())
            );
            assert_eq!(
                [p, first, second],
                [param, m, v].map(Output::F32),
                "{len} elements"
            );
        }
    }
}

#[test]
fn numbers_that_are_none_are_noticed_wherever_they_are() {
    let Some(host) = Host::open() else { return };
    for len in LENGTHS {
        let flag = |vector: &[f32]| {
            let [flag] = host.run([Output::U32(vec![0])], |[flag]| {
                let look = FiniteFlag {
                    vector: at(vector),
                    flag,
                    elements: len as u64,
                };
                vec![look.launch()]
            });
            flag == Output::U32(vec![1])
        };
        let good = vec![f32::MAX; len];
        assert!(!flag(&good));
        for (place, bad) in [
            (0, f32::NAN),
            (len / 2, f32::INFINITY),
            (len - 1, f32::NEG_INFINITY),
        ] {
            let mut vector = good.clone();
            vector[place] = bad;
            assert!(flag(&vector), "{bad} at {place} of {len}");
        }
    }
}

#[test]
fn checksums_are_those_of_the_cpu() {
    let Some(host) = Host::open() else { return };
    for len in LENGTHS {
        let vector = noise(1, len);
        let blocks = BlockSums::blocks(len as u64) as usize;
        let [sums] = host.run([Output::U64(vec![u64::MAX; blocks])], |[sums]| {
            let sum = Checksum {
                vector: at(&vector),
                sums,
                elements: len as u64,
            };
            vec![sum.launch()]
        });
        let Output::U64(sums) = sums else {
            unreachable!("it is u64")
        };
        let sum = sums.into_iter().fold(0, u64::wrapping_add);
        assert_eq!(sum, digest::checksum(&vector), "{len} elements");
    }
}
