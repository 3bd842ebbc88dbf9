//! The line that a worker writes into its log when it begins as a rank of a trial: what follows is that rank's.

use polestar_core::{Generation, Rank, TrialId};
use std::fmt;

/// What the line begins with.
const MARK: &str = "==== ";

/// Whose lines follow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Section {
    /// The trial.
    pub trial: TrialId,
    /// The rank.
    pub rank: Rank,
    /// Ranks of its world.
    pub world: u32,
    /// Its generation, as it is displayed.
    pub generation: String,
}

impl Section {
    /// Of a rank that begins.
    pub fn new(trial: &TrialId, rank: Rank, world: u32, generation: Generation) -> Section {
        Section {
            trial: trial.clone(),
            rank,
            world,
            generation: generation.to_string(),
        }
    }

    /// What a line of a log says of those after it, if it is such a line.
    pub fn parse(line: &str) -> Option<Section> {
        let mut words = line.strip_prefix(MARK)?.splitn(2, ": ");
        let trial = TrialId(words.next()?.to_owned());
        let rest = words.next()?.strip_prefix("rank ")?;
        let (rank, rest) = rest.split_once(" of ")?;
        let (world, generation) = rest.split_once(", ")?;
        Some(Section {
            trial,
            rank: Rank(rank.parse().ok()?),
            world: world.parse().ok()?,
            generation: generation.to_owned(),
        })
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Section {
            trial,
            rank,
            world,
            generation,
        } = self;
        write!(f, "{MARK}{trial}: rank {} of {world}, {generation}", rank.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polestar_core::Epoch;

    #[test]
    fn a_section_is_read_as_it_was_written() {
        let generation = Generation {
            epoch: Epoch(2),
            number: 5,
        };
        let trial = TrialId("nano-1e12-s1".to_owned());
        let section = Section::new(&trial, Rank(3), 8, generation);
        assert_eq!(Section::parse(&section.to_string()), Some(section));
        assert_eq!(Section::parse("WARN rank 3 of 8, too late"), None);
    }
}
