//! Every order of events in a small world, for tests: breadth first, so that what breaks a promise is told in as few
//! events as possible.

use std::{
    collections::{HashMap, VecDeque},
    fmt::{self, Debug, Write},
};

/// A world in which several things can happen next.
pub(super) trait World: Clone + Debug {
    /// Something that can happen.
    type Move: Clone + Debug;

    /// All that can happen next. None: this is an end.
    fn moves(&self) -> Vec<Self::Move>;

    /// It happens.
    fn make(&mut self, next: &Self::Move);

    /// What is wrong here, if anything is. `is_end` says that nothing can happen any more.
    fn fault(&self, is_end: bool) -> Option<String>;
}

/// A promise that was broken.
#[derive(Debug)]
pub(super) struct Broken {
    /// Which.
    pub(super) fault: String,
    /// What happened, from the beginning.
    pub(super) story: String,
}

/// Two worlds that print alike are one.
type Name = [u8; 32];

struct Naming(blake3::Hasher);

impl Write for Naming {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

fn name(world: &impl Debug) -> Name {
    let mut naming = Naming(blake3::Hasher::new());
    write!(naming, "{world:?}").expect("a hash takes everything");
    naming.0.finalize().into()
}

/// Looks at every world that can be reached, and shows each of them once. Returns how many there are.
///
/// # Errors
/// The first in which something is wrong.
pub(super) fn explore<W: World>(begin: W, mut show: impl FnMut(&W)) -> Result<usize, Broken> {
    let mut reached: HashMap<Name, Option<(Name, W::Move)>> = HashMap::new();
    let first = name(&begin);
    reached.insert(first, None);
    let mut open = VecDeque::from([(first, begin)]);
    while let Some((from, world)) = open.pop_front() {
        show(&world);
        let moves = world.moves();
        if let Some(fault) = world.fault(moves.is_empty()) {
            let story = story(&reached, from);
            return Err(Broken { fault, story });
        }
        for next in moves {
            let mut after = world.clone();
            after.make(&next);
            let to = name(&after);
            reached.entry(to).or_insert_with(|| {
                open.push_back((to, after));
                Some((from, next))
            });
        }
    }
    Ok(reached.len())
}

fn story<M: Debug>(reached: &HashMap<Name, Option<(Name, M)>>, mut at: Name) -> String {
    let mut lines = Vec::new();
    while let Some(Some((from, by))) = reached.get(&at) {
        lines.push(format!("{by:?}"));
        at = *from;
    }
    lines.reverse();
    lines.join("\n")
}
