//! Ringing workers: a supervised connection that publishes doorbells with confirms.
//!
//! A doorbell is a hint. Nothing waits for it and nothing is lost with it: the job row is the outbox, and the relay
//! (see [`crate::housekeeping`]) rings again until somebody claims the job.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use secrecy::ExposeSecret;
use tokio::sync::mpsc;

use crate::error_chain::Chain;
use crate::failpoint;
use crate::message::{Bell, Doorbell};
use crate::settings::BrokerSettings;
use crate::topology::{ROUTING_KEY, Topology};
use crate::trace_context::TraceContext;
use crate::{limits, metrics};

/// Rings for jobs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ringer {
    bells: mpsc::Sender<Bell>,
    connected: Arc<AtomicBool>,
}

impl Ringer {
    /// Asks for a doorbell and returns at once. When too many wait already this one is dropped: the relay rings again.
    pub fn ring(&self, bell: Bell) {
        let job = bell.job;
        if self.bells.try_send(bell).is_err() {
            tracing::debug!(job.id = %job, "too many doorbells wait, leaving this one to the relay");
        }
    }

    /// Tells whether there is a connection to the broker now.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Relaxed)
    }
}

/// Starts the publishing task on a connection of its own (a broker that is short of memory blocks publishing
/// connections whole, acknowledgements included). The task ends when all ringers are gone.
pub fn start(settings: BrokerSettings, service: &'static str) -> (Ringer, tokio::task::JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel(limits::DOORBELL_BACKLOG);
    let ringer = Ringer { bells: sender, connected: Arc::default() };
    let connected = Arc::clone(&ringer.connected);
    (ringer, tokio::spawn(supervise(settings, service, receiver, connected)))
}

/// Connects for ever, with growing pauses. lapin's own recovery is off: it gives up, and it hides what was lost.
async fn supervise(
    settings: BrokerSettings,
    service: &'static str,
    mut bells: mpsc::Receiver<Bell>,
    connected: Arc<AtomicBool>,
) {
    let topology = Topology::new(&settings.prefix);
    let mut pause = Pause::new();
    let mut failing = false;
    // A message that came back: the queues are there, and not bound.
    let mut heal = false;
    loop {
        match open(&settings, service, &topology, std::mem::take(&mut heal)).await {
            Ok((connection, channel)) => {
                tracing::info!(recovered = failing, "connected to the broker for publishing");
                pause.reset();
                connected.store(true, Relaxed);
                let published = publish_all(&connection, &channel, &topology, &mut bells).await;
                connected.store(false, Relaxed);
                match published {
                    Ok(()) => return,
                    Err(error) => {
                        if !matches!(error, BrokerError::Returned(_)) {
                            metrics::published("failed");
                        }
                        heal = matches!(error, BrokerError::Returned(_));
                        tracing::warn!(error = %Chain(&error), "lost the broker connection for publishing");
                    }
                }
            }
            Err(error) if failing => tracing::debug!(error = %Chain(&error), "broker still unreachable"),
            Err(error) => tracing::warn!(error = %Chain(&error), "cannot reach the broker, workers poll meanwhile"),
        }
        failing = true;
        // Doorbells of the meantime are the relay's: kept here they would all ring at once, late.
        let until = tokio::time::Instant::now() + pause.take();
        loop {
            match tokio::time::timeout_at(until, bells.recv()).await {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(_) => break,
            }
        }
    }
}

async fn publish_all(
    connection: &Connection,
    channel: &Channel,
    topology: &Topology,
    bells: &mut mpsc::Receiver<Bell>,
) -> Result<(), BrokerError> {
    let mut check = tokio::time::interval(limits::PUBLISH);
    loop {
        let bell = tokio::select! {
            // Both branches are cancel-safe.
            bell = bells.recv() => bell,
            _ = check.tick() => {
                if !connection.status().connected() {
                    return Err(BrokerError::Closed);
                }
                continue;
            }
        };
        match bell {
            None => return Ok(()),
            Some(bell) => publish(channel, topology, bell).await?,
        }
    }
}

