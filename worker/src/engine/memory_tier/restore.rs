//! From what ranks kept to the state of those that go on: each gets what it owns from one that has it.

use super::{
    Offers, Piece, Snapshot,
    offers::{Held, Source},
    snapshot::block_checksums,
};
use crate::{
    collective::{CollectiveError, Transport},
    engine::{Engine, OptimizerStep, SegmentState, Stepper, Update},
};
use polestar_core::{Rank, Step, tree::BLOCK};
use polestar_model::ModelLayout;
use polestar_run::{
    Consumed,
    metrics::{self, Row},
    placement::Sharding,
};
use std::ops::Range;

/// What is known of the steps that were done, beside weights and moments.
pub(in crate::engine) struct Restored {
    pub(in crate::engine) consumed: Consumed,
    /// Of the steps that may not be in the store yet.
    pub(in crate::engine) rows: Vec<Row>,
}

/// Why the state in memory can't be gone on with. All ranks come to the same answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::engine) enum RestoreError {
    /// It isn't what it should be, and a checkpoint may be taken instead.
    #[error("step {} in the workers' memory is damaged: {what}", step.0)]
    Damaged { step: Step, what: String },
    #[error(transparent)]
    Collective(#[from] CollectiveError),
}

/// Puts what `offers` found into the stepper. All ranks call it, each with its own snapshots; `optimizer` says
/// how the step is taken that some may be behind.
pub(in crate::engine) fn restore<E: Engine, T: Transport<E>>(
    offers: &Offers,
    held: &mut [Snapshot],
    optimizer: &OptimizerStep,
    transport: &mut T,
    stepper: &mut Stepper<E>,
) -> Result<Restored, RestoreError> {
    let damaged = |what| RestoreError::Damaged {
        step: offers.step,
        what,
    };
    let told = held.iter().find(|snapshot| snapshot.step == offers.step);
    let told = told.map_or_else(Vec::new, encode);
    let told = transport.broadcast(offers.teller, &told)?;
    let restored = decode(&told).map_err(damaged)?;
    let last = restored.rows.last().filter(|row| row.step == offers.step);
    let behind =
        |snapshot: &&mut Snapshot| snapshot.is_prepared() && snapshot.step.0 + 1 == offers.step.0;
    for snapshot in held.iter_mut().filter(behind) {
        // Whoever is at this step got there by a step with a row.
        if let Some(row) = last {
            catch_up(snapshot, stepper.engine(), &optimizer.update(row.grad_norm));
        }
    }
    let pieces: Vec<&Piece> = held
        .iter()
        .filter(|snapshot| snapshot.step == offers.step)
        .flat_map(|snapshot| &snapshot.pieces)
        .collect();
    let sums = pieces.iter().flat_map(|piece| {
        let sums = block_checksums(piece.part(&piece.range()));
        sums.into_iter().flat_map(u64::to_le_bytes)
    });
    let sums = transport.exchange(&sums.collect::<Vec<u8>>())?;
    let sums = Sums::new(offers, stepper.layout(), &sums).map_err(damaged)?;
    let mut damage = None;
    for segment in 0..stepper.layout().segments.len() {
        let state = gather(offers, &pieces, segment, transport, stepper)?;
        let start = stepper.owned(segment).start;
        if !sums.are_of(segment, start, &state) {
            damage.get_or_insert_with(|| format!("segment {segment} came altered"));
        }
        stepper.set_shard(segment, state);
    }
    let all = transport.exchange(damage.unwrap_or_default().as_bytes())?;
    match all.into_iter().find(|damage| !damage.is_empty()) {
        Some(what) => Err(damaged(String::from_utf8_lossy(&what).into_owned())),
        None => Ok(restored),
    }
}

/// Takes the step that the snapshot has the gradient of.
fn catch_up<E: Engine>(snapshot: &mut Snapshot, engine: &E, update: &Update) {
    for piece in &mut snapshot.pieces {
        let Some(gradient) = piece.gradient.take() else {
            continue;
        };
        let elements = gradient.len();
        let mut state = std::mem::take(&mut piece.state).map(|vector| engine.flat(vector));
        engine.adamw(&mut state, &engine.flat(gradient), update);
        piece.state = state.map(|vector| engine.to_host(vector, elements));
    }
    snapshot.step.0 += 1;
}

