//! What lets the processes of a pool find and trust each other: the [`Token`], the [`Tls`] that follows from it or from
//! a site's certificates, and
//! which versions understand one another.

mod certificates;
mod machine;
mod tls;
mod token;
mod version;

pub use certificates::{CertificateFiles, CertificatesError};
pub use machine::{Device, GpuState, Machine};
pub use tls::{Ends, Tls};
pub use token::{TOKEN_VARIABLE, Token, TokenError};
pub use version::{Incompatible, PROTOCOL, Release, same_release};

/// The port that a pool listens on when none is named.
pub const DEFAULT_PORT: u16 = 7317;

/// Bytes of the longest message, in either direction. The longest by far is `Start`, which carries a trial as JSON:
/// some kilobytes, and a megabyte when it names tens of thousands of damaged row groups.
pub const MAX_MESSAGE: usize = 4 << 20;
