//! Who keeps a copy of whose shard. Pure.

use crate::collective::Neighbours;
use polestar_core::Rank;

/// A rank's neighbours in a ring over ranks on these hosts; `None` for a rank alone.
///
/// Each rank gives its shard to one other and takes one. As many as possible go to another host: ranks are put
/// in order of hosts and each gives to the one as far behind as the largest host is long.
pub(super) fn neighbours(hosts: &[usize], me: Rank) -> Option<Neighbours> {
    let world = hosts.len();
    if world < 2 {
        return None;
    }
    let mut order: Vec<usize> = (0..world).collect();
    order.sort_by_key(|&rank| (hosts[rank], rank));
    let largest = order
        .chunk_by(|&a, &b| hosts[a] == hosts[b])
        .map(<[usize]>::len)
        .max()
        .unwrap_or(1);
    // All on one host: the next one.
    let far = if largest == world { 1 } else { largest };
    let place = order.iter().position(|&rank| rank == me.0 as usize)?;
    let at = |place: usize| Rank(order[place % world] as u32);
    Some(Neighbours {
        to: at(place + far),
        from: at(place + world - far),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_has_one_copy_on_another_host_where_there_is_one() {
        let cases: [(&[usize], usize); 8] = [
            (&[0, 0], 0),
            (&[0, 0, 0], 0),
            (&[0, 1], 2),
            (&[0, 0, 1, 1], 4),
            (&[0, 1, 0, 1, 0, 1], 6),
            (&[0, 1, 1, 2, 2], 5),
            // The fourth can keep one, and have its own kept elsewhere.
            (&[0, 0, 0, 1], 2),
            (&[1, 1, 0, 0, 0, 0, 2], 6),
        ];
        for (hosts, apart) in cases {
            let ring: Vec<Neighbours> = (0..hosts.len() as u32)
                .map(|rank| neighbours(hosts, Rank(rank)).expect("more than one"))
                .collect();
            let mut away = 0;
            for (rank, of) in ring.iter().enumerate() {
                let to = of.to.0 as usize;
                assert_ne!(to, rank);
                assert_eq!(ring[to].from, Rank(rank as u32), "{hosts:?}");
                away += usize::from(hosts[to] != hosts[rank]);
            }
            assert_eq!(away, apart, "{hosts:?}");
        }
        assert_eq!(neighbours(&[0], Rank(0)), None);
    }
}
