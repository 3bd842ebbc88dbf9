//! Where the time of steps went, as a message.

use super::{ProtocolError, present};
use crate::{Measured, StepParts, proto};
use polestar_core::Step;
use polestar_store::Traffic;

impl From<StepParts> for proto::StepParts {
    fn from(parts: StepParts) -> Self {
        let StepParts {
            data,
            forward,
            backward,
            reduce,
            optimizer,
            save,
            evaluate,
        } = parts;
        proto::StepParts {
            data,
            forward,
            backward,
            reduce,
            optimizer,
            save,
            evaluate,
        }
    }
}

impl From<proto::StepParts> for StepParts {
    fn from(message: proto::StepParts) -> Self {
        StepParts {
            data: message.data,
            forward: message.forward,
            backward: message.backward,
            reduce: message.reduce,
            optimizer: message.optimizer,
            save: message.save,
            evaluate: message.evaluate,
        }
    }
}

impl From<Measured> for proto::Measured {
    fn from(measured: Measured) -> Self {
        proto::Measured {
            until: measured.until.0,
            steps: measured.steps,
            seconds: measured.seconds,
            parts: Some(measured.parts.into()),
            tokens: measured.tokens,
            flops_6nd: measured.flops_6nd,
            world: measured.world,
            sent_here: measured.sent_here,
            sent_away: measured.sent_away,
            store_read: measured.store.read,
            store_written: measured.store.written,
            store_retries: measured.store.retries,
        }
    }
}

impl TryFrom<proto::Measured> for Measured {
    type Error = ProtocolError;

    fn try_from(message: proto::Measured) -> Result<Self, ProtocolError> {
        Ok(Measured {
            until: Step(message.until),
            steps: message.steps,
            seconds: message.seconds,
            parts: present("measured.parts", message.parts)?.into(),
            tokens: message.tokens,
            flops_6nd: message.flops_6nd,
            world: message.world,
            sent_here: message.sent_here,
            sent_away: message.sent_away,
            store: Traffic {
                read: message.store_read,
                written: message.store_written,
                retries: message.store_retries,
            },
        })
    }
}