/// What this rank owns of a segment, from those that have it.
fn gather<E: Engine, T: Transport<E>>(
    offers: &Offers,
    pieces: &[&Piece],
    segment: usize,
    transport: &mut T,
    stepper: &Stepper<E>,
) -> Result<SegmentState<Vec<f32>>, CollectiveError> {
    let (me, world) = (transport.rank(), transport.world());
    let elements = stepper.layout().segments[segment].elements;
    let zero = stepper.plan.sharding.zero;
    let sources = |rank| {
        let owned = Sharding { zero, world, rank }.owned(elements);
        offers.sources(segment, owned, rank)
    };
    let mut outgoing = vec![Vec::new(); world.0 as usize];
    for (rank, bytes) in (0..).map(Rank).zip(&mut outgoing) {
        for source in sources(rank) {
            if source.rank == me && rank != me {
                for part in pieces[source.index].part(&source.range) {
                    bytes.extend_from_slice(bytemuck::cast_slice(part));
                }
            }
        }
    }
    let incoming = transport.all_to_all(&outgoing)?;
    drop(outgoing);
    let mut readers: Vec<&[u8]> = incoming.iter().map(Vec::as_slice).collect();
    let mut state = SegmentState::<Vec<f32>>::default();
    for Source { rank, index, range } in sources(me) {
        let into = [&mut state.master, &mut state.exp_avg, &mut state.exp_avg_sq];
        if rank == me {
            let parts = pieces[index].part(&range);
            for (vector, part) in into.into_iter().zip(parts) {
                vector.extend_from_slice(part);
            }
            continue;
        }
        for vector in into {
            let reader = &mut readers[rank.0 as usize];
            // Fewer bytes than are due leave the state short, which its sums tell.
            let (part, rest) = reader.split_at(reader.len().min(4 * range.len()));
            let values = part.as_chunks::<4>().0.iter();
            vector.extend(values.map(|bytes| f32::from_le_bytes(*bytes)));
            *reader = rest;
        }
    }
    Ok(state)
}

/// What every block of every segment should sum up to.
struct Sums(Vec<Vec<Option<u64>>>);

impl Sums {
    /// From what each rank says of its pieces; refused where two say different things of one block.
    fn new(offers: &Offers, layout: &ModelLayout, ranks: &[Vec<u8>]) -> Result<Sums, String> {
        let blocks = layout.segments.iter().map(|s| s.elements.div_ceil(BLOCK));
        let mut sums: Vec<Vec<Option<u64>>> = blocks.map(|blocks| vec![None; blocks]).collect();
        let mut readers: Vec<_> = ranks.iter().map(|b| b.as_chunks::<8>().0.iter()).collect();
        for Held { rank, extent, .. } in &offers.held {
            let Range { start, end } = extent.range;
            let name = &layout.segments[extent.segment].name;
            let blocks = sums[extent.segment][..end.div_ceil(BLOCK)].iter_mut();
            for (block, known) in blocks.enumerate().skip(start / BLOCK) {
                let found = readers[rank.0 as usize].next();
                let found = found.ok_or_else(|| format!("{rank} is silent about {name}"))?;
                let found = u64::from_le_bytes(*found);
                if *known.get_or_insert(found) != found {
                    let which = format!("block {block} of {name}");
                    return Err(format!("{rank} and another one differ in {which}"));
                }
            }
        }
        Ok(Sums(sums))
    }

    /// Whether a segment's elements from `start` on are those that were meant.
    fn are_of(&self, segment: usize, start: usize, state: &SegmentState<Vec<f32>>) -> bool {
        let SegmentState {
            master,
            exp_avg,
            exp_avg_sq,
        } = state;
        let found = block_checksums([master, exp_avg, exp_avg_sq]);
        let meant = self.0[segment].iter().skip(start / BLOCK);
        exp_avg.len() == master.len()
            && exp_avg_sq.len() == master.len()
            && found
                .into_iter()
                .map(Some)
                .eq(meant.take(master.len().div_ceil(BLOCK)).copied())
    }
}

/// A snapshot without its state: the length of what was consumed, that, and the rows.
fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let consumed = serde_json::to_vec(&snapshot.consumed).expect("numbers can be serialized");
    let rows = metrics::encode("rows in memory", &snapshot.rows);
    let rows = rows.expect("rows of numbers make a table");
    let mut bytes = (consumed.len() as u64).to_le_bytes().to_vec();
    bytes.extend(consumed);
    bytes.extend(rows);
    bytes
}

fn decode(bytes: &[u8]) -> Result<Restored, String> {
    let cut = || "what is known of it is cut short".to_owned();
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(cut)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| cut())?;
    let (consumed, rows) = rest.split_at_checked(length).ok_or_else(cut)?;
    let consumed = serde_json::from_slice(consumed).map_err(|error| error.to_string())?;
    let rows = metrics::decode("rows in memory", rows.to_vec().into());
    let rows = rows.map_err(|error| error.to_string())?;
    Ok(Restored { consumed, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_that_differs_is_noticed_where_it_is() {
        let state = SegmentState {
            master: vec![1.0; BLOCK + 7],
            exp_avg: vec![0.5; BLOCK + 7],
            exp_avg_sq: vec![0.25; BLOCK + 7],
        };
        let sums = |state: &SegmentState<Vec<f32>>| {
            block_checksums([&state.master, &state.exp_avg, &state.exp_avg_sq])
        };
        let expected = sums(&state);
        assert_eq!(expected.len(), 2);
        for at in [0, BLOCK, BLOCK + 6] {
            let mut other = state.clone();
            other.exp_avg_sq[at] = 0.25000003;
            let found = sums(&other);
            let differs: Vec<bool> = found.iter().zip(&expected).map(|(a, b)| a != b).collect();
            assert_eq!(differs, [at < BLOCK, at >= BLOCK]);
            let mut short = state.clone();
            short.exp_avg.pop();
            let meant = Sums(vec![expected.iter().copied().map(Some).collect()]);
            assert!(meant.are_of(0, 0, &state) && !meant.are_of(0, 0, &short));
        }
    }
}
