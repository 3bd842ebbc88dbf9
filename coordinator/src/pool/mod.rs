//! The workers' streams, and the worker processes that `launch` starts itself.

mod local;
mod server;

pub use local::{LocalPool, SpawnError};
pub use server::{PoolServer, ServeError, Told, Workers, serve};
