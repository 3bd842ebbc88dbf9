//! How finely prompts are scattered, so that memory suffices to group them.

use super::{Error, read::Input, spill};
use spill::MOST_PARTITIONS;

/// What decides over how many partitions prompts are scattered, and how many of them are grouped at a
/// time.
#[derive(Debug)]
pub(super) struct Grouping {
    /// Bytes of text, about.
    text: u64,
    /// Bytes of memory.
    memory: u64,
    /// Threads that read and group.
    pub(super) cores: usize,
}

impl Grouping {
    pub(super) fn of(memory: u64, inputs: &[Input]) -> Self {
        Self {
            text: inputs
                .iter()
                .map(|i| i.text_estimate().unwrap_or(UNKNOWN_BYTES))
                .sum(),
            memory,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// How many of so many partitions memory has room for at a time, at most one a core; `None` if it has
    /// none for a single one.
    pub(super) fn ahead(&self, parts: usize) -> Option<usize> {
        let fits =
            |ahead: &usize| spill::partitions(self.text, self.memory, *ahead) <= parts as u64;
        (1..=self.cores).rev().find(fits)
    }

    /// How many partitions to begin with: enough for all cores if that can be, and for somewhat more
    /// input than there is now.
    pub(super) fn parts(&self) -> Result<usize, Error> {
        let Some(ahead) = self.ahead(MOST_PARTITIONS) else {
            return Err(Error::Memory {
                text_gib: self.text >> 30,
                memory_mib: self.memory >> 20,
                needed_mib: (spill::partitions(self.text, MOST_PARTITIONS as u64, 1) >> 20) + 1,
            });
        };
        let parts = spill::partitions(self.text, self.memory, ahead) as usize;
        Ok(parts.next_power_of_two().min(MOST_PARTITIONS))
    }
}

/// Of an input whose size its server doesn't tell.
const UNKNOWN_BYTES: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_memory_groups_fewer_at_a_time_and_too_little_is_refused() {
        let of = |text: u64, memory: u64| Grouping {
            text,
            memory,
            cores: 64,
        };
        let small = of(1 << 20, 1 << 30);
        assert_eq!((small.parts().unwrap(), small.ahead(1)), (1, Some(64)));
        let large = of(1 << 40, 4 << 30);
        let ahead = large.ahead(large.parts().unwrap()).unwrap();
        assert!((1..64).contains(&ahead), "{ahead}");
        let refused = of(10 << 40, 1 << 29).parts().unwrap_err().to_string();
        let needed = "give at least 10241 MiB";
        assert!(
            refused.contains("10240 GiB") && refused.contains(needed),
            "{refused}"
        );
        let advised = of(10 << 40, 10241 << 20);
        assert_eq!(advised.ahead(advised.parts().unwrap()), Some(1));
    }

    #[test]
    fn somewhat_more_input_or_other_cores_fit_what_is_scattered() {
        let begun = Grouping {
            text: 50 << 30,
            memory: 512 << 20,
            cores: 4,
        };
        let parts = begun.parts().unwrap();
        let more = Grouping {
            text: (50 << 30) + (500 << 20),
            cores: 8,
            ..begun
        };
        assert!(more.ahead(parts).is_some());
    }
}
