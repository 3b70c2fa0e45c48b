//! Exchanges and queues of the broker, declared once, by whoever connects first.
//!
//! Every name begins with a prefix (`AMQP_PREFIX`), so that several installations can share a broker.
//! What may have to change later (time to live, length, delivery limit, dead-letter exchange) is a *policy* of the
//! broker: arguments of a queue cannot be changed, and declaring it with others closes the channel.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};

/// Routing key of doorbells.
pub const ROUTING_KEY: &str = "jobs";

/// The names of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Direct exchange that doorbells are published to.
    pub exchange: String,
    /// Quorum queue that workers consume.
    pub jobs: String,
    /// Fan-out exchange for doorbells that were rejected or delivered too often.
    pub dead_exchange: String,
    /// Where those end up. For operators only: losing it loses nothing.
    pub dead: String,
}

impl Topology {
    /// The names below a prefix.
    pub fn new(prefix: &str) -> Self {
        Self {
            exchange: prefix.to_owned(),
            jobs: format!("{prefix}.jobs"),
            dead_exchange: format!("{prefix}.dead"),
            dead: format!("{prefix}.dead"),
        }
    }

    /// Makes sure that everything is there. What the service's user may not make has to be there already; a broker that
    /// was wiped is healed by whoever may.
    pub async fn ensure(&self, connection: &Connection) -> lapin::Result<()> {
        // Looking takes no right. What is missing closes the channel that looked.
        let channel = connection.create_channel().await?;
        match self.look(&channel).await {
            Ok(()) => {
                let _ = channel.close(200, "looked".into()).await;
                Ok(())
            }
            Err(error) if is_not_found(&error) => self.declare(connection).await,
            Err(error) => Err(error),
        }
    }

    async fn look(&self, channel: &Channel) -> lapin::Result<()> {
        let none = FieldTable::default;
        let exchange = ExchangeDeclareOptions { passive: true, ..Default::default() };
        for (name, kind) in [(&self.exchange, ExchangeKind::Direct), (&self.dead_exchange, ExchangeKind::Fanout)] {
            channel.exchange_declare(name.as_str().into(), kind, exchange, none()).await?;
        }
        let queue = QueueDeclareOptions { passive: true, ..Default::default() };
        for name in [&self.jobs, &self.dead] {
            channel.queue_declare(name.as_str().into(), queue, none()).await?;
        }
        Ok(())
    }

    /// Declares everything. Harmless when it is there already.
    pub async fn declare(&self, connection: &Connection) -> lapin::Result<()> {
        let channel = connection.create_channel().await?;
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let none = FieldTable::default;
        for (name, kind) in [(&self.exchange, ExchangeKind::Direct), (&self.dead_exchange, ExchangeKind::Fanout)] {
            channel.exchange_declare(name.as_str().into(), kind, durable, none()).await?;
        }
        self.declare_jobs(&channel).await?;
        let queue = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(self.dead.as_str().into(), queue, none()).await?;
        let bind = QueueBindOptions::default();
        channel
            .queue_bind(self.jobs.as_str().into(), self.exchange.as_str().into(), ROUTING_KEY.into(), bind, none())
            .await?;
        channel
            .queue_bind(self.dead.as_str().into(), self.dead_exchange.as_str().into(), "".into(), bind, none())
            .await?;
        channel.close(200, "declared".into()).await
    }

    /// Declares the queue of doorbells alone. Closes the channel when there is one of another kind.
    pub(crate) async fn declare_jobs(&self, channel: &Channel) -> lapin::Result<()> {
        // A quorum queue survives the loss of a node where there are three, and works on one.
        let mut quorum = FieldTable::default();
        quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let queue = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(self.jobs.as_str().into(), queue, quorum).await.map(drop)
    }
}

fn is_not_found(error: &lapin::Error) -> bool {
    let lapin::ErrorKind::ProtocolError(error) = error.kind() else { return false };
    error.get_id() == AMQPSoftError::NOTFOUND.get_id()
}
