//! Mutual proof that both ends of a connection belong to this generation, before any data.
//!
//! ```text
//! dialler -> listener   magic, rank, nonce_d
//! listener -> dialler   rank, nonce_l, H(secret, "listener", ranks, nonces)
//! dialler -> listener   H(secret, "dialler", ranks, nonces)
//! ```
//! `H` is keyed blake3; the secret comes from the coordinator over its own authenticated stream
//! and is fresh for every generation. Neither side learns the secret or can replay a proof.

use polestar_core::Rank;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const MAGIC: [u8; 8] = *b"polestr1";
const NONCE: usize = 32;

/// Known to the ranks of one generation and nobody else.
#[derive(Clone)]
pub struct Secret(pub [u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// Why a connection was refused.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection broke.
    #[error("the connection broke during the handshake")]
    Broken(#[from] std::io::Error),
    /// Not one of us.
    #[error("the other end doesn't speak this protocol")]
    Magic,
    /// Wrong secret: another generation, another run, or a stranger.
    #[error("the other end could not prove that it belongs to this generation")]
    Proof,
    /// Not the rank we meant to reach.
    #[error("the other end says it is {found}, not {expected}")]
    WrongRank {
        /// Who it says it is.
        found: Rank,
        /// Whom we wanted.
        expected: Rank,
    },
}

/// Proves ourselves to a listener and checks that it is `peer`.
pub(super) async fn dial<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    secret: &Secret,
    me: Rank,
    peer: Rank,
) -> Result<(), HandshakeError> {
    let mine: [u8; NONCE] = rand::random();
    let mut hello = Vec::with_capacity(MAGIC.len() + 4 + NONCE);
    hello.extend_from_slice(&MAGIC);
    hello.extend_from_slice(&me.0.to_le_bytes());
    hello.extend_from_slice(&mine);
    stream.write_all(&hello).await?;
    let found = Rank(stream.read_u32_le().await?);
    let theirs: [u8; NONCE] = read_array(stream).await?;
    let proof: [u8; 32] = read_array(stream).await?;
    let proofs = Proofs {
        secret,
        dialler: me,
        listener: found,
        nonces: [mine, theirs],
    };
    // blake3::Hash compares in constant time.
    if blake3::Hash::from(proof) != proofs.of("listener") {
        return Err(HandshakeError::Proof);
    }
    if found != peer {
        return Err(HandshakeError::WrongRank {
            found,
            expected: peer,
        });
    }
    stream.write_all(proofs.of("dialler").as_bytes()).await?;
    Ok(())
}

/// Checks a dialler and proves ourselves to it; returns its rank.
pub(super) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    secret: &Secret,
    me: Rank,
) -> Result<Rank, HandshakeError> {
    if read_array::<8, S>(stream).await? != MAGIC {
        return Err(HandshakeError::Magic);
    }
    let dialler = Rank(stream.read_u32_le().await?);
    let theirs: [u8; NONCE] = read_array(stream).await?;
    let mine: [u8; NONCE] = rand::random();
    let proofs = Proofs {
        secret,
        dialler,
        listener: me,
        nonces: [theirs, mine],
    };
    let mut reply = Vec::with_capacity(4 + NONCE + 32);
    reply.extend_from_slice(&me.0.to_le_bytes());
    reply.extend_from_slice(&mine);
    reply.extend_from_slice(proofs.of("listener").as_bytes());
    stream.write_all(&reply).await?;
    let proof: [u8; 32] = read_array(stream).await?;
    if blake3::Hash::from(proof) != proofs.of("dialler") {
        return Err(HandshakeError::Proof);
    }
    Ok(dialler)
}

struct Proofs<'a> {
    secret: &'a Secret,
    dialler: Rank,
    listener: Rank,
    nonces: [[u8; NONCE]; 2],
}

impl Proofs<'_> {
    fn of(&self, role: &str) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret.0);
        hasher.update(role.as_bytes());
        hasher.update(&self.dialler.0.to_le_bytes());
        hasher.update(&self.listener.0.to_le_bytes());
        hasher.update(&self.nonces[0]);
        hasher.update(&self.nonces[1]);
        hasher.finalize()
    }
}

async fn read_array<const N: usize, S: AsyncRead + Unpin>(
    stream: &mut S,
) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_same_secret_opens_a_connection() {
        for (theirs, accepted) in [([7; 32], true), ([8; 32], false)] {
            let (mut a, mut b) = tokio::io::duplex(1024);
            let (mine, theirs) = (Secret([7; 32]), Secret(theirs));
            let listener = async move { answer(&mut b, &theirs, Rank(0)).await };
            let dialler = async move { dial(&mut a, &mine, Rank(3), Rank(0)).await };
            let (dialled, answered) = tokio::join!(dialler, listener);
            assert_eq!(dialled.is_ok(), accepted, "{dialled:?}");
            match answered {
                Ok(rank) => assert!(accepted && rank == Rank(3)),
                Err(_) => assert!(!accepted),
            }
        }
    }
}
