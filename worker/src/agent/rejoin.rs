//! Joining a coordinator, and finding another one when it is lost.

use super::{Agent, Error, connect::connect, inventory};
use polestar_core::{Epoch, Step};
use polestar_run::{
    lease::{self, host_name},
    pool::{MAX_MESSAGE, PROTOCOL},
    proto::{self, ToWorker, from_worker::Body, pool_client::PoolClient},
};
use polestar_store::Store;
use std::{
    net::IpAddr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, metadata::MetadataValue};

/// How long reading the lease may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks for a coordinator.
const PAUSE: Duration = Duration::from_millis(500);

/// What a worker needs to find another coordinator of its run.
#[derive(Clone, Debug)]
pub(super) struct KnownRun {
    /// The highest epoch in which it was welcomed.
    pub(super) epoch: Epoch,
    /// URL of the run's folder.
    pub(super) folder: String,
    /// How long it may go on without a coordinator.
    pub(super) grace: Duration,
}

impl Agent {
    /// Joins the coordinator at a URL.
    pub(super) async fn connect(
        &mut self,
        url: String,
    ) -> Result<tonic::Streaming<ToWorker>, Error> {
        let connection = connect(&url, &self.options).await?;
        // Peers of what is trained know this worker by its first address.
        let data_address = *self.data_address.get_or_insert(connection.data_address);
        let outgoing = self.outbox.attach(self.hello(data_address));
        let mut request = Request::new(UnboundedReceiverStream::new(outgoing));
        let bearer: MetadataValue<_> = format!("Bearer {}", self.options.token.bearer())
            .parse()
            .expect("hexadecimal digits are printable");
        request.metadata_mut().insert("authorization", bearer);
        let client = PoolClient::new(connection.channel);
        let incoming = client
            .max_decoding_message_size(MAX_MESSAGE)
            .join(request)
            .await;
        self.tls = connection.tls;
        self.url = url;
        Ok(incoming?.into_inner())
    }

    fn hello(&self, data_address: IpAddr) -> Body {
        let membership = self.running.as_ref().map(|running| {
            let mut membership = running.membership.clone();
            membership.step = Step(running.step.load(Ordering::Relaxed));
            membership.into()
        });
        Body::Hello(proto::Hello {
            host: host_name(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            launch: self.options.launch.clone().unwrap_or_default(),
            protocol: PROTOCOL,
            machine: Some(inventory::machine(data_address).into()),
            membership,
        })
    }

    /// Looks for a coordinator of the run until there is one, or the grace is over. What is trained goes on.
    pub(super) async fn rejoin(&mut self, lost: &Error) -> Option<tonic::Streaming<ToWorker>> {
        let known = self.run.clone()?;
        let begun = Instant::now();
        let grace = known.grace;
        tracing::warn!(
            "the coordinator is lost ({lost}); another is looked for, for {} s",
            grace.as_secs()
        );
        // One that was warned that it will be gone has nothing to come back for.
        while begun.elapsed() < grace && !*self.options.leave.borrow() {
            for url in self.places(&known).await {
                match self.connect(url).await {
                    Ok(incoming) => return Some(incoming),
                    Err(error) => {
                        self.outbox.detach();
                        tracing::debug!("not there: {error}");
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        tracing::error!(
            "no coordinator came back in {} s; this worker ends",
            grace.as_secs()
        );
        None
    }

    /// Where a coordinator may be: where the lease says, and where the last one was.
    async fn places(&self, known: &KnownRun) -> Vec<String> {
        let look = async {
            let folder = Store::open_existing(&known.folder).ok()?;
            lease::read(&folder).await.ok()?
        };
        let seen = tokio::time::timeout(PATIENCE, look).await.ok().flatten();
        let leads = seen
            .map(|seen| seen.record)
            .filter(|record| record.epoch >= known.epoch && !record.is_free())
            .map(|record| record.leader.address);
        match leads {
            Some(address) if address != self.url => vec![address],
            _ => vec![self.url.clone()],
        }
    }
}
