//! What docs/scale.md shows: curves over clusters of 1 to 1,024 GPUs, and the paper's two runs. Predicted, not
//! measured, but for the paper's own hours.

use super::{
    Error,
    cluster::{self, LABEL, LENGTHS},
};
use polestar_laws::report::{LineFigure, LineSeries};
use polestar_model::Preset;
use polestar_roofline::{
    Attention, Cluster, Gpu, Lengths, PAPER_RUNS, PaperRun, Prediction, Workload, options,
    usual_batch,
};
use std::path::Path;

/// GPUs that curves are drawn for; those of the paper are hundreds.
const GPUS: [&str; 4] = ["a100", "h100", "h200", "b200"];
const SIZES: [u32; 8] = [1, 8, 32, 64, 128, 256, 512, 1024];
const ATTENTION: [Attention; 3] = [Attention::Mma, Attention::Wgmma, Attention::Library];

/// What is drawn of a prediction.
struct Quantity {
    file: &'static str,
    title: &'static str,
    axis: &'static str,
    of: fn(&Prediction) -> f64,
}

const QUANTITIES: [Quantity; 2] = [
    Quantity {
        file: "mfu",
        title: "model FLOPs utilization",
        axis: "MFU in percent of the peak (bf16)",
        of: |p| 100.0 * p.mfu,
    },
    Quantity {
        file: "speed",
        title: "triplets a second",
        axis: "triplets a second on all GPUs",
        of: |p| p.triplets_per_second,
    },
];

/// Writes the figures and the tables.
pub(super) fn write(folder: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(folder)?;
    let mut tables = String::new();
    for run in &PAPER_RUNS {
        let curves = curves(run)?;
        let name = run.preset.name();
        for quantity in &QUANTITIES {
            let svg = figure(run, &curves, quantity).svg();
            std::fs::write(folder.join(format!("{name}-{}.svg", quantity.file)), svg)?;
        }
        tables += &format!(
            "### {name}, batch of about {}, at most 64 a GPU\n\n{}\n",
            run.batch,
            curve_table(&curves)
        );
    }
    let page = format!("{}\n{tables}{}", paper_table()?, hardware_table());
    std::fs::write(folder.join("tables.md"), page)?;
    Ok(())
}

/// A kind of GPU's best predictions, by how many there are.
struct Curve {
    gpu: &'static str,
    points: Vec<(u32, Option<Prediction>)>,
}

fn curves(run: &PaperRun) -> Result<Vec<Curve>, Error> {
    let work = work(run.preset)?;
    let curve = |gpu: &'static str| {
        let points = SIZES.map(|gpus| {
            let cluster: Cluster = format!("{gpu}:{gpus}").parse()?;
            Ok::<_, Error>((
                gpus,
                best(
                    &work,
                    &cluster,
                    Attention::Mma,
                    usual_batch(gpus, run.batch),
                ),
            ))
        });
        let points = points.into_iter().collect::<Result<_, _>>()?;
        Ok::<_, Error>(Curve { gpu, points })
    };
    GPUS.into_iter().map(curve).collect()
}

fn work(preset: Preset) -> Result<Workload, Error> {
    let lengths: Lengths = LENGTHS.parse()?;
    Ok(Workload::new(&preset.config(0), lengths))
}

fn best(work: &Workload, cluster: &Cluster, kernel: Attention, batch: u32) -> Option<Prediction> {
    let all = options(work, cluster, kernel, batch);
    cluster::best(cluster, &all).copied()
}

fn figure(run: &PaperRun, curves: &[Curve], quantity: &Quantity) -> LineFigure {
    let series = curves.iter().map(|curve| LineSeries {
        name: curve.gpu.to_uppercase(),
        points: curve
            .points
            .iter()
            .filter_map(|(gpus, p)| Some((f64::from(*gpus), (quantity.of)(p.as_ref()?))))
            .collect(),
        measured: false,
    });
    LineFigure {
        title: format!("{}: {}", run.preset.name(), quantity.title),
        finding: format!(
            "{LABEL}: the best ZeRO stage, lanes and recompute that fit, batches of about {} triplets, but at most 64 a GPU",
            run.batch
        ),
        x_title: "GPUs, in nodes of eight",
        y_title: quantity.axis,
        series: series.collect(),
        notes: vec![
            "mma.sync attention, canonical sum over two levels".to_owned(),
            format!("triplets of {LENGTHS} tokens (prompt, reference, candidates)"),
            "without a point: the model doesn't fit".to_owned(),
        ],
        source: "coordinator plan --cluster GPU:N; assumptions in docs/scale.md".to_owned(),
    }
}

