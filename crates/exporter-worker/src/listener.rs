//! Listens for doorbells on behalf of one slot, over a supervised connection of its own.
//!
//! A slot that is busy has no consumer, so the broker cannot push it work that others could do. A doorbell is
//! acknowledged as soon as the slot has looked at its job: the row carries everything from then on.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use model::doorbell::{self, BrokerError, Pause};
use model::error_chain::Chain;
use model::failpoint;
use model::limits;
use model::message::Doorbell;
use model::settings::BrokerSettings;
use model::topology::Topology;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// How long a slot may take to look at a job before the doorbell goes to somebody else.
const LOOK: Duration = Duration::from_secs(10);

/// A doorbell that rang.
#[derive(Debug)]
pub struct Ring {
    /// The job to look at.
    pub job: Uuid,
    looked: oneshot::Sender<()>,
}

impl Ring {
    /// Says that the slot has looked at the job, whatever it found.
    pub fn looked(self) {
        let _ = self.looked.send(());
    }

    /// Tells whether nobody waits for this ring any more.
    pub fn is_stale(&self) -> bool {
        self.looked.is_closed()
    }
}

/// The slot's side.
#[derive(Debug)]
pub struct Listener {
    idle: watch::Sender<bool>,
    rings: mpsc::Receiver<Ring>,
}

impl Listener {
    /// Starts listening in the background; the task ends when the listener is dropped.
    pub fn start(settings: BrokerSettings, slot: usize) -> Self {
        let (idle, is_idle) = watch::channel(false);
        let (sender, rings) = mpsc::channel(1);
        tokio::spawn(supervise(settings, slot, is_idle, sender));
        Self { idle, rings }
    }

    /// Says whether the slot can take work now.
    pub fn set_idle(&self, idle: bool) {
        self.idle.send_replace(idle);
    }

    /// Waits for a doorbell. Cancel-safe.
    pub async fn ring(&mut self) -> Ring {
        match self.rings.recv().await {
            Some(ring) => ring,
            // The task never ends before the listener; waiting for ever leaves the slot to its polling.
            None => std::future::pending().await,
        }
    }
}

/// Connects for ever, with growing pauses. Polling goes on meanwhile.
async fn supervise(settings: BrokerSettings, slot: usize, mut idle: watch::Receiver<bool>, rings: mpsc::Sender<Ring>) {
    let topology = Topology::new(&settings.prefix);
    let mut pause = Pause::new();
    let mut failing = false;
    loop {
        let listening = async {
            let connection = doorbell::connect(&settings, &format!("exporter-worker slot {slot}")).await?;
            topology.ensure(&connection).await?;
            let channel = connection.create_channel().await?;
            channel.basic_qos(1, BasicQosOptions::default()).await?;
            tracing::info!(slot, recovered = failing, "listening for doorbells");
            pause.reset();
            listen(&channel, &topology, &mut idle, &rings).await
        };
        match listening.await {
            Ok(()) => return,
            Err(error) if failing => tracing::debug!(slot, error = %Chain(&error), "broker still unreachable"),
            Err(error) => tracing::warn!(slot, error = %Chain(&error), "cannot hear doorbells, polling meanwhile"),
        }
        failing = true;
        sleep(pause.take()).await;
        if rings.is_closed() {
            return;
        }
    }
}

/// Consumes while the slot is idle. Returns when the slot is gone.
async fn listen(
    channel: &Channel,
    topology: &Topology,
    idle: &mut watch::Receiver<bool>,
    rings: &mpsc::Sender<Ring>,
) -> Result<(), BrokerError> {
    loop {
        if idle.wait_for(|idle| *idle).await.is_err() {
            return Ok(());
        }
        // A new tag each time: a quorum queue of older brokers can strand messages of a tag that is used again
        // (rabbitmq/rabbitmq-server#9158).
        let tag = Uuid::new_v4().to_string();
        let queue = topology.jobs.as_str().into();
        let options = BasicConsumeOptions::default();
        let mut consumer = channel.basic_consume(queue, tag.as_str().into(), options, FieldTable::default()).await?;
        let delivery = tokio::select! {
            // All branches are cancel-safe: a delivery that arrived stays in the consumer.
            delivery = consumer.next() => Some(delivery),
            _ = idle.wait_for(|idle| !*idle) => None,
            () = rings.closed() => None,
        };
        // Cancel before acknowledging: with one message in flight the broker then cannot push a second.
        channel.basic_cancel(tag.into(), BasicCancelOptions::default()).await?;
        match delivery {
            Some(Some(Ok(delivery))) => hand_over(delivery, rings).await?,
            Some(Some(Err(error))) => return Err(error.into()),
            // The end of the stream is the broker's doing (queue deleted, node gone), not the end of the work.
            Some(None) => return Err(BrokerError::Closed),
            None => give_back(&mut consumer).await?,
        }
    }
}

async fn hand_over(delivery: Delivery, rings: &mpsc::Sender<Ring>) -> Result<(), BrokerError> {
    let Some(bell) = Doorbell::decode(&delivery.data) else {
        tracing::warn!(bytes = delivery.data.len(), "rejected a message that is no doorbell");
        delivery.reject(BasicRejectOptions { requeue: false }).await?;
        return Ok(());
    };
    failpoint::reached("worker.after_delivery");
    let (looked, waiting) = oneshot::channel();
    let looked_at =
        rings.send(Ring { job: bell.job, looked }).await.is_ok() && matches!(timeout(LOOK, waiting).await, Ok(Ok(())));
    if looked_at {
        delivery.ack(BasicAckOptions::default()).await?;
        failpoint::reached("worker.after_ack");
    } else {
        delivery.nack(BasicNackOptions { requeue: true, ..Default::default() }).await?;
    }
    Ok(())
}

/// Gives back what was delivered while the consumer was being cancelled.
async fn give_back(consumer: &mut Consumer) -> Result<(), BrokerError> {
    while let Some(Some(Ok(delivery))) = consumer.next().now_or_never() {
        delivery.nack(BasicNackOptions { requeue: true, ..Default::default() }).await?;
    }
    Ok(())
}

const _: () = assert!(LOOK.as_secs() > limits::STATEMENT_TIMEOUT.as_secs() + limits::DATABASE_CONNECT.as_secs());
