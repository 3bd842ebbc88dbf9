use super::*;
use crate::engine::{
    input,
    testing::{VOCAB, trial},
};
use polestar_core::Objective;
use polestar_dataset::{Layout, SpecialTokens, TokenTriplet, TripletSource};
use polestar_model::{HeadKind, SegmentLayout, init::initial_weights};
use polestar_run::Trial;

/// Triplets of many lengths, as a lane would hold.
fn triplets() -> Vec<TokenTriplet> {
    let text = |seed: u32, len: u32| {
        let token = |i| 10 + (seed * 31 + i * i * 7 + i * 13) % (VOCAB - 10);
        (0..len).map(token).collect::<Vec<u32>>()
    };
    (0..8)
        .map(|i| TokenTriplet {
            policy: 0,
            other: 1,
            prompt: text(i, 5 + i),
            reference_prompt: None,
            reference: text(i + 20, 30 + 3 * i),
            positive: text(i + 40, 60 - 5 * i),
            negative: text(i + 60, 1 + 9 * i),
            source: TripletSource::default(),
        })
        .collect()
}

fn packs(trial: &Trial, special: &SpecialTokens) -> Vec<PackInput> {
    input::inputs(trial.recipe.packer(special).pack(&triplets()))
}

/// Losses and gradient of all triplets with non-zero reward heads.
fn run(layout: Layout, recompute: bool, threads: usize) -> (Vec<f32>, Vec<f32>) {
    run_with(layout, recompute, threads, |_| ())
}

fn run_with(
    layout: Layout,
    recompute: bool,
    threads: usize,
    change: impl FnOnce(&mut [f32]),
) -> (Vec<f32>, Vec<f32>) {
    let trial = trial(layout);
    let special = SpecialTokens {
        bos: 1,
        split: 2,
        reward: 3,
        newline: vec![4],
    };
    let model = ModelLayout::new(&trial.recipe.model, HeadKind::of(Objective::Polar));
    let mut weights = initial_weights(&model, trial.recipe.seed);
    let head = weights.len() - trial.recipe.model.hidden_size as usize;
    for (i, w) in weights[head..].iter_mut().enumerate() {
        *w = ((i * 29) % 17) as f32 * 0.05 - 0.4;
    }
    change(&mut weights);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.unwrap().install(|| {
        let engine = BurnEngine::new(model, &Device::flex(), recompute, Precision::F32);
        let mut whole = Whole::new(&engine, &weights);
        let packs = packs(&trial, &special);
        assert!(
            packs.len() > 1,
            "several packs go through a segment together"
        );
        let scores = engine.train(&packs, 0.125, &mut whole).unwrap();
        let losses = scores.into_iter().flat_map(|s| s.losses).collect();
        (
            losses,
            whole.gradients.iter().flat_map(|g| g.to_vec()).collect(),
        )
    })
}

/// Holds a whole model.
struct Whole {
    weights: Vec<Weights>,
    gradients: Vec<HostBuffer>,
}

impl Whole {
    fn new(engine: &BurnEngine, flat: &[f32]) -> Whole {
        let segments = &engine.layout.segments;
        let place = |(i, s): (usize, &SegmentLayout)| {
            engine.weights(i, &engine.flat(flat[s.range()].to_vec()))
        };
        Whole {
            weights: segments.iter().enumerate().map(place).collect(),
            gradients: segments.iter().map(|s| engine.zeros(s.elements)).collect(),
        }
    }
}

impl ParameterStore<BurnEngine> for Whole {
    type Error = NotFinite;

    fn weights(&mut self, segment: usize, _next: Option<usize>) -> Result<Weights, NotFinite> {
        Ok(self.weights[segment].clone())
    }

    fn release(&mut self, _segment: usize) {}
}

impl GradientStore<BurnEngine> for Whole {
    fn gradient(&mut self, segment: usize) -> HostBuffer {
        std::mem::take(&mut self.gradients[segment])
    }

    fn complete(&mut self, segment: usize, gradient: HostBuffer) -> Result<(), NotFinite> {
        self.gradients[segment] = gradient;
        Ok(())
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn digest_of_a_gradient_ignores_threads_and_recompute() {
    let (losses, grad) = run(Layout::Shared, false, 1);
    for (recompute, threads) in [(false, 2), (true, 1), (true, 3)] {
        let (l, g) = run(Layout::Shared, recompute, threads);
        assert_eq!(bits(&l), bits(&losses));
        assert_eq!(
            bits(&g),
            bits(&grad),
            "recompute {recompute}, {threads} threads"
        );
    }
}

#[test]
fn shared_prefix_is_the_plain_layout_up_to_rounding() {
    let (shared, plain) = (run(Layout::Shared, false, 1), run(Layout::Plain, false, 1));
    for (s, p) in shared.0.iter().zip(&plain.0) {
        assert!((s - p).abs() < 1e-5, "{s} {p}");
    }
    let largest = plain.1.iter().fold(0.0_f32, |m, g| m.max(g.abs()));
    assert!(largest > 1e-3, "the gradient is not trivially zero");
    for (s, p) in shared.1.iter().zip(&plain.1) {
        assert!((s - p).abs() < 1e-5 + 1e-4 * largest, "{s} {p}");
    }
}

#[test]
fn segments_together_make_the_gradient_of_the_loss() {
    let (_, grad) = run(Layout::Shared, false, 1);
    let layout = ModelLayout::new(
        &trial(Layout::Shared).recipe.model,
        HeadKind::of(Objective::Polar),
    );
    let loss = |at: usize, by: f32| {
        let (losses, _) = run_with(Layout::Shared, false, 1, |w| w[at] += by);
        0.125 * losses.iter().map(|&l| f64::from(l)).sum::<f64>()
    };
    // In each segment the weight that matters most, against a central difference.
    for segment in &layout.segments {
        let largest = |a: &usize, b: &usize| grad[*a].abs().total_cmp(&grad[*b].abs());
        let at = segment.range().max_by(largest).unwrap();
        const STEP: f32 = 5e-3;
        let slope = (loss(at, STEP) - loss(at, -STEP)) / (2.0 * f64::from(STEP));
        let ours = f64::from(grad[at]);
        assert!(
            (slope - ours).abs() < 0.02 * ours.abs() + 1e-4,
            "{}: {ours} against {slope}",
            segment.name
        );
    }
}

#[test]
fn a_loss_that_is_no_number_names_its_segment() {
    let trial = trial(Layout::Shared);
    let special = SpecialTokens {
        bos: 1,
        split: 2,
        reward: 3,
        newline: vec![],
    };
    let model = ModelLayout::new(&trial.recipe.model, HeadKind::of(Objective::Polar));
    let mut weights = initial_weights(&model, 1);
    if let Some(last) = weights.last_mut() {
        *last = f32::NAN;
    }
    let engine = BurnEngine::new(model, &Device::flex(), false, Precision::F32);
    let mut whole = Whole::new(&engine, &weights);
    let packs = packs(&trial, &special);
    let error = engine.train(&packs, 1.0, &mut whole).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the loss of segment `head` is not finite"
    );
}
