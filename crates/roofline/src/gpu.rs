//! GPUs and clusters of them: what the data sheets say, and which shares of it programs get.

use std::{fmt, num::NonZeroU32, str::FromStr};

/// FLOPs a second of an attention kernel, in what it executes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelRates {
    /// Forward.
    pub forward: f64,
    /// Backward.
    pub backward: f64,
}

/// Which kind of attention kernel runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// `mma.sync`, which every GPU since the A100 has.
    Mma,
    /// `wgmma`, which the H100 and its like have.
    Wgmma,
    /// As fast as the vendor's library. Its backward pass has five products instead of seven: it adds up one
    /// gradient in two places, and so not in one order.
    Library,
}

impl Attention {
    /// Products of width × pairs in the backward pass.
    pub(crate) fn backward_products(self) -> f64 {
        match self {
            // Two passes, so that no sum has two writers.
            Attention::Mma | Attention::Wgmma => 7.0,
            Attention::Library => 5.0,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Attention::Mma => "mma",
            Attention::Wgmma => "wgmma",
            Attention::Library => "library",
        }
    }
}

impl FromStr for Attention {
    type Err = String;

    fn from_str(text: &str) -> Result<Attention, String> {
        let all = [Attention::Mma, Attention::Wgmma, Attention::Library];
        let found = all.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| {
            format!("`{text}` is no attention kernel; there are mma, wgmma and library")
        })
    }
}

/// A GPU in a node of eight, and its share of the node's network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpu {
    /// As in `h100`.
    pub name: &'static str,
    /// Most FLOPs a second of dense bf16 products with f32 sums.
    pub peak: f64,
    /// Share of the peak that large products reach for minutes on end, under the power limit.
    pub product_share: f64,
    /// Memory in bytes.
    pub memory: u64,
    /// Bytes a second of the memory, by the data sheet.
    pub bandwidth: f64,
    /// Bytes a second that NVLink takes from it in one direction.
    pub nvlink: f64,
    /// Bytes a second of its NIC in one direction.
    pub nic: f64,
    /// Attention with `mma.sync`, with `wgmma` where it has that, and in the vendor's library; head width 128.
    mma: KernelRates,
    wgmma: Option<KernelRates>,
    library: KernelRates,
}

const fn tera(forward: f64, backward: f64) -> KernelRates {
    KernelRates {
        forward: forward * 1e12,
        backward: backward * 1e12,
    }
}

/// The H100 SXM, from which others are said to differ.
const H100: Gpu = Gpu {
    name: "h100",
    peak: 989e12,
    product_share: 0.64,
    memory: 80_000_000_000,
    bandwidth: 3.35e12,
    nvlink: 450e9,
    nic: 50e9,
    mma: tera(300.0, 250.0),
    wgmma: Some(tera(450.0, 375.0)),
    library: tera(550.0, 450.0),
};

impl Gpu {
    /// Those with a name.
    pub const ALL: [Gpu; 5] = [
        Gpu {
            name: "a100",
            peak: 312e12,
            product_share: 0.72,
            memory: 80_000_000_000,
            bandwidth: 2.04e12,
            nvlink: 300e9,
            nic: 25e9,
            mma: tera(170.0, 130.0),
            wgmma: None,
            library: tera(190.0, 155.0),
        },
        H100,
        // The H100 with less than half of its NVLink.
        Gpu {
            name: "h800",
            nvlink: 200e9,
            ..H100
        },
        // The H100 with more and faster memory.
        Gpu {
            name: "h200",
            memory: 141_000_000_000,
            bandwidth: 4.8e12,
            ..H100
        },
        Gpu {
            name: "b200",
            peak: 2250e12,
            product_share: 0.64,
            memory: 180_000_000_000,
            bandwidth: 7.7e12,
            nvlink: 900e9,
            nic: 50e9,
            // It runs mma.sync at about the speed of a Hopper: its own instruction is another one.
            mma: tera(350.0, 290.0),
            wgmma: None,
            library: tera(1200.0, 950.0),
        },
    ];

