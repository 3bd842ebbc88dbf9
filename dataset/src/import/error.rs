//! What can be wrong with an import.

use std::path::PathBuf;

use super::InputError;
use crate::assemble;
use crate::corpus;
use crate::mapping::{RecipeError, Unusable};
use crate::tokenizer;
use polestar_store;

/// Why an import failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing to import.
    #[error("there is nothing to import: name at least one file, folder, pattern or URL")]
    NoInput,
    /// An input can't be found or read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Something that labelled records don't have.
    #[error(
        "--labelled and {0} don't go together: labelled records have no policies to choose or compare"
    )]
    Labelled(&'static str),
    /// Columns of labels, and no word of labels.
    #[error("{0} is of labelled records; add --labelled")]
    Unlabelled(&'static str),
    /// Which of the two?
    #[error("--tokenizer and --tokenizer-of are both given; keep one")]
    TwoTokenizers,
    /// The corpus that lends its tokenizer can't be read.
    #[error("could not read the tokenizer of the corpus at {url} (--tokenizer-of)")]
    TokenizerOf {
        /// The corpus.
        url: String,
        /// What went wrong.
        source: Box<corpus::Error>,
    },
    /// There is no such recipe.
    #[error("could not use the recipe")]
    Recipe(#[source] RecipeError),
    /// The columns are not known.
    #[error("{what}; the records have {available}")]
    Mapping {
        /// What is missing or wrong.
        what: Unusable,
        /// The columns that there are.
        available: String,
    },
    /// There is nothing in the inputs.
    #[error("there is no record in {inputs}; check that these are the right files")]
    NoRecords {
        /// The inputs.
        inputs: String,
    },
    /// Inputs of several kinds.
    #[error(
        "the inputs are of several kinds: {kinds}; import one kind at a time, or say with --recipe how all \
         are to be read"
    )]
    Mixed {
        /// An input of each kind.
        kinds: String,
    },
    /// Requests in place of answers.
    #[error(
        "{input} holds the requests of a batch, not its outputs; import the outputs, and give this file \
         with --join"
    )]
    Requests {
        /// The input.
        input: String,
    },
    /// What has to be joined was not given.
    #[error("the prompts of these records are in another file: give {what} with --join FILE")]
    NeedsJoin {
        /// Which file.
        what: String,
    },
    /// Files are to be joined, but not by what.
    #[error(
        "files are to be joined, but by which column isn't known: give --join-on COLUMN, and use joined.NAME \
         for their columns; the records have {available}"
    )]
    JoinKey {
        /// The columns that there are.
        available: String,
    },
    /// A record can't be used.
    #[error(
        "{path}, {place}: {reason} (--bad-rows skip leaves such records out and counts them, quarantine sets \
         them aside)"
    )]
    Record {
        /// The input.
        path: String,
        /// "line 3".
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A record of a joined file can't be used.
    #[error("{path}, {place} can't be joined: {reason}")]
    Joined {
        /// The file.
        path: String,
        /// "line 3".
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A path doesn't name its policy.
    #[error("{path}: {reason}")]
    Path {
        /// The input.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// There is no place for temporary files.
    #[error(
        "could not make a folder in {}, {}",
        folder.display(),
        if *given { "which temp_dir names" } else { "the system's place for temporary files; set TMPDIR, or give --temp-dir" }
    )]
    TempDir {
        /// The place.
        folder: PathBuf,
        /// Whether the options name it.
        given: bool,
        /// What went wrong.
        source: std::io::Error,
    },
    /// One id, two prompts.
    #[error(
        "the prompt id '{prompt_id}' stands for two different prompts; make the ids unique or \
         leave the prompt_id column out"
    )]
    PromptClash {
        /// The id.
        prompt_id: String,
    },
    /// A resemblance is not one.
    #[error("drop_similar is {given}; give a resemblance above 0 and below 1, such as 0.9")]
    Similar {
        /// The resemblance.
        given: f64,
    },
    /// A cluster where none is asked for.
    #[error(
        "--cluster serves pairs across prompts only; add --pairs across-prompts, or leave it out"
    )]
    Cluster,
    /// The same import is running.
    #[error(
        "another import to {url} is running (it holds {}); wait for it, or stop it", folder.display()
    )]
    Busy {
        /// The output.
        url: String,
        /// Its folder.
        folder: PathBuf,
    },
    /// So much text can't be grouped in so little memory.
    #[error(
        "about {text_gib} GiB of text can't be grouped in {memory_mib} MiB of memory; give at least \
         {needed_mib} MiB"
    )]
    Memory {
        /// Text, estimated from the sizes of the inputs.
        text_gib: u64,
        /// What was given.
        memory_mib: u64,
        /// What is enough.
        needed_mib: u64,
    },
    /// One input, twice.
    #[error("{path} is given twice, perhaps under another name; give it once")]
    Twice {
        /// The input.
        path: String,
    },
    /// Temporary files failed.
    #[error("could not use the temporary file {}; choose a temp_dir with enough free space", path.display())]
    Spill {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The given tokenizer is of no use.
    #[error("could not use the tokenizer {}", path.display())]
    Tokenizer {
        /// What was given.
        path: PathBuf,
        /// What is wrong with it.
        source: tokenizer::Error,
    },
    /// The output is no store.
    #[error("could not open the output")]
    Output(#[source] polestar_store::Error),
    /// The rows were read, but no corpus could be made of them.
    #[error(transparent)]
    Assemble(#[from] assemble::Error),
}
