//! Mutual proof that both ends of a connection belong to this generation, before any data.
//!
//! ```text
//! dialler -> listener   magic, rank, host, nonce_d
//! listener -> dialler   rank, host, nonce_l, H(secret, "listener", channel, ranks, hosts, nonces)
//! dialler -> listener   H(secret, "dialler", channel, ranks, hosts, nonces)
//! ```
//! `H` is keyed blake3; the secret comes from the coordinator over its own authenticated stream
//! and is fresh for every generation. Neither side learns the secret or can replay a proof. Under TLS, `channel` is
//! what only the two ends of this very session know, so that nobody can stand between two sessions.

use polestar_core::Rank;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const MAGIC: [u8; 8] = *b"polestr3";
const NONCE: usize = 32;

/// What only the two ends of a TLS session know; zeros without one.
pub(super) type Channel = [u8; 32];

/// Known to the ranks of one generation and nobody else.
#[derive(Clone)]
pub struct Secret(pub [u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// Which machine a rank is on: equal for ranks between which no network lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostId(pub(super) [u8; HOST]);

const HOST: usize = 16;

impl HostId {
    /// This machine, until it is started again.
    pub(super) fn here() -> HostId {
        match std::fs::read("/proc/sys/kernel/random/boot_id") {
            Ok(id) => HostId::of(&id),
            // Ranks that can't tell are each taken for a machine of its own: slower, the same bits.
            Err(_) => HostId::apart(),
        }
    }

    /// A machine that nobody else is on.
    pub(super) fn apart() -> HostId {
        HostId(rand::random())
    }

    pub(super) fn of(name: &[u8]) -> HostId {
        let mut id = [0; HOST];
        id.copy_from_slice(&blake3::hash(name).as_bytes()[..HOST]);
        HostId(id)
    }
}

/// Who stands at one end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) rank: Rank,
    pub(super) host: HostId,
}

impl Identity {
    fn encode(self) -> Vec<u8> {
        let mut bytes = self.rank.0.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.host.0);
        bytes
    }

    async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<Identity> {
        Ok(Identity {
            rank: Rank(stream.read_u32_le().await?),
            host: HostId(read_array(stream).await?),
        })
    }
}

/// What one end proves itself with.
#[derive(Clone, Copy)]
pub(super) struct Proof<'a> {
    /// Of the generation.
    pub(super) secret: &'a Secret,
    /// Of the connection.
    pub(super) channel: Channel,
    /// Who proves.
    pub(super) me: Identity,
}

/// Why a connection was refused.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection broke.
    #[error("the connection broke during the handshake")]
    Broken(#[from] std::io::Error),
    /// No TLS session: another pool's token, or no Polestar.
    #[error("the other end could not prove that it has this pool's token")]
    Tls(#[source] std::io::Error),
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

/// Proves ourselves to a listener and checks that it is `peer`; returns who it is.
pub(super) async fn dial<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    proof: Proof<'_>,
    peer: Rank,
) -> Result<Identity, HandshakeError> {
    let mine: [u8; NONCE] = rand::random();
    let mut hello = MAGIC.to_vec();
    hello.extend_from_slice(&proof.me.encode());
    hello.extend_from_slice(&mine);
    stream.write_all(&hello).await?;
    stream.flush().await?;
    let found = Identity::read(stream).await?;
    let theirs: [u8; NONCE] = read_array(stream).await?;
    let shown: [u8; 32] = read_array(stream).await?;
    let proofs = Proofs {
        proof,
        dialler: proof.me,
        listener: found,
        nonces: [mine, theirs],
    };
    // blake3::Hash compares in constant time.
    if blake3::Hash::from(shown) != proofs.of("listener") {
        return Err(HandshakeError::Proof);
    }
    if found.rank != peer {
        return Err(HandshakeError::WrongRank {
            found: found.rank,
            expected: peer,
        });
    }
    stream.write_all(proofs.of("dialler").as_bytes()).await?;
    stream.flush().await?;
    Ok(found)
}

/// Checks a dialler and proves ourselves to it; returns who it is.
pub(super) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    proof: Proof<'_>,
) -> Result<Identity, HandshakeError> {
    if read_array::<8, S>(stream).await? != MAGIC {
        return Err(HandshakeError::Magic);
    }
    let dialler = Identity::read(stream).await?;
    let theirs: [u8; NONCE] = read_array(stream).await?;
    let mine: [u8; NONCE] = rand::random();
    let proofs = Proofs {
        proof,
        dialler,
        listener: proof.me,
        nonces: [theirs, mine],
    };
    let mut reply = proof.me.encode();
    reply.extend_from_slice(&mine);
    reply.extend_from_slice(proofs.of("listener").as_bytes());
    stream.write_all(&reply).await?;
    stream.flush().await?;
    let shown: [u8; 32] = read_array(stream).await?;
    if blake3::Hash::from(shown) != proofs.of("dialler") {
        return Err(HandshakeError::Proof);
    }
    Ok(dialler)
}

struct Proofs<'a> {
    proof: Proof<'a>,
    dialler: Identity,
    listener: Identity,
    nonces: [[u8; NONCE]; 2],
}

impl Proofs<'_> {
    fn of(&self, role: &str) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.proof.secret.0);
        hasher.update(role.as_bytes());
        hasher.update(&self.proof.channel);
        hasher.update(&self.dialler.encode());
        hasher.update(&self.listener.encode());
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
    async fn only_the_same_secret_on_the_same_channel_opens_a_connection() {
        for (secret, channel, accepted) in [
            ([7; 32], [1; 32], true),
            ([8; 32], [1; 32], false),
            ([7; 32], [2; 32], false),
        ] {
            let (mut a, mut b) = tokio::io::duplex(1024);
            let (mine, theirs) = (Secret([7; 32]), Secret(secret));
            let [zero, three] = [0, 3].map(|rank| Identity {
                rank: Rank(rank),
                host: HostId::of(&[rank as u8]),
            });
            let listens = Proof {
                secret: &theirs,
                channel,
                me: zero,
            };
            let dials = Proof {
                secret: &mine,
                channel: [1; 32],
                me: three,
            };
            let listener = async move { answer(&mut b, listens).await };
            let dialler = async move { dial(&mut a, dials, Rank(0)).await };
            let (dialled, answered) = tokio::join!(dialler, listener);
            assert_eq!(dialled.ok(), accepted.then_some(zero));
            assert_eq!(answered.ok(), accepted.then_some(three));
        }
    }
}
