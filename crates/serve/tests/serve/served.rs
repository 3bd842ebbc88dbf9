//! A server of a model with weights of noise, on a small corpus.

use polestar_core::{Precision, random::Stream};
use polestar_dataset::{Corpus, HeldOut, SampleConfig, SynthOptions, TokenTree, TreePacker, synth};
use polestar_model::{HeadKind, ModelConfig, ModelLayout, Preset, init};
use polestar_run::config::Backend;
use polestar_serve::{
    Group, Scorer, Texts,
    http::{Limits, Options, Server},
};
use polestar_worker::{device::device, engine::BurnEngine};
use std::net::{Ipv4Addr, SocketAddr};
use tokio::{sync::oneshot, task::JoinHandle};

/// Weights of noise, head included.
pub(crate) fn noisy(config: &ModelConfig, precision: Precision, packer: TreePacker) -> Scorer {
    let layout = ModelLayout::new(config, HeadKind::Reward);
    let device = device(Backend::Flex).expect("the CPU");
    let engine = BurnEngine::new(layout.clone(), &device, false, precision);
    let mut scorer = Scorer::empty(engine, packer);
    for segment in &layout.segments {
        let mut weights = vec![0.0; segment.elements];
        init::initial_segment(segment, 7, &mut weights);
        let mut noise = Stream::new("weights", &[segment.offset as u64]);
        for weight in weights.iter_mut().filter(|weight| **weight == 0.0) {
            *weight = noise.below(1000) as f32 / 1000.0 - 0.5;
        }
        scorer.push(weights);
    }
    scorer
}

/// A server's parts, twice: the one that is served, and one to compare with.
pub(crate) struct Model {
    pub(crate) texts: Texts,
    config: ModelConfig,
    packer: TreePacker,
}

impl Model {
    /// On a corpus of that name. Wider models take longer.
    pub(crate) async fn new(name: &str, hidden_size: u32) -> Model {
        let url = format!("memory://{name}");
        let options = SynthOptions {
            output: url.clone(),
            policies: 4,
            prompts: 16,
            samples: 2,
            heldout_prompts: HeldOut::Count(4),
            heldout_policies: 1,
            ..SynthOptions::default()
        };
        synth(options).await.expect("a corpus");
        let corpus = Corpus::open(&url).await.expect("a corpus");
        let samples = SampleConfig {
            max_prompt: 60,
            max_response: 100,
            ..SampleConfig::default()
        };
        let config = ModelConfig {
            vocab_size: corpus.tokenizer().vocab_size(),
            hidden_size,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            intermediate_size: 2 * hidden_size,
            ..Preset::Nano.config(0)
        };
        let packer = TreePacker::new(samples.layout, 512);
        Model {
            texts: Texts::new(corpus, samples),
            config,
            packer,
        }
    }

    pub(crate) fn scorer(&self) -> Scorer {
        noisy(&self.config, Precision::F32, self.packer)
    }

    /// What a whole sequence scores, alone.
    pub(crate) fn of_text(&self, text: &str) -> f32 {
        let tree = self.texts.sequence(text).expect("a sequence");
        self.alone(&tree)
    }

    /// What a candidate scores, alone.
    pub(crate) fn of_parts(&self, prompt: &str, reference: &str, candidate: &str) -> f32 {
        let group = Group {
            prompt: prompt.to_owned(),
            reference: Some(reference.to_owned()),
            candidates: vec![candidate.to_owned()],
            ..Group::default()
        };
        self.alone(&self.texts.group(&group).expect("a group").tree)
    }

    /// What follows a query, alone.
    pub(crate) fn of_pair(&self, query: &str, item: &str) -> f32 {
        let items = [item.to_owned()];
        let tree = self.texts.continued(query, &items).expect("a pair");
        self.alone(&tree)
    }

    fn alone(&self, tree: &TokenTree) -> f32 {
        self.scorer().score([tree]).expect("a reward")[0][0]
    }

    pub(crate) async fn serve(&self, limits: Limits) -> Served {
        let options = Options {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            token: None,
            certificate: None,
            model: "noise".to_owned(),
            limits,
        };
        self.serve_as(options).await
    }

    pub(crate) async fn serve_as(&self, options: Options) -> Served {
        let server = Server::bind(options, self.texts.clone(), self.scorer()).await;
        let server = server.expect("a server");
        let address = server.address();
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        Served {
            address,
            stop: Some(stop),
            running: tokio::spawn(server.run(stopped)),
        }
    }
}

/// A server that runs.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    pub(crate) running: JoinHandle<usize>,
}

impl Served {
    /// As SIGTERM does.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }
}