    /// GPUs of a node.
    pub const NODE: u32 = 8;
    /// Share of the memory that is filled: an allocation that just fits by the data sheet doesn't.
    pub const FILLED: f64 = 0.95;
    /// Share of the memory's bandwidth that plain kernels reach.
    pub const MEMORY_SHARE: f64 = 0.75;
    /// Share of NVLink's and the NIC's bandwidth that large messages reach.
    pub const LINK_SHARE: f64 = 0.8;

    /// What attention reaches with these kernels; those it hasn't are what it has in their place.
    pub fn attention(&self, kind: Attention) -> (Attention, KernelRates) {
        match (kind, self.wgmma) {
            (Attention::Wgmma, Some(rates)) => (kind, rates),
            (Attention::Wgmma | Attention::Mma, _) => (Attention::Mma, self.mma),
            (Attention::Library, _) => (kind, self.library),
        }
    }

    /// Bytes a second that plain kernels read and write.
    pub(crate) fn memory_rate(&self) -> f64 {
        self.bandwidth * Self::MEMORY_SHARE
    }
}

/// So many GPUs of one kind, in nodes of eight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cluster {
    /// The kind.
    pub gpu: Gpu,
    /// How many.
    pub gpus: NonZeroU32,
}

/// No cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// Not of the form.
    #[error("`{0}` is no cluster; say a GPU and how many, as in h100:320")]
    Form(String),
    /// No such GPU.
    #[error("`{name}` is no GPU that is known here; there are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// All names.
        known: String,
    },
    /// None, or more than anybody has.
    #[error("{0} GPUs are no cluster; from 1 to 16384 can be predicted")]
    Number(String),
    /// Nodes are whole.
    #[error("{0} GPUs don't fill nodes of {node}; up to {node}, or a multiple of it, can be predicted", node = Gpu::NODE)]
    Nodes(u32),
}

impl FromStr for Cluster {
    type Err = ClusterError;

    fn from_str(text: &str) -> Result<Cluster, ClusterError> {
        let form = || ClusterError::Form(text.to_owned());
        let (name, number) = text.split_once(':').ok_or_else(form)?;
        let gpu = Gpu::ALL.into_iter().find(|gpu| gpu.name == name);
        let gpu = gpu.ok_or_else(|| ClusterError::Unknown {
            name: name.to_owned(),
            known: Gpu::ALL.map(|gpu| gpu.name).join(", "),
        })?;
        let gpus: NonZeroU32 = number
            .parse()
            .map_err(|_| ClusterError::Number(number.to_owned()))?;
        if gpus.get() > 16_384 {
            return Err(ClusterError::Number(number.to_owned()));
        }
        if gpus.get() > Gpu::NODE && !gpus.get().is_multiple_of(Gpu::NODE) {
            return Err(ClusterError::Nodes(gpus.get()));
        }
        Ok(Cluster { gpu, gpus })
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.gpu.name, self.gpus)
    }
}

impl Cluster {
    /// GPUs of a node that are in use.
    pub(crate) fn node(&self) -> u32 {
        self.gpus.get().min(Gpu::NODE)
    }

    /// Nodes.
    pub(crate) fn nodes(&self) -> u32 {
        self.gpus.get() / self.node()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_read_as_it_is_written_and_others_are_refused_with_a_sentence() {
        let cluster: Cluster = "h100:320".parse().unwrap();
        assert_eq!((cluster.nodes(), cluster.node()), (40, 8));
        assert_eq!(cluster.to_string(), "h100:320");
        for (text, said) in [
            ("h100", "h100:320"),
            ("h101:8", "a100, h100, h800, h200, b200"),
            ("h100:0", "from 1 to 16384"),
            ("h100:12", "nodes of 8"),
        ] {
            let refused = text.parse::<Cluster>().unwrap_err().to_string();
            assert!(refused.contains(said), "{text}: {refused}");
        }
    }
}
