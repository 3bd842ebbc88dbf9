//! Every CUDA kernel is compiled by NVRTC for every architecture that we name, and none keeps a register in memory.
//!
//! NVRTC needs no card and no driver. `POLESTAR_NVRTC` names the folder that has it (`scripts/setup-nvrtc` makes one out of PyPI's
//! wheel). With `POLESTAR_WRITE` set, the table in `docs/gpu.md` is written instead of compared.

mod compile;

use compile::{Compiled, Nvrtc};
use polestar_kernels::cuda::abi::SOURCES;
use std::{collections::BTreeMap, fmt::Write, path::Path};

/// The A100, and with it everything newer; the H100 with what is its own; the B200 likewise.
const ARCHITECTURES: [&str; 3] = ["sm_80", "sm_90a", "sm_100a"];

#[test]
fn every_kernel_compiles_without_a_spill() {
    let Some(folder) = std::env::var_os("POLESTAR_NVRTC") else {
        println!(
            "skipped: POLESTAR_NVRTC names no folder with NVRTC (scripts/setup-nvrtc makes one)"
        );
        return;
    };
    let nvrtc = Nvrtc::load(Path::new(&folder));
    // One thread an architecture: most of the time is the assembler's.
    let compiled: Vec<BTreeMap<String, Compiled>> = std::thread::scope(|scope| {
        let of_each = ARCHITECTURES.map(|architecture| {
            let nvrtc = &nvrtc;
            scope.spawn(move || {
                let sources = SOURCES
                    .iter()
                    .map(|source| nvrtc.compile(source, architecture));
                sources.flatten().collect()
            })
        });
        of_each
            .map(|thread| thread.join().expect("sources compile"))
            .into()
    });
    let mut spills = Vec::new();
    for (architecture, kernels) in ARCHITECTURES.iter().zip(&compiled) {
        for source in SOURCES {
            for kernel in source.kernels {
                let compiled = kernels.get(*kernel);
                let compiled = compiled.unwrap_or_else(|| {
                    panic!("{kernel} is not in {} for {architecture}", source.file)
                });
                if compiled.spilled > 0 {
                    spills.push(format!(
                        "{kernel} for {architecture}: {} bytes",
                        compiled.spilled
                    ));
                }
            }
        }
    }
    let table = table(&nvrtc, &compiled);
    println!("{table}");
    assert!(
        spills.is_empty(),
        "registers are kept in memory:\n{}",
        spills.join("\n")
    );
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/gpu.md");
    let text = std::fs::read_to_string(&page).expect("docs/gpu.md is there");
    let now = put_into(&text, &table);
    if std::env::var_os("POLESTAR_WRITE").is_some() {
        std::fs::write(&page, now).expect("docs/gpu.md can be written");
    } else {
        assert!(
            text == now,
            "docs/gpu.md has another table; run this test with POLESTAR_WRITE=1 set"
        );
    }
}

/// Registers and fixed shared memory of every kernel.
fn table(nvrtc: &Nvrtc, compiled: &[BTreeMap<String, Compiled>]) -> String {
    let mut text = format!(
        "Registers of a thread, by {}; no kernel spills.\n\n",
        nvrtc.version()
    );
    let cells = |first: &str, rest: &[String]| format!("| {first} | {} |\n", rest.join(" | "));
    text += &cells("kernel", &ARCHITECTURES.map(str::to_owned));
    text += &cells("---", &ARCHITECTURES.map(|_| "--:".to_owned()));
    for source in SOURCES {
        for kernel in source.kernels {
            let of_each = compiled.iter().map(|kernels| {
                let Compiled {
                    registers, shared, ..
                } = kernels[*kernel];
                match shared {
                    0 => format!("{registers}"),
                    _ => format!("{registers}, {shared} B"),
                }
            });
            let _ = write!(
                text,
                "{}",
                cells(&format!("`{kernel}`"), &of_each.collect::<Vec<_>>())
            );
        }
    }
    text
}

fn put_into(page: &str, table: &str) -> String {
    let (begin, end) = ("<!-- generated: registers -->\n", "<!-- end: registers -->");
    let parts = page
        .split_once(begin)
        .and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let (before, after) = parts.expect("docs/gpu.md has a place for the table of registers");
    format!("{before}{begin}{table}{end}{after}")
}