fn curve_table(curves: &[Curve]) -> String {
    let mut text = String::from("| GPUs |");
    for curve in curves {
        text += &format!(" {} |", curve.gpu.to_uppercase());
    }
    text += &format!("\n|---|{}\n", "---|".repeat(curves.len()));
    for (row, gpus) in SIZES.iter().enumerate() {
        text += &format!("| {gpus} |");
        for curve in curves {
            text += &match &curve.points[row].1 {
                Some(p) => format!(
                    " {}{}, {:.2} s, {:.0}%, {:.0} GB |",
                    p.layout.zero,
                    if p.layout.recompute {
                        " + recompute"
                    } else {
                        ""
                    },
                    p.seconds(),
                    100.0 * p.mfu,
                    p.memory.total() as f64 / 1e9
                ),
                None => " doesn't fit |".to_owned(),
            };
        }
        text += "\n";
    }
    text
}

/// The paper's hours, and ours beside them.
fn paper_table() -> Result<String, Error> {
    let mut text = String::from(
        "| run | GPUs | tokens | whose | attention | stage | MFU | 6ND TFLOP/s a GPU | hours |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for run in &PAPER_RUNS {
        let name = run.preset.name();
        text += &format!(
            "| {name} | {} H800 | {:.2e} | the paper's own | | | | {:.0} | {:.0} |\n",
            run.gpus,
            run.tokens,
            run.flops_6nd(run.hours) / 1e12,
            run.hours
        );
        let work = work(run.preset)?;
        for gpu in ["h800", "h100"] {
            let cluster: Cluster = format!("{gpu}:{}", run.gpus).parse()?;
            for kernel in ATTENTION {
                let Some(p) = best(&work, &cluster, kernel, run.batch) else {
                    continue;
                };
                let hours = run.tokens / p.plain_tokens_per_second / 3600.0;
                text += &format!(
                    "| {name} | {} {} | {:.2e} | {LABEL} | {} | {} | {:.0}% | {:.0} | {hours:.0} |\n",
                    run.gpus,
                    gpu.to_uppercase(),
                    run.tokens,
                    kernel.name(),
                    p.layout.zero,
                    100.0 * p.mfu,
                    run.flops_6nd(hours) / 1e12
                );
            }
        }
    }
    Ok(text)
}

/// What is assumed of the hardware.
fn hardware_table() -> String {
    let mut text = String::from(
        "### Hardware\n\n| GPU | peak bf16 | products | attention mma, forward / backward | wgmma | library | memory | bandwidth | NVLink, one way | NIC |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let rates = |gpu: &Gpu, kernel| {
        let (found, rates) = gpu.attention(kernel);
        match found == kernel {
            true => format!("{:.0} / {:.0}", rates.forward / 1e12, rates.backward / 1e12),
            false => "none".to_owned(),
        }
    };
    for gpu in &Gpu::ALL {
        text += &format!(
            "| {} | {:.0} TFLOP/s | {:.0}% | {} | {} | {} | {:.0} GB | {:.2} TB/s | {:.0} GB/s | {:.0} GB/s |\n",
            gpu.name.to_uppercase(),
            gpu.peak / 1e12,
            100.0 * gpu.product_share,
            rates(gpu, Attention::Mma),
            rates(gpu, Attention::Wgmma),
            rates(gpu, Attention::Library),
            gpu.memory as f64 / 1e9,
            gpu.bandwidth / 1e12,
            gpu.nvlink / 1e9,
            gpu.nic / 1e9
        );
    }
    text
}