/// Sends one doorbell and waits for the broker's word. One at a time: returned messages are matched in order.
pub(crate) async fn send(channel: &Channel, topology: &Topology, bell: &Bell) -> Result<Confirmation, BrokerError> {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_message_id(bell.job.to_string().into())
        .with_headers(headers(bell.trace.as_ref()));
    let body = Doorbell::for_job(bell.job).encode();
    let sending = async {
        let exchange = topology.exchange.as_str().into();
        channel.basic_publish(exchange, ROUTING_KEY.into(), options, &body, properties).await?.await
    };
    // A publish that timed out may still arrive: unknown, and harmless.
    Ok(tokio::time::timeout(limits::PUBLISH, sending).await.map_err(|_| BrokerError::Timeout)??)
}

/// Publishes one doorbell.
async fn publish(channel: &Channel, topology: &Topology, bell: Bell) -> Result<(), BrokerError> {
    let job = bell.job;
    failpoint::reached("doorbell.before_publish");
    let confirmation = send(channel, topology, &bell).await?;
    failpoint::reached("doorbell.after_publish");
    match confirmation {
        Confirmation::Ack(None) => {
            tracing::debug!(job.id = %job, "rang");
            metrics::published("confirmed");
            Ok(())
        }
        Confirmation::Ack(Some(returned)) => {
            metrics::published("returned");
            Err(BrokerError::Returned(reason(&returned)))
        }
        Confirmation::Nack(_) => {
            tracing::warn!(job.id = %job, "the broker's queue is full, the relay rings again");
            metrics::published("refused");
            Ok(())
        }
        Confirmation::NotRequested => Err(BrokerError::NoConfirms),
    }
}

/// The trace, in the header fields that it has in HTTP.
fn headers(trace: Option<&TraceContext>) -> FieldTable {
    let mut headers = FieldTable::default();
    if let Some(trace) = trace {
        headers.insert("traceparent".into(), AMQPValue::LongString(trace.parent().into()));
        if let Some(state) = trace.state() {
            headers.insert("tracestate".into(), AMQPValue::LongString(state.into()));
        }
    }
    headers
}

fn reason(returned: &BasicReturnMessage) -> String {
    returned.reply_text.to_string()
}

async fn open(
    settings: &BrokerSettings,
    service: &str,
    topology: &Topology,
    heal: bool,
) -> Result<(Connection, Channel), BrokerError> {
    let connection = connect(settings, &format!("{service} publisher")).await?;
    if heal {
        topology.declare(&connection).await?;
    } else {
        topology.ensure(&connection).await?;
    }
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok((connection, channel))
}

/// Opens a broker connection under a name that operators see.
///
/// # Errors
/// When the broker does not answer within [`limits::BROKER_CONNECT`] or refuses.
pub async fn connect(settings: &BrokerSettings, name: &str) -> Result<Connection, BrokerError> {
    let properties = ConnectionProperties::default().with_connection_name(name.to_owned().into());
    let connecting = Connection::connect(settings.url.expose_secret(), properties);
    Ok(tokio::time::timeout(limits::BROKER_CONNECT, connecting).await.map_err(|_| BrokerError::Timeout)??)
}

/// What goes wrong with the broker. Never shown to clients.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// No answer in time.
    #[error("the broker did not answer in time")]
    Timeout,
    /// The connection or the consumer is gone.
    #[error("the broker closed the connection")]
    Closed,
    /// No queue is bound: nobody got the message.
    #[error("the broker returned the message: {0}")]
    Returned(String),
    /// Confirms are off; a fault of this program.
    #[error("confirms were not requested")]
    NoConfirms,
    /// The client library's word.
    #[error("broker")]
    Lapin(#[from] lapin::Error),
}

/// Pauses between attempts to connect: doubled each time, full jitter.
#[derive(Debug)]
pub struct Pause(Duration);

impl Pause {
    /// Starts with the shortest pause.
    pub fn new() -> Self {
        Self(limits::BROKER_BACKOFF.0)
    }

    /// Back to the shortest pause.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Returns how long to wait now.
    pub fn take(&mut self) -> Duration {
        let (shortest, longest) = limits::BROKER_BACKOFF;
        let pause = shortest.max(self.0.mul_f64(fastrand::f64()));
        self.0 = (self.0 * 2).min(longest);
        pause
    }
}

impl Default for Pause {
    fn default() -> Self {
        Self::new()
    }
}
