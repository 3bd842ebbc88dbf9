//! Operations on bytes, and on vectors that nobody adds up.

use super::{
    ALL_TO_ALL, BROADCAST, Core, EXCHANGE, GATHER, Kind, Outgoing, PASS_ON, Receive, check,
};
use crate::collective::{CollectiveError, Neighbours};
use polestar_core::Rank;

impl Core {
    /// As [`crate::collective::Peers::exchange`].
    pub(in crate::collective) fn exchange(
        &mut self,
        local: &[u8],
    ) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let everyone = vec![true; self.world().0 as usize];
        self.bytes(EXCHANGE, &everyone, local, |_| local)
    }

    /// As [`crate::collective::Peers::gather`].
    pub(in crate::collective) fn gather(
        &mut self,
        root: Rank,
        local: &[u8],
    ) -> Result<Option<Vec<Vec<u8>>>, CollectiveError> {
        let (talks, is_root) = self.star(root);
        let to = |rank: usize| if rank == root.0 as usize { local } else { &[] };
        let all = self.bytes(GATHER, &talks, local, to)?;
        Ok(is_root.then_some(all))
    }

    /// As [`crate::collective::Peers::broadcast`].
    pub(in crate::collective) fn broadcast(
        &mut self,
        root: Rank,
        local: &[u8],
    ) -> Result<Vec<u8>, CollectiveError> {
        let (talks, is_root) = self.star(root);
        let to = |_| if is_root { local } else { &[] };
        let mut all = self.bytes(BROADCAST, &talks, local, to)?;
        Ok(all.swap_remove(root.0 as usize))
    }

    /// As [`crate::collective::Peers::all_to_all`].
    pub(in crate::collective) fn all_to_all(
        &mut self,
        to: &[Vec<u8>],
    ) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let everyone = vec![true; self.world().0 as usize];
        assert_eq!(to.len(), everyone.len(), "bytes for each rank");
        self.bytes(ALL_TO_ALL, &everyone, &to[self.me()], |rank| &to[rank])
    }

    /// As [`crate::collective::Transport::pass_on`]: what came, of `elements`.
    pub(in crate::collective) fn pass_on(
        &mut self,
        Neighbours { to, from }: Neighbours,
        own: &[f32],
        elements: usize,
    ) -> Result<Vec<f32>, CollectiveError> {
        let me = self.me();
        let due = |rank: usize| match rank == from.0 as usize {
            true => 4 * elements,
            false => 0,
        };
        let talks: Vec<bool> = (0..self.world().0)
            .map(|rank| Rank(rank) == to || Rank(rank) == from)
            .collect();
        let outgoing = |rank: usize| match rank == to.0 as usize {
            true => Outgoing::one(bytemuck::cast_slice(own)),
            false => Outgoing::one(&[]),
        };
        self.run(
            PASS_ON,
            4 * own.len(),
            &talks,
            outgoing,
            |exchange, sizes| {
                check(sizes, me, due)?;
                let mut received = vec![0.0; elements];
                let into = bytemuck::cast_slice_mut(&mut received);
                if elements > 0 {
                    exchange.fill(&mut [Receive { from, into }])?;
                }
                exchange.flush()?;
                Ok(received)
            },
        )
    }

    /// Whom this rank talks to when only `root` talks to all, and whether it is the root.
    fn star(&self, root: Rank) -> (Vec<bool>, bool) {
        let (root, me) = (root.0 as usize, self.me());
        let ranks = 0..self.world().0 as usize;
        (ranks.map(|r| r == root || me == root).collect(), me == root)
    }

    /// What each rank sends here, by rank, and `local` in this one's place.
    fn bytes<'a>(
        &mut self,
        kind: Kind,
        talks: &[bool],
        local: &'a [u8],
        to: impl Fn(usize) -> &'a [u8],
    ) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let me = self.me();
        let outgoing = |rank| Outgoing::one(to(rank));
        self.run(kind, local.len(), talks, outgoing, |exchange, sizes| {
            let mut all: Vec<Vec<u8>> = sizes.iter().map(|&n| vec![0; n]).collect();
            all[me] = local.to_vec();
            let mut due: Vec<Receive<'_>> = all
                .iter_mut()
                .enumerate()
                .filter(|(rank, _)| *rank != me)
                .map(|(rank, into)| Receive {
                    from: Rank(rank as u32),
                    into,
                })
                .filter(|receive| !receive.into.is_empty())
                .collect();
            exchange.fill(&mut due)?;
            exchange.flush()?;
            Ok(all)
        })
    }
}
