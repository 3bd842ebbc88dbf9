//! The token of a pool: 256 random bits that whoever belongs to the pool has.

use rand::{TryRng, rngs::SysRng};
use std::{
    fmt,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// The environment variable that holds a token where there is no file.
pub const TOKEN_VARIABLE: &str = "POLESTAR_TOKEN";

/// Bytes of a token.
const BYTES: usize = 32;
/// Bits of a file's mode that let others than its owner in.
pub(super) const OTHERS: u32 = 0o077;

/// What lets a process into a pool. Everything that the pool's processes prove to each other follows from it, so it
/// is as long as a key, and random; nothing that a person could think of is taken for one.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; BYTES]);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Neither a file nor the variable.
    #[error(
        "no token: give --token-file FILE, the file that `launch --token-file` made, or set {TOKEN_VARIABLE}"
    )]
    None,
    /// The file can't be read.
    #[error("{}: the token can't be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file can't be made.
    #[error("{}: the token can't be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others can read the file.
    #[error(
        "{}: others than its owner can get at the token (mode {mode:04o}); `chmod 600 {}` keeps it to you",
        path.display(),
        path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Not what a token looks like.
    #[error(
        "{origin} holds no token: that is 64 hexadecimal digits, from the system's randomness; `coordinator token FILE` makes one"
    )]
    Weak {
        /// The file or the variable.
        origin: String,
    },
    /// The system gives no randomness.
    #[error("the system gives no random bytes for a token")]
    Random(#[source] rand::rngs::SysError),
}

impl Token {
    /// A new one.
    ///
    /// # Errors
    /// [`TokenError::Random`].
    pub fn random() -> Result<Token, TokenError> {
        let mut bytes = [0; BYTES];
        SysRng
            .try_fill_bytes(&mut bytes)
            .map_err(TokenError::Random)?;
        Ok(Token(bytes))
    }

    /// The one in a file that only its owner can get at, or in [`TOKEN_VARIABLE`] when no file is named.
    ///
    /// # Errors
    /// [`TokenError`] says what is wrong with it and what to do.
    pub fn given(file: Option<&Path>) -> Result<Token, TokenError> {
        match (file, std::env::var(TOKEN_VARIABLE)) {
            (Some(path), _) => Token::read(path),
            (None, Ok(text)) => Token::parse(&text, TOKEN_VARIABLE),
            (None, Err(_)) => Err(TokenError::None),
        }
    }

    /// The one in a file, or a new one in a new file if there is none. True: it is new.
    ///
    /// # Errors
    /// [`TokenError`] says what is wrong with the file and what to do.
    pub fn read_or_create(path: &Path) -> Result<(Token, bool), TokenError> {
        match Token::create(path) {
            Ok(token) => Ok((token, true)),
            Err(TokenError::Write { source, .. })
                if source.kind() == std::io::ErrorKind::AlreadyExists =>
            {
                Ok((Token::read(path)?, false))
            }
            Err(error) => Err(error),
        }
    }

    /// A new one in a new file, which only its owner can read.
    ///
    /// # Errors
    /// [`TokenError::Write`] when the file is there already or can't be made.
    pub fn create(path: &Path) -> Result<Token, TokenError> {
        let token = Token::random()?;
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        let written = file.and_then(|mut file| writeln!(file, "{}", token.to_hex()));
        written.map_err(|source| TokenError::Write {
            path: path.to_owned(),
            source,
        })?;
        Ok(token)
    }

    fn read(path: &Path) -> Result<Token, TokenError> {
        let read = |source| TokenError::Read {
            path: path.to_owned(),
            source,
        };
        let file = std::fs::File::open(path).map_err(read)?;
        let mode = mode_in(&file.metadata().map_err(read)?);
        if mode & OTHERS != 0 {
            let path = path.to_owned();
            return Err(TokenError::Open { path, mode });
        }
        let text = std::io::read_to_string(file).map_err(read)?;
        Token::parse(&text, &path.display().to_string())
    }

    /// Reads a token; `origin` is where it comes from, for the error.
    ///
    /// # Errors
    /// [`TokenError::Weak`].
    pub fn parse(text: &str, origin: &str) -> Result<Token, TokenError> {
        let hash = blake3::Hash::from_hex(text.trim()).ok();
        let bytes = hash.map(|hash| *hash.as_bytes());
        let strong = bytes.filter(|bytes| !is_patterned(bytes));
        strong.map(Token).ok_or_else(|| TokenError::Weak {
            origin: origin.to_owned(),
        })
    }

    /// As it lies in a file.
    pub fn to_hex(&self) -> String {
        blake3::Hash::from(self.0).to_hex().to_string()
    }

    /// What a worker shows a coordinator. It opens this pool and nothing else, and the token doesn't follow from it.
    pub fn bearer(&self) -> String {
        let shown = self.derive("polestar pool 2026 what a worker shows");
        blake3::Hash::from(shown).to_hex().to_string()
    }

    /// A key for one purpose.
    pub(super) fn derive(&self, purpose: &str) -> [u8; BYTES] {
        blake3::derive_key(purpose, &self.0)
    }
}

fn mode_in(metadata: &std::fs::Metadata) -> u32 {
    metadata.permissions().mode() & 0o7777
}

/// Who may do what with a file.
pub(super) fn mode_of(path: &Path) -> std::io::Result<u32> {
    std::fs::metadata(path).map(|metadata| mode_in(&metadata))
}

/// Whether no source of randomness gave this: of 32 random bytes, 16 or fewer different ones don't happen.
fn is_patterned(bytes: &[u8; BYTES]) -> bool {
    let different: std::collections::BTreeSet<u8> = bytes.iter().copied().collect();
    different.len() <= BYTES / 2
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_token_is_made_once_for_its_owner_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let (made, new) = Token::read_or_create(&path).unwrap();
        assert!(new);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            0o600
        );
        let (read, new) = Token::read_or_create(&path).unwrap();
        assert!(!new && read == made);
        assert_eq!(std::fs::read_to_string(&path).unwrap().trim().len(), 64);
        assert!(!format!("{made:?}").contains(&made.to_hex()[..8]));
        assert!(made.bearer() != made.to_hex());
    }

    #[test]
    fn a_file_that_others_can_get_at_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        Token::create(&path).unwrap();
        for open in [0o640, 0o604, 0o620, 0o601, 0o777] {
            mode(&path, open);
            let error = Token::given(Some(&path)).unwrap_err().to_string();
            let says = format!("`chmod 600 {}`", path.display());
            assert!(
                error.contains(&says) && error.contains(&format!("{open:04o}")),
                "{error}"
            );
        }
        mode(&path, 0o400);
        Token::given(Some(&path)).unwrap();
    }

    #[test]
    fn what_a_person_could_have_thought_of_is_no_token() {
        for weak in [
            "",
            "secret",
            &"0".repeat(64),
            &"0123456789abcdef".repeat(4),
            &"deadbeef".repeat(8),
            &"g".repeat(64),
            &Token::random().unwrap().to_hex()[1..],
        ] {
            let error = Token::parse(weak, "POLESTAR_TOKEN")
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("POLESTAR_TOKEN holds no token")
                    && error.contains("`coordinator token FILE`"),
                "{weak}: {error}"
            );
            assert!(weak.len() < 8 || !error.contains(weak), "{error}");
        }
    }
}
