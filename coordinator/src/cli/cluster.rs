//! `plan --cluster`: what a step should take on GPUs that nobody has to have yet. Predicted, not measured.

use super::{
    Error,
    table::{si, table},
};
use polestar_model::Preset;
use polestar_roofline::{Attention, Cluster, Lengths, Prediction, Workload, options, usual_batch};

#[derive(Debug, clap::Args)]
pub(super) struct ClusterArgs {
    /// Predict steps on a cluster instead: a100, h100, h800, h200 or b200, and how many
    #[arg(long, value_name = "GPU:N", conflicts_with = "sweep")]
    pub(super) cluster: Option<Cluster>,
    /// Models to predict, by the names of presets
    #[arg(long, value_name = "PRESET", default_values = ["polar-1.8b", "polar-7b"], value_parser = preset, requires = "cluster")]
    model: Vec<Preset>,
    /// Tokens of a triplet's prompt, reference and each candidate
    #[arg(long, value_name = "P,R,C", default_value = LENGTHS, requires = "cluster")]
    lengths: Lengths,
    /// Triplets of a batch; the nearest number that the GPUs can share is predicted [default: 1940, but no more than 64
    /// a GPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), requires = "cluster")]
    batch: Option<u32>,
    /// Kernels of attention: mma, wgmma, or as fast as the vendor's library
    #[arg(
        long,
        value_name = "KERNEL",
        default_value = "mma",
        requires = "cluster"
    )]
    attention: Attention,
    /// Tokens of a whole run, counted in the plain layout, as in 0.94e12: tells how long it takes
    #[arg(long, value_name = "TOKENS", requires = "cluster")]
    tokens: Option<f64>,
    /// Price of a GPU for an hour, in whatever money: tells what a day costs
    #[arg(long, value_name = "PRICE", requires = "cluster")]
    gpu_hour: Option<f64>,
    /// Write the curves and tables of docs/scale.md into this folder
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["sweep", "cluster"], hide = true)]
    pub(super) scale: Option<std::path::PathBuf>,
}

/// Lengths that predictions take unless they are told others.
pub(super) const LENGTHS: &str = "512,1250,1250";
/// The paper's batch for its smaller model.
const USUAL_BATCH: u32 = 1940;
/// What every prediction says of itself.
pub(super) const LABEL: &str = "predicted, not measured";

fn preset(name: &str) -> Result<Preset, String> {
    Preset::by_name(name).map_err(|error| error.to_string())
}

/// Prints what each stage should take, and the best of those that fit.
pub(super) fn show(cluster: &Cluster, args: &ClusterArgs) -> Result<(), Error> {
    for price in [args.gpu_hour, args.tokens].into_iter().flatten() {
        if !(price.is_finite() && price > 0.0) {
            return Err("--gpu-hour and --tokens must be positive numbers".into());
        }
    }
    for preset in &args.model {
        // Presets without a vocabulary of their own get the usual one.
        let model = preset.config(super::reference::usual_vocab());
        let work = Workload::new(&model, args.lengths);
        print!("{}", describe(preset.name(), &work, cluster, args));
    }
    Ok(())
}

fn describe(name: &str, work: &Workload, cluster: &Cluster, args: &ClusterArgs) -> String {
    let batch = args.batch;
    let batch = batch.unwrap_or_else(|| usual_batch(cluster.gpus.get(), USUAL_BATCH));
    let (kernel, _) = cluster.gpu.attention(args.attention);
    let all = options(work, cluster, args.attention, batch);
    let best = best(cluster, &all);
    let mut text = format!(
        "{name} on {cluster}, {LABEL}: triplets of {:.0} tokens ({:.0} in the plain layout), {} attention\n{}",
        work.lengths.tokens(),
        work.lengths.plain_tokens(),
        kernel.name(),
        table(
            &HEAD,
            &all.iter()
                .map(|p| row(work, cluster, p))
                .collect::<Vec<_>>()
        ),
    );
    text += &match best {
        Some(best) => verdict(best, args),
        None => format!(
            "nothing fits {} GB a GPU; give it more GPUs, or GPUs with more memory\n",
            cluster.gpu.memory / 1_000_000_000
        ),
    };
    text + "\n"
}

/// The fastest that fits; of those that are as fast within a hundredth, the one that shards least.
pub(super) fn best<'a>(cluster: &Cluster, all: &'a [Prediction]) -> Option<&'a Prediction> {
    let fits = || all.iter().filter(|p| p.fits(cluster));
    let fastest = fits().map(|p| p.triplets_per_second).fold(0.0, f64::max);
    fits().find(|p| p.triplets_per_second >= 0.99 * fastest)
}

pub(super) const HEAD: [&str; 13] = [
    "stage",
    "batch",
    "lanes/GPU",
    "triplets/lane",
    "recompute",
    "GB/GPU",
    "fits",
    "step",
    "MFU",
    "6ND TFLOP/s",
    "triplets/s",
    "waits",
    "NIC GB",
];

pub(super) fn row(work: &Workload, cluster: &Cluster, p: &Prediction) -> Vec<String> {
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let gigabytes = |bytes: f64| format!("{:.1}", bytes / 1e9);
    // By all parameters, as the paper counts.
    let rate = 6.0 * work.parameters() * p.plain_tokens_per_second / f64::from(p.layout.world);
    vec![
        p.layout.zero.to_string(),
        p.layout.batch().to_string(),
        p.layout.lanes_per_gpu.to_string(),
        p.layout.triplets_per_lane.to_string(),
        yes(p.layout.recompute),
        gigabytes(p.memory.total() as f64),
        yes(p.fits(cluster)),
        format!("{:.2} s", p.seconds()),
        format!("{:.1}%", 100.0 * p.mfu),
        format!("{:.0}", rate / 1e12),
        format!("{:.1}", p.triplets_per_second),
        format!("{:.1}%", 100.0 * p.parts.waiting / p.seconds()),
        gigabytes(p.traffic.nic),
    ]
}

/// The stage to take, where its time goes, and what a day and a run of it cost.
fn verdict(best: &Prediction, args: &ClusterArgs) -> String {
    let layout = best.layout;
    let recompute = if layout.recompute { "with" } else { "without" };
    let mut parts: Vec<(&str, f64)> = best.parts.named().into_iter().collect();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    let share =
        |&(name, seconds): &(&str, f64)| format!("{name} {:.1}%", 100.0 * seconds / best.seconds());
    let parts: Vec<String> = parts.iter().map(share).collect();
    let per_day = |each: f64| si(each * 86_400.0);
    let mut text = format!(
        "take zero = {}, batch = {}, lanes = {}, {recompute} recompute; a step is {}\na day: {} triplets, {} tokens",
        u8::from(layout.zero),
        layout.batch(),
        layout.lanes(),
        parts.join(", "),
        per_day(best.triplets_per_second),
        per_day(best.plain_tokens_per_second),
    );
    let hours_of_a_day = 24.0 * f64::from(layout.world);
    if let Some(price) = args.gpu_hour {
        text += &format!(
            "; {hours_of_a_day:.0} GPU-hours, {:.0} at {price} an hour",
            hours_of_a_day * price
        );
    }
    text += "\n";
    if let Some(tokens) = args.tokens {
        let hours = tokens / best.plain_tokens_per_second / 3600.0;
        let gpu_hours = hours * f64::from(layout.world);
        text += &format!(
            "{} tokens: {hours:.1} hours, {gpu_hours:.0} GPU-hours",
            si(tokens)
        );
        if let Some(price) = args.gpu_hour {
            text += &format!(", {:.0}", gpu_hours * price);
        }
        text += "\n";
    }
    text
}
